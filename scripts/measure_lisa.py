"""Measure a model in the original LISA's layout, or imported from it: memory and seconds of one query.

    python scripts/random_lisa.py models/random-lisa-7b --size 7b
    python scripts/measure_lisa.py models/random-lisa-7b --out measured.json

In 4 bit and in --dtype, run plainly and as captured graphs: the median of --repeats queries, each about a picture of
480 x 640 pixels and from its array to the mask of that size; the peak of torch's allocator while loading and while
answering; and what nvidia-smi counts for the process. What is measured is written as it comes.
"""

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modified_lisa.benchmark.measure import describe_device, memory_source, time_calls, versions
from modified_lisa.benchmark.memory import memory_now, start_memory
from modified_lisa.errors import ModifiedLISAError
from modified_lisa.files import write_json
from modified_lisa.inference.segmenter import Segmenter
from modified_lisa.model.availability import why_not_captured
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.model.loading import find_device

QUERY = "the food in this picture that has the most vitamin C"
PRECISIONS = ("nf4", "none")


def measure(model: ModifiedLISA, repeats: int, *, fast: bool) -> dict[str, Any]:
    """Seconds and memory of one query; the model is on its device."""
    start_memory(model.device)
    begun = time.perf_counter()
    segmenter = Segmenter(model, fast=fast)
    picture = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    call = partial(segmenter.segment, picture, QUERY)
    result = call()
    first = time.perf_counter() - begun
    timing = time_calls([call] * repeats, device=model.device, warmup=2)
    return {
        "median_s": round(timing.median, 5),
        "seconds": [round(value, 5) for value in timing.seconds],
        "first_call_s": round(first, 2),
        "tokens": len(model.processor.encode(QUERY)),
        "mask": list(np.shape(result.masks)),
        **memory_now(model.device, process=True),
    }


def load(source: str, device: torch.device, dtype: str, quantization: str) -> tuple[Any, dict[str, Any]]:
    """The model, and what it took."""
    start_memory(device)
    begun = time.perf_counter()
    model = ModifiedLISA.from_pretrained(source, device, dtype=dtype, quantize=quantization == "nf4")
    seconds = round(time.perf_counter() - begun, 2)
    return model, {"seconds": seconds, **memory_now(device, process=True)}


def main(argv: list[str] | None = None) -> int:
    """Measure; write; print."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="a checkpoint in the original's layout, or imported")
    parser.add_argument("--out", type=Path, default=Path("measured.json"), help="default: measured.json")
    parser.add_argument("--dtype", default="bf16", help="of what is not in 4 bit (default: bf16)")
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="default: both"
    )
    parser.add_argument("--repeats", type=int, default=10, help="timed queries of each (default: 10)")
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    arguments = parser.parse_args(argv)
    device = find_device(arguments.device)
    measured: dict[str, Any] = {
        "model": Path(arguments.model).name,
        "device": describe_device(device),
        "memory_measured": memory_source(device),
        "versions": versions("torch", "transformers", "bitsandbytes"),
        "dtype": arguments.dtype,
    }
    try:
        for quantization in arguments.precisions:
            model, loading = load(arguments.model, device, arguments.dtype, quantization)
            found: dict[str, Any] = {"loading": loading}
            measured[quantization] = found
            found["plain"] = measure(model, arguments.repeats, fast=False)
            write_json(arguments.out, measured)
            if obstacle := why_not_captured(model):
                found["captured"] = f"not captured: {obstacle}"
            else:
                found["captured"] = measure(model, arguments.repeats, fast=True)
            write_json(arguments.out, measured)
            for way in ("plain", "captured"):
                print(f"{quantization} {way}: {found[way]}", flush=True)
            del model
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
