"""Build the bundled tiny models: python scripts/tiny_models/build.py vlm, and ... sam

A tokenizer, a LLaVA-shaped VLM and a SAM are trained from nothing on generated scenes and saved in Hugging
Face's layout, fp16, with a model card each. ``--seconds`` is the time of the whole command; the weights are
saved every minute on the way, so that one that is cut short leaves a model. Both can run on one GPU at once:

    python scripts/tiny_models/build.py vlm --out OUT & python scripts/tiny_models/build.py sam --out OUT & wait

The scenes and the first weights are those of ``--seed``; how many steps fit into the time, the machine decides.
"""

import argparse
import copy
import json
import multiprocessing
import platform
import sys
import time
from pathlib import Path
from typing import Any

import sam as sam_training
import torch
import vlm as vlm_training
from corpus import corpus
from data import Maker
from embedding import VECTORS
from heads import HEADS, take_heads
from ring import Ring, default_workers
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlavaForConditionalGeneration

from modified_lisa.files import write_json, write_text
from modified_lisa.model.tiny import (
    SamSizes,
    VlmSizes,
    build_sam,
    build_tokenizer,
    build_vlm,
    save_sam,
    save_vlm,
)

BEGAN = time.monotonic()
ASSETS = Path(__file__).resolve().parents[2] / "src" / "modified_lisa" / "assets"
SMALLEST_VLM = VlmSizes(vision_width=48, vision_layers=4, vision_heads=2, width=48, layers=2, heads=2, mlp=96)
SMALLEST_SAM = SamSizes(width=32, layers=2, heads=2, channels=128, decoder_mlp=64, decoder_heads=2)
"""For ``--smoke``: tries the code, learns nothing."""
CARD = """---
license: apache-2.0
---
# {title}

{text}

- Data: scenes made by `modified_lisa.data.scenes`, training split only (no held-out wording, combination or kind
  of object), seed {seed}; no photograph{read}.
- Made by: `{command}`
- Machine: {machine}
- Trained for {steps} steps of {batch} scenes, {scenes} different scenes rendered meanwhile by {workers} processes
  ({rendered_per_s} scenes/s, {steps_per_s} steps/s); fp32 weights with bf16 products; stored as fp16.
- Weights: {parameters:,}.
- On {val} scenes of the val split, which have held-out wordings, combinations and kinds too: {metrics}
- Limits: it knows nothing but such scenes. On photographs it is a starting point for training, no more.
"""
READ = {
    False: "; the tokenizer has also read a list of English words",
    True: "; the tokenizer has also read\n  English words, whose embeddings began as a projection of those of SmolLM2-135M-Instruct (Apache-2.0; `words.py`)",
}
TITLES = {
    "vlm": (
        "A tiny LLaVA",
        "A CLIP-shaped vision tower, a projector and a LLaMA-shaped language model, trained to answer questions about\n"
        "scenes and to know, behind a query, which objects are meant.",
    ),
    "sam": ("A tiny SAM", "An image encoder of 64 x 64 cells, a prompt encoder and a mask decoder."),
}


def machine() -> str:
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return f"{name}, {multiprocessing.cpu_count()} cores, PyTorch {torch.__version__}"


