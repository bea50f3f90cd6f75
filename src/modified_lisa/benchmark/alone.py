"""What one architecture takes on the card in a process of its own, as in a user's program.

The benchmark's own process has loaded other architectures before, whose kernels and whose pieces of the allocator's memory stay.
"""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from typing import Any

import torch

from modified_lisa.benchmark.arguments import BenchmarkConfig
from modified_lisa.benchmark.measure import GIB
from modified_lisa.benchmark.memory import memory_now, start_memory
from modified_lisa.benchmark.original import OriginalPipeline
from modified_lisa.benchmark.parts import Parts
from modified_lisa.benchmark.pipelines import RunnerPipeline
from modified_lisa.benchmark.stages import picture, query_of
from modified_lisa.errors import ModelLoadError, ModifiedLISAError
from modified_lisa.model.loading import find_device

__all__ = ["measure_alone"]

REFUSED = 2
"""Exit status of the process where the benchmark itself would have stopped: a name that is mistyped, most likely."""


def measure_alone(
    config: BenchmarkConfig, precision: str, source: str, device: torch.device
) -> dict[str, Any]:
    """GiB on the card after loading, after an image with its query, and with an open session that has answered.

    ``peak_gib``: torch's allocator, from the first call on, without the session.

    Raises:
        ModelLoadError: the models could not be loaded there.
        RuntimeError: the process ended without a result for another reason, such as a card that is too small; its last
            words are in the message.
    """
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info(device)[0]
    only = replace(config, sources=(source,), quantization=(precision,), ablate=False)
    job = json.dumps({"config": asdict(only), "precision": precision, "source": source})
    command = [sys.executable, "-m", "modified_lisa.benchmark.alone", job]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        kind = ModelLoadError if done.returncode == REFUSED else RuntimeError
        raise kind(
            f"the process that measures {source} in {precision} ended with status {done.returncode}: "
            f"{done.stderr.strip()[-500:]}"
        )
    found = json.loads(done.stdout.splitlines()[-1])
    # What is free on the card counts, since a driver need not tell a process from another.
    used = {name: round((free - left) / GIB, 3) for name, left in found["free"].items()}
    return {**used, "peak_gib": found["peak_gib"]}


def _measure(config: BenchmarkConfig, precision: str, source: str) -> dict[str, Any]:
    device = find_device(config.device)
    free: dict[str, int] = {}

    def note(name: str) -> None:
        torch.cuda.synchronize(device)
        free[name] = torch.cuda.mem_get_info(device)[0]

    parts = Parts(config, precision, device)
    model = parts.arm(source)
    parts.use_own_kernels()
    start_memory(device)
    note("loaded_gib")
    image, text = picture(), query_of(model.processor)
    if source == "original":
        OriginalPipeline(model, parts.lm_head, fast=True).answer([image], [text])
        note("answered_gib")
        return {"free": free, **memory_now(device)}
    pipeline = RunnerPipeline(model, fast=True)
    for _ in range(2):
        pipeline.answer([image], [text])
    note("answered_gib")
    memory = memory_now(device)
    with pipeline.segmenter.open(image) as session:
        session.segment(text)
        note("session_gib")
    return {"free": free, **memory}


def main(words: list[str]) -> int:
    job = json.loads(words[0])
    lists: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in job["config"].items()
    }
    try:
        found = _measure(BenchmarkConfig(**lists), job["precision"], job["source"])
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return REFUSED
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
