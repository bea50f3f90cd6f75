"""Write a checkpoint of random weights in the original LISA's layout, at full size, to measure import and inference.

    python scripts/random_lisa.py OUT --size 7b

LLaMA 7B or 13B, CLIP ViT-L/14 at 224 px, SAM ViT-H; bf16; ``pytorch_model-*.bin`` with an index, one file in memory at
a time, and ``clip/``; a tokenizer of whole words. Its masks mean nothing. About 16 GB (7b) or 29 GB (13b).
"""

import argparse
import re
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from modified_lisa.files import write_atomically, write_json, write_text
from modified_lisa.model.original_lisa.keys import IDENTITY, ZEROS, clip_key, sam_key, vlm_key
from modified_lisa.model.original_lisa.protocol import prompt_parts
from modified_lisa.model.original_lisa.vocabulary import ADDED
from modified_lisa.training.distillation.settings import GENERIC_QUERIES

LLAMA = {
    "7b": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "13b": {
        "hidden_size": 5120,
        "intermediate_size": 13824,
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
    },
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4},
}
CLIP = {
    "7b": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
    },
    "tiny": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2},
}
SAM = {
    "7b": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "global_attn_indexes": [7, 15, 23, 31]},
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "global_attn_indexes": [1]},
}  # fmt: skip


def shapes_of(
    size: str,
) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]], dict[str, Any], Any]:
    """Names and shapes of the checkpoint and of its CLIP, its configuration, and the CLIP's."""
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        SamConfig,
        SamModel,
        SamVisionConfig,
    )

    sizes, part = LLAMA[size], "tiny" if size == "tiny" else "7b"
    vision = CLIPVisionConfig(image_size=224, patch_size=14, hidden_act="quick_gelu", **CLIP[part])
    text = LlamaConfig(vocab_size=32003, **sizes)
    with torch.device("meta"):
        vlm = LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text))
        sam = SamModel(SamConfig(vision_config=SamVisionConfig(**SAM[part])))
    main: dict[str, tuple[int, ...]] = {}
    clip: dict[str, tuple[int, ...]] = {}
    for name, tensor in vlm.state_dict().items():
        if (tower := clip_key(name)) is not None:
            clip[tower] = tuple(tensor.shape)
        elif (key := vlm_key(name, 1)) not in (IDENTITY, ZEROS):
            main[key] = tuple(tensor.shape)
    width = sizes["hidden_size"]
    for layer, out in ((0, width), (2, 256)):
        main[f"model.text_hidden_fcs.0.{layer}.weight"] = (out, width)
        main[f"model.text_hidden_fcs.0.{layer}.bias"] = (out,)
    main |= {sam_key(name): tuple(tensor.shape) for name, tensor in sam.state_dict().items()}
    config = {
        "model_type": "llava",
        "vocab_size": 32003,
        **sizes,
        "rms_norm_eps": 1e-6,
        "mm_vision_tower": "clip",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": True,
        "out_dim": 256,
    }
    return main, clip, config, vision


def values(name: str, shape: tuple[int, ...], device: str) -> torch.Tensor:
    """bf16: norms of 1, biases of 0, the rest normal with a width of 0.02 (1 for places and prompts)."""
    if len(shape) == 1 and "class_embedding" not in name:
        return (torch.ones if name.endswith("weight") else torch.zeros)(shape, dtype=torch.bfloat16)
    wide = ("prompt_encoder" in name and len(shape) == 2) or "token" in name.split(".")[-2]
    return torch.empty(shape, device=device, dtype=torch.bfloat16).normal_(0, 1.0 if wide else 0.02).cpu()


def write_tokenizer(folder: Path, rows: int) -> None:
    """``tokenizer.json``: a token for each word and mark, about as many as LLaMA's; `ADDED` are the last of ``rows``.

    It knows the words of the prompts of a distillation without ``--queries``; any other is ``<unk>``.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    special = ["<unk>", "<s>", "</s>"]
    prompts = "\n".join(part for query in GENERIC_QUERIES for part in prompt_parts(query))
    words = sorted(set(re.findall(r"\w+|[^\w\s]+", prompts)))
    # Fillers, so that what the reader adds to a vocabulary without them comes out where the original has it.
    pieces = list(dict.fromkeys([*special, *words, *(f"<filler {n}>" for n in range(rows))]))
    vocabulary = {piece: number for number, piece in enumerate(pieces[: rows - len(ADDED)])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.add_special_tokens(special)
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    write_text(folder / "tokenizer.json", core.to_str())


def save(content: dict[str, torch.Tensor], path: Path) -> None:
    """A file of `torch.save`, there in full or not at all."""
    write_atomically(path, lambda stream: torch.save(content, stream))


def main(argv: list[str] | None = None) -> int:
    """Write the checkpoint; print where."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("out", metavar="OUT", type=Path, help="folder to make")
    parser.add_argument("--size", choices=LLAMA, default="7b", help="of the language model (default: 7b)")
    parser.add_argument("--shard_gb", type=float, default=5.0, help="gigabytes of a file (default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    arguments = parser.parse_args(argv)
    if arguments.out.exists():
        parser.error(f"{arguments.out} is there already; name a new folder")
    torch.manual_seed(arguments.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shapes, clip, config, vision = shapes_of(arguments.size)
    files: list[list[str]] = [[]]
    held = 0.0
    for name, shape in shapes.items():
        size = 2 * torch.Size(shape).numel() / 1e9
        if files[-1] and held + size > arguments.shard_gb:
            files.append([])
            held = 0.0
        files[-1].append(name)
        held += size
    index = {}
    with tqdm(total=len(shapes), desc="weights") as bar:
        for number, names in enumerate(files, start=1):
            file = f"pytorch_model-{number:05}-of-{len(files):05}.bin"
            content = {}
            for name in names:
                content[name] = values(name, shapes[name], device)
                bar.update()
            save(content, arguments.out / file)
            index.update(dict.fromkeys(names, file))
    write_json(arguments.out / "pytorch_model.bin.index.json", {"metadata": {}, "weight_map": index})
    tower = {name: values(name, shape, device) for name, shape in clip.items()}
    save(tower, arguments.out / "clip" / "pytorch_model.bin")
    write_json(arguments.out / "clip" / "config.json", vision.to_dict())
    write_json(arguments.out / "config.json", config)
    write_tokenizer(arguments.out, config["vocab_size"])
    print(f"wrote {arguments.out}: {len(shapes)} tensors in {len(files)} files, clip/ and a tokenizer")
    return 0


if __name__ == "__main__":
    sys.exit(main())
