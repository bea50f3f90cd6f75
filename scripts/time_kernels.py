#!/usr/bin/env python3
"""What a GPU's time goes into: single products in 4 bit, fp8 and 16 bit, and the kernels of one replay of a 7B model's graphs.

    python scripts/time_kernels.py --out kernels.json

The products: medians over graphs of several matrices of one size, more than the cache holds. The replays: torch's profiler over one
image with its query and over a further query, random weights of full size (``--tiny``: the bundled models); kernels by name, with
their number and microseconds, and the time between the first and the last. Both go into the JSON and are printed.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from modified_lisa.benchmark.arguments import BenchmarkConfig
from modified_lisa.benchmark.parts import Parts, free_memory
from modified_lisa.benchmark.pipelines import RunnerPipeline
from modified_lisa.benchmark.stages import picture, query_of
from modified_lisa.files import write_json

SIZES = ((4096, 4096), (12288, 4096), (22016, 4096), (4096, 11008))
"""Rows and columns of the matrices of a 7B LLaMA, those of one input side by side."""
BYTES = 200_000_000
"""Of the matrices of one graph."""
SHOWN = 25
"""Kernels of a table."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("kernels.json"))
    parser.add_argument("--tokens", type=int, nargs="+", default=[16, 32, 48, 64])
    parser.add_argument("--tiny", action="store_true", help="profile the bundled models, not 7B")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("error: this times kernels of a GPU, and there is no CUDA device here", file=sys.stderr)
        return 2
    found: dict[str, Any] = {"machine": torch.cuda.get_device_name(), "torch": torch.__version__}
    found["products_us"] = products(options.tokens)
    for precision in ("nf4", "none"):
        found |= replays(precision, options.tiny)
        free_memory(torch.device("cuda"))
        write_json(options.out, found)
    return 0


def products(tokens: list[int]) -> dict[str, dict[str, float]]:
    """Microseconds of a product by size and number of tokens, for each way that there is here."""
    times: dict[str, dict[str, float]] = {}
    for rows, columns in SIZES:
        count = max(2, BYTES // (rows * columns // 2))
        fours = [_nf4(rows, columns) for _ in range(count)]
        dense = [layer.decoded() for layer in fours[: max(2, count // 4)]]
        for number in tokens:
            x = torch.randn(number, columns, device="cuda", dtype=torch.bfloat16)
            ways: dict[str, list[Callable[[], Any]]] = {
                "nf4": [partial(layer, x) for layer in fours],
                "bf16": [partial(torch.nn.functional.linear, x, weight) for weight in dense],
            }
            name = f"{rows} x {columns}, {number} tokens"
            times[name] = {way: _median(calls) for way, calls in ways.items()}
            print(name, times[name], flush=True)
    return times


def _nf4(rows: int, columns: int) -> Any:
    from bitsandbytes.functional import quantize_4bit

    from modified_lisa.model.nf4.linear import NF4Linear
    from modified_lisa.model.nf4.packing import Packed, pack, pack_scales

    weight = torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) * 0.02
    codes, state = quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    packed = Packed(
        pack(codes, columns),
        pack_scales(state.absmax, rows),
        state.state2.absmax,
        state.state2.code.float(),
        state.offset.reshape(1).float().repeat(rows),
    )
    return NF4Linear(packed, torch.bfloat16)


def _median(calls: list[Callable[[], Any]], repeats: int = 15) -> float:
    """Microseconds of one of ``calls``, which run one after another as a graph."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph, stream=stream):
        for call in calls:
            call()
    times = []
    for _ in range(repeats):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(1000 * begin.elapsed_time(end) / len(calls))
    return round(statistics.median(times), 2)


def replays(precision: str, tiny: bool) -> dict[str, Any]:
    """Kernel tables of an image with its query, and of a further query."""
    device = torch.device("cuda")
    base = BenchmarkConfig(quantization=(precision,), sources=("vlm",), random_init=True)
    config = replace(base, vlm_name="tiny", sam_name="tiny", random_init=False) if tiny else base
    parts = Parts(config, precision, device)
    model = parts.arm("vlm")
    parts.use_own_kernels()
    found = {f"{precision}: {name}": table for name, table in _tables(model).items()}
    for name, table in found.items():
        print(f"== {name}: {table['kernels']} kernels, busy {table['busy_us']} us of {table['span_us']} us")
        for kernel in table["by_name"]:
            print(f"  {kernel['us']:9.1f} us {kernel['count']:5d} x  {kernel['name']}", flush=True)
    return found


def _tables(model: Any) -> dict[str, dict[str, Any]]:
    pipeline = RunnerPipeline(model, fast=True)
    image, query = picture(), query_of(model.processor)
    inputs = pipeline.prepare([image], [query])

    def whole() -> None:
        with torch.inference_mode():
            pipeline.masks(inputs)

    found = {"image and query": kernels(whole)}
    with pipeline.segmenter.open(image) as session:
        queries = model.processor.queries([query])
        name = f"further query of {queries.length} tokens"
        found[name] = kernels(lambda: pipeline.runner.answer(session, queries))
    return found


def kernels(call: Callable[[], Any]) -> dict[str, Any]:
    """Of one call that only replays graphs: its kernels by name, the longest first."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    for _ in range(3):
        call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    events = [event for event in profiler.events() if event.device_type == DeviceType.CUDA]
    events.sort(key=lambda event: event.time_range.start)
    table: dict[str, list[float]] = {}
    for event in events:
        table.setdefault(event.name[:100], []).append(event.time_range.elapsed_us())
    longest = sorted(table.items(), key=lambda item: -sum(item[1]))[:SHOWN]
    return {
        "kernels": len(events),
        "busy_us": round(sum(map(sum, table.values())), 1),
        "span_us": round(events[-1].time_range.end - events[0].time_range.start, 1) if events else 0.0,
        "by_name": [
            {"name": name, "count": len(times), "us": round(sum(times), 1)} for name, times in longest
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
