"""``modified-lisa benchmark``: run the plan, keep the results and the errors, write JSON, table and plot."""

import contextlib
import platform
import sys
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from tqdm import tqdm

from modified_lisa.benchmark.arguments import BenchmarkConfig
from modified_lisa.benchmark.measure import describe_device, memory_source, versions
from modified_lisa.benchmark.plan import Bench, NothingToMeasure
from modified_lisa.benchmark.plot import plot_stages
from modified_lisa.benchmark.rates import copy_rate, matrix_rate
from modified_lisa.benchmark.report import tables, with_shares
from modified_lisa.errors import ModifiedLISAError
from modified_lisa.files import write_json
from modified_lisa.model.loading import DTYPES, find_device

__all__ = ["run_benchmark"]

SILENT = ("build", "prepare", "end")
"""Steps without a result of their own."""


def run_benchmark(config: BenchmarkConfig) -> dict[str, Any]:
    """Measure, print the tables, and write ``config.out`` and the plot.

    The JSON is rewritten after every measurement. A measurement that fails is recorded in ``errors`` with its
    traceback, and the others go on.

    Raises ConfigError for a device that is not there, ModelLoadError for a model that cannot be loaded.
    """
    device = find_device(config.device)
    begun = time.perf_counter()
    results: dict[str, Any] = {
        "schema": 1,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_device(device),
        "versions": {
            "python": platform.python_version(),
            "cuda": torch.version.cuda,
            **versions("modified-lisa", "torch", "transformers", "bitsandbytes", "triton"),
        },
        "settings": {key: _plain(value) for key, value in vars(config).items() if key not in ("out", "plot")},
        "memory_measured": memory_source(device),
        "rates": {},
        "notes": _notes(config, device),
        "rows": [],
        "errors": [],
        "skipped": [],
    }
    write_json(config.out, results)  # a folder that cannot be written to is found before the work
    bench = Bench(config, device)
    results["rates"] = _rates(config, device, results["errors"])
    plan = list(bench.steps())
    with many_shapes(), tqdm(plan, unit="step", file=sys.stderr, disable=None) as bar:
        for step in bar:
            bar.set_description(step.label)
            if bar.disable:  # no terminal: a log
                print(f"{time.perf_counter() - begun:6.1f} s  {step.label}", file=sys.stderr, flush=True)
            try:
                values = step.call()
            except NothingToMeasure as error:
                results["skipped"].append({"step": step.label, "message": str(error)})
            except Exception as error:
                if isinstance(error, ModifiedLISAError) and step is plan[0]:
                    raise  # a name that is mistyped, most likely: nothing could be measured
                results["errors"].append(_described(step.label, error))
                bar.write(
                    f"failed: {step.label}: {type(error).__name__}: {str(error)[:300]}", file=sys.stderr
                )
            else:
                if values is not None and step.keys["what"] not in SILENT:
                    results["rows"].append({**step.keys, **values})
            results["seconds"] = round(time.perf_counter() - begun, 1)
            write_json(config.out, results)
    results["rows"] = with_shares(results["rows"], results["rates"])
    write_json(config.out, results)
    for line in tables(results):
        print(line)
    if any(row["what"] == "stages" for row in results["rows"]):
        print(f"\nplot: {plot_stages(config.plot_path, results)}")
    print(f"results: {Path(config.out)} ({results['seconds']:.0f} s)")
    return results


@contextlib.contextmanager
def many_shapes() -> Iterator[None]:
    """Meanwhile, torch.compile may serve more kinds of calls by one function than it does by default: inference and
    training, prompts and single tokens, one image and many all happen in this process."""
    settings: Any = torch._dynamo.config
    with settings.patch(recompile_limit=64, accumulated_recompile_limit=1024):
        yield


def _rates(config: BenchmarkConfig, device: torch.device, errors: list[dict[str, str]]) -> dict[str, float]:
    try:
        return {
            "matrix_flops_per_s": matrix_rate(device, DTYPES[config.dtype], 20),
            "copy_bytes_per_s": copy_rate(device, 20),
        }
    except Exception as error:
        errors.append(_described("rates of the device", error))
        return {}


def _described(label: str, error: BaseException) -> dict[str, str]:
    return {
        "step": label,
        "type": type(error).__name__,
        "message": str(error),
        # File names without folders: results are published.
        "traceback": "".join(
            f"{Path(frame.filename).name}:{frame.lineno} {frame.name}: {frame.line}\n"
            for frame in traceback.extract_tb(error.__traceback__)
        ),
    }


def _notes(config: BenchmarkConfig, device: torch.device) -> list[str]:
    notes = []
    if config.random_init:
        notes.append("random weights: speed and memory do not depend on the values; the masks mean nothing")
    if device.type != "cuda":
        notes.append("no CUDA device: graphs, compiled layers and 4-bit kernels were not measured")
    if config.quick:
        notes.append("--quick: one run of each; these are no figures")
    return notes


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
