"""`modified-lisa distill` with as much of a GPU's memory as a smaller card has: whether that is enough, and what it took.

    python scripts/random_lisa.py models/random-lisa-7b --size 7b
    modified-lisa scenes scenes --train 17 --val 0 --test 0
    python scripts/measure_distill.py --out measured.json -- models/random-lisa-7b runs/student \
        --images scenes/train --quantization nf4 --embedding_epochs 2 --mask_epochs 2

Behind ``--``: the words of `modified-lisa distill`. On a GPU torch's allocator gets --card_gib, less what CUDA takes
beside it once a product has run, less a quarter of a GiB for kernels that are loaded later; ``fits`` says whether all
of it together stayed within. On a CPU there is no limit. Other programs on the GPU count as CUDA's: stop them first.
"""

import argparse
import json
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import torch

from modified_lisa.apps.cli import build_parser
from modified_lisa.apps.cli import main as modified_lisa
from modified_lisa.benchmark.measure import GIB, beside_torch_gb, describe_device, memory_source, versions
from modified_lisa.errors import ConfigError, ModifiedLISAError
from modified_lisa.files import write_json
from modified_lisa.model.loading import find_device

LATER_GIB = 0.25
"""Kept free for kernels that CUDA loads after the limit is set; ``card_memory_gb`` has what they took."""


def start_cuda(device: torch.device) -> None:
    """CUDA and its matrix products are on the card afterwards."""
    square = torch.ones(256, 256, dtype=torch.bfloat16, device=device)
    (square @ square).sum().item()


def limit_memory(device: torch.device, card_gib: float) -> dict[str, float] | None:
    """Leave torch's allocator what a card of ``card_gib`` would; what was found and set, GiB. None on a CPU."""
    if device.type != "cuda":
        return None
    start_cuda(device)
    beside = beside_torch_gb(device)
    total = torch.cuda.mem_get_info(device)[1] / GIB
    allocator = card_gib - beside - LATER_GIB
    if not 0 < allocator <= total:
        raise ConfigError(
            f"--card_gib is {card_gib}; {beside:.2f} GiB of the {total:.1f} on this card are taken by CUDA and other "
            f"programs, and {LATER_GIB} are kept for kernels, so that torch would get {allocator:.2f}"
        )
    torch.cuda.set_per_process_memory_fraction(allocator / total, device)
    return {"card_gib": card_gib, "beside_torch_gib": round(beside, 3), "allocator_gib": round(allocator, 3)}


def main(argv: list[str] | None = None) -> int:
    """Distil; write; the exit status is the command's, 1 for a card that was too small."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("measured.json"), help="default: measured.json")
    parser.add_argument("--card_gib", type=float, default=8.0, help="of the smaller card (default: 8)")
    parser.add_argument("words", metavar="-- TEACHER OUT ...", nargs="+", help="of modified-lisa distill")
    arguments = parser.parse_args(argv)
    words = ["distill", *arguments.words]
    asked = build_parser().parse_args(words)
    try:
        device = find_device(asked.device)
        limit = limit_memory(device, arguments.card_gib)
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    measured: dict[str, Any] = {
        "command": shlex.join(["modified-lisa", *words]),
        "device": describe_device(device),
        "memory_measured": memory_source(device),
        "versions": versions("torch", "transformers", "bitsandbytes"),
        "limit": limit,
    }
    begun = time.perf_counter()
    try:
        status = modified_lisa(words)
        measured["outcome"] = "done" if status == 0 else f"exit status {status}"
    except torch.cuda.OutOfMemoryError as error:
        status, measured["outcome"] = 1, f"out of memory: {error}"
    measured["seconds"] = round(time.perf_counter() - begun, 2)
    history = Path(asked.out) / "distillation_history.json"
    if status < 2 and history.is_file():  # without memory, it may have ended before there was one
        stages = json.loads(history.read_text(encoding="utf-8"))["stages"]
        measured["stages"] = stages
        for name in ("peak_memory_gb", "card_memory_gb"):
            measured[name] = max((record[name] for record in stages.values()), key=lambda value: value or 0)
    if limit is not None:
        measured["fits"] = status == 0 and measured["card_memory_gb"] <= arguments.card_gib
    write_json(arguments.out, measured)
    print(f"{measured['outcome']}; measured: {arguments.out}")
    return status


if __name__ == "__main__":
    sys.exit(main())