def check_same_words(one: Any, other: Any) -> None:
    """SystemExit if the tokenizer to go on with is not the one whose words' vectors are given."""
    if one.get_vocab() != other.get_vocab():
        raise SystemExit(
            "--words has another tokenizer than the model of --start; give the one it was made with"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("vlm", "sam"))
    parser.add_argument("--out", type=Path, default=ASSETS, help="folder that tiny-vlm or tiny-sam goes into")
    parser.add_argument("--seconds", type=float, default=480, help="time of the whole command (default: 480)")
    parser.add_argument(
        "--batch", type=int, help="scenes in a step (default: 96 for the VLM, 48 for the SAM)"
    )
    parser.add_argument(
        "--text_tokens", type=int, default=376, help="tokens of questions and queries behind an image"
    )
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate of AdamW")
    parser.add_argument(
        "--muon_lr", type=float, default=4e-3, help="of Muon, for the matrices of the VLM's layers; 0: AdamW"
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="folder with a tiny-vlm to continue from, and with its heads, or a tiny-lisa with some of them; give --words as"
        " it had them",
    )
    parser.add_argument(
        "--words", type=Path, help="folder that words.py wrote: the VLM's tokenizer, and what its words mean"
    )
    parser.add_argument(
        "--hold", type=float, default=0.4, help="share of the time after which the VLM's rate falls; 1: never"
    )
    parser.add_argument(
        "--drop_own",
        type=float,
        default=0.3,
        help="with --words: share of the words that are read by their meaning alone",
    )
    parser.add_argument(
        "--drop_words",
        type=float,
        default=0.0,
        help="share of the words that every second query to the VLM loses",
    )
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes that render")
    parser.add_argument(
        "--capacity",
        type=int,
        default=16_000,
        help="scenes kept on the device; 0.4 MB each for the VLM, 0.85 for the SAM",
    )
    parser.add_argument("--first", type=int, default=1500, help="scenes made before the first step")
    parser.add_argument("--val", type=int, default=288, help="scenes of the val split to measure on")
    parser.add_argument("--tokenizer_scenes", type=int, default=4000)
    parser.add_argument("--save_every", type=float, default=60, help="seconds between saves")
    parser.add_argument("--compile", action="store_true", help="use torch.compile")
    parser.add_argument(
        "--capture", action="store_true", help="the VLM's step as one CUDA graph, without the optimizer"
    )
    parser.add_argument("--smoke", action="store_true", help="the smallest sizes, to try the code")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # The threads that prepare batches must not keep the one that launches waiting for its usual 5 ms.
    sys.setswitchinterval(5e-4)
    batch = options.batch or {"vlm": 96, "sam": 48}[options.part]
    folder = options.out / f"tiny-{options.part}"

    # Everything that forks comes before the first use of the GPU.
    maker: dict[str, Any] = {"side": 336, "interpolation": "bicubic", "mean": vlm_training.MEAN}
    tokenizer = None
    if options.part == "vlm":
        kept = options.start / "tiny-vlm" if options.start else options.words
        if kept:
            tokenizer = AutoTokenizer.from_pretrained(kept)
            if options.words and options.start:
                check_same_words(tokenizer, AutoTokenizer.from_pretrained(options.words))
        else:
            tokenizer = build_tokenizer(corpus(options.seed, options.tokenizer_scenes, options.workers), 4096)
        lone = vlm_training.seg_ids(tokenizer)
        print(
            f"tokenizer: {len(tokenizer)} tokens; 'segmentation mask' is {tokenizer.convert_ids_to_tokens(lone)}",
            flush=True,
        )

        core = tokenizer.backend_tokenizer

        def encode(text: str) -> list[int]:
            return list(core.encode(text, add_special_tokens=False).ids)

        # Behind the query stands " <SEG>", whose blank belongs to the <SEG>.
        maker |= {"answer": encode, "query": lambda text: encode(f"\n{text}")}
    else:
        maker = {"side": 512, "interpolation": "bilinear", "mean": sam_training.MEAN}
    ring = Ring(
        Maker(**maker),
        maker["side"],
        seed=options.seed,
        workers=options.workers,
        capacity=options.capacity,
        val=options.val,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(options.seed)
    ring.start(device, options.first)
    print(
        f"{time.monotonic() - BEGAN:.0f} s: {ring.made} scenes to begin with, {ring.rate:.0f}/s; {machine()}",
        flush=True,
    )

    reserve = 4.0 if options.smoke else 12.0  # for the last measurement and the saving
    until = BEGAN + options.seconds - reserve
    if until <= time.monotonic():
        raise SystemExit("--seconds is over before the training starts; give more, or a smaller --first")
    shared: dict[str, Any] = {
        "until": until, "batch": batch, "lr": options.lr, "seed": options.seed, "compiled": options.compile,
        "save_every": options.save_every,
    }  # fmt: skip
    if options.part == "vlm":
        if options.start:
            model = LlavaForConditionalGeneration.from_pretrained(
                options.start / "tiny-vlm", dtype=torch.float32
            )
        else:
            model = build_vlm(tokenizer, SMALLEST_VLM if options.smoke else None)
        vectors = load_file(options.words / VECTORS)["vectors"] if options.words else None
        learner = vlm_training.Learner(
            model, tokenizer, vectors, options.drop_own, trained=bool(options.start)
        )
        if options.start:
            print(f"heads: {take_heads(learner.heads, options.start)} weights are there", flush=True)

        def save() -> None:
            # Copies of the weights alone: the compiled layers cannot be copied.
            learner.settle()
            weights = {name: value.cpu() for name, value in model.state_dict().items()}
            clean = type(model)(model.config)
            clean.load_state_dict(weights)
            save_vlm(folder, clean, tokenizer, torch.float16)
            heads = {name: value.cpu().contiguous() for name, value in learner.heads.state_dict().items()}
            save_file(heads, options.out / HEADS)

        result = vlm_training.train(
            learner,
            tokenizer,
            ring,
            text_tokens=options.text_tokens,
            muon_lr=options.muon_lr,
            hold=options.hold,
            drop_words=options.drop_words,
            captured=options.capture,
            save=save,
            **shared,
        )
    else:
        model = build_sam(SMALLEST_SAM if options.smoke else None)

        def save() -> None:
            save_sam(folder, copy.deepcopy(model).cpu(), torch.float16)

        result = sam_training.train(model, ring, save=save, **shared)
    save()
    ring.close()
    title, text = TITLES[options.part]
    metrics = json.dumps({name: value for name, value in result.items() if name.startswith(("val", "by"))})
    write_text(
        folder / "README.md",
        CARD.format(
            title=title, read=READ[bool(options.words)] if tokenizer else "", text=text, seed=options.seed, batch=batch, workers=options.workers, val=options.val,
            parameters=sum(parameter.numel() for parameter in model.parameters()), metrics=metrics, machine=machine(),
            command=f"python scripts/tiny_models/build.py {' '.join(sys.argv[1:])}",
            **{name: result[name] for name in ("steps", "scenes", "steps_per_s", "rendered_per_s")},
        ),
    )  # fmt: skip
    write_json(
        options.out / f"tiny-{options.part}.json",
        {
            "part": options.part,
            "options": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in vars(options).items()
            },
            **result,
        },
    )
    print(
        json.dumps(
            {
                "part": options.part,
                "folder": str(folder),
                "seconds": round(time.monotonic() - BEGAN),
                **result,
            }
        )
    )


if __name__ == "__main__":
    main()
