"""Memory and time as they are measured here, and nowhere else."""

import contextlib
import importlib.metadata
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modified_lisa.errors import ConfigError

__all__ = [
    "Timing",
    "beside_torch_gb",
    "card_memory_gb",
    "describe_device",
    "memory_source",
    "peak_memory_gb",
    "reset_peak_memory",
    "time_calls",
    "versions",
]

GIB = 1024**3


@dataclass(frozen=True)
class Timing:
    """Seconds of each call, in order."""

    seconds: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.seconds)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def time_calls(
    calls: Sequence[Callable[[], Any]], *, device: torch.device | str = "cpu", warmup: int = 1
) -> Timing:
    """Time each call, after ``warmup`` untimed runs of the first; waits for the GPU before and after each.

    Deterministic algorithms, which a training may have asked for, are off meanwhile: they are slower on a
    GPU, and nobody segments with them.

    Raises ConfigError if there is nothing to call.
    """
    if not calls:
        raise ConfigError("there is nothing to time; give at least one call")
    seconds = []
    with usual_algorithms():
        for _ in range(warmup):
            calls[0]()
        for call in calls:
            _synchronise(device)
            start = time.perf_counter()
            call()
            _synchronise(device)
            seconds.append(time.perf_counter() - start)
    return Timing(tuple(seconds))


@contextlib.contextmanager
def usual_algorithms() -> Iterator[None]:
    asked = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(False)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(asked, warn_only=warns)


def reset_peak_memory(device: torch.device | str) -> None:
    """Start anew where the device can; the peak of a process's resident memory cannot be reset."""
    if _is_cuda(device):
        torch.cuda.init()  # before it there are no counters, and cuda:0 would be refused
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_gb(device: torch.device | str) -> float:
    """Peak memory in GiB (2**30 bytes); `memory_source` says of what."""
    if _is_cuda(device):
        return torch.cuda.max_memory_allocated(device) / GIB
    if sys.platform == "win32":
        import psutil  # comes with accelerate

        return psutil.Process().memory_info().peak_wset / GIB
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage: bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIB


def beside_torch_gb(device: torch.device | str) -> float:
    """What is in use on the card now beside torch's allocator, GiB: CUDA itself, its kernels, other processes."""
    free, total = torch.cuda.mem_get_info(device)
    return (total - free - torch.cuda.memory_reserved(device)) / GIB


def card_memory_gb(device: torch.device | str) -> float | None:
    """What a card must have for what ran since `reset_peak_memory`, GiB; None on a CPU.

    The most that torch's allocator had reserved, which is more than its tensors, and `beside_torch_gb`.
    """
    if not _is_cuda(device):
        return None
    return torch.cuda.max_memory_reserved(device) / GIB + beside_torch_gb(device)


def memory_source(device: torch.device | str) -> str:
    """What `peak_memory_gb` measures on this device, in words."""
    if _is_cuda(device):
        return "GPU memory held by torch tensors (torch.cuda.max_memory_allocated), GiB"
    return "resident memory of the whole process, since it started, GiB"


def describe_device(device: torch.device | str) -> str:
    """The name of the GPU, or the CPU's with the number of threads that torch uses."""
    if _is_cuda(device):
        return torch.cuda.get_device_name(device)
    return f"{_cpu_name()} ({torch.get_num_threads()} threads)"


def versions(*libraries: str) -> dict[str, str | None]:
    """Of the installed libraries; None for those that are not."""
    found: dict[str, str | None] = {}
    for library in libraries:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = None
    return found


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _is_cuda(device: torch.device | str) -> bool:
    return torch.device(device).type == "cuda"


def _synchronise(device: torch.device | str) -> None:
    if _is_cuda(device):
        torch.cuda.synchronize(device)
