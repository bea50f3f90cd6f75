"""Build the bundled tiny models: python scripts/tiny_models/build.py all

A tokenizer, a LLaVA-shaped VLM and a SAM are trained from nothing on generated scenes and saved in Hugging
Face's layout, fp16, with a model card each. On an H200 with 16 cores: about five minutes a model. On a CPU
it works, but wants hours (`--seconds`).
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import sam as sam_training
import torch
import vlm as vlm_training
from data import Pool, make_example

from modified_lisa.files import write_text
from modified_lisa.model.tiny import build_sam, build_tokenizer, build_vlm, save_sam, save_vlm

ASSETS = Path(__file__).resolve().parents[2] / "src" / "modified_lisa" / "assets"
SQUARES = {"vlm": (336, "bicubic"), "sam": (512, "bilinear")}
CARD = """---
license: apache-2.0
---
# {title}

{text}

- Data: scenes made by `modified_lisa.data.scenes`, training split only, seed {seed}; no photograph, no other text.
- Made by: `{command}`
- Trained for {steps} steps of {batch} scenes ({scenes} different scenes) in fp32 with bf16 matrix products; stored as fp16.
- At the end of training, on training scenes: {metrics}
- Limits: it knows nothing but such scenes. On photographs it is a starting point for training, no more.
"""


def corpus(seed: int, scenes: int) -> list[str]:
    """Text of the training split, as the tokenizer will meet it."""
    rng = np.random.default_rng(seed)
    texts = ["USER: ASSISTANT: segmentation mask"] * 200
    for _ in range(scenes):
        example = make_example(rng, *SQUARES["vlm"])
        texts += [f"USER: \n{question} ASSISTANT: {answer} " for question, answer in example.answers]
        texts += [f"USER: \n{query} ASSISTANT: " for query, _ in example.queries]
    return texts


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=("vlm", "sam", "all"))
    parser.add_argument("--out", type=Path, default=ASSETS, help="where tiny-vlm and tiny-sam go")
    parser.add_argument("--seconds", type=float, default=280, help="longest time to train each")
    parser.add_argument("--steps", type=int, default=20_000, help="most steps to train each")
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--fresh", type=int, default=24, help="new scenes before each step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--first", type=int, default=3000, help="scenes made before the first step")
    parser.add_argument("--capacity", type=int, default=40_000, help="scenes kept; 1 MB of memory each")
    parser.add_argument("--tokenizer_scenes", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    torch.manual_seed(arguments.seed)
    budget = {name: getattr(arguments, name) for name in ("seconds", "steps", "batch", "fresh", "lr")}

    for part in ("vlm", "sam") if arguments.part == "all" else (arguments.part,):
        folder = arguments.out / f"tiny-{part}"
        side, how = SQUARES[part]
        pool = Pool(
            arguments.seed,
            side,
            how,
            workers=arguments.workers,
            capacity=arguments.capacity,
            first=arguments.first,
            device=device,
        )
        if part == "vlm":
            tokenizer = build_tokenizer(corpus(arguments.seed + 7, arguments.tokenizer_scenes))
            vlm = build_vlm(tokenizer)
            result = vlm_training.train(vlm, tokenizer, pool, device=device, **budget)
            save_vlm(folder, vlm.cpu(), tokenizer, torch.float16)
            title, text = (
                "A tiny LLaVA",
                "A CLIP-shaped vision tower, a projector and a LLaMA-shaped language model.",
            )
        else:
            sam = build_sam()
            result = sam_training.train(sam, pool, device=device, **budget)
            save_sam(folder, sam.cpu(), torch.float16)
            title, text = (
                "A tiny SAM",
                "An image encoder of 64 x 64 cells, a prompt encoder and a mask decoder.",
            )
        metrics = ", ".join(
            f"{name} {value:.3f}" for name, value in result.items() if name not in ("steps", "scenes")
        )
        write_text(
            folder / "README.md",
            CARD.format(
                title=title,
                text=text,
                seed=arguments.seed,
                batch=arguments.batch,
                steps=result["steps"],
                scenes=result["scenes"],
                metrics=metrics,
                command=f"python scripts/tiny_models/build.py {' '.join(sys.argv[1:])}",
            ),
        )
        print(json.dumps({"part": part, "folder": str(folder), **result}))


if __name__ == "__main__":
    main()
