"""Memory around a measurement: torch's allocator, and the whole card."""

import os
import shutil
import subprocess
from typing import Any

import torch

from modified_lisa.benchmark.measure import GIB, peak_memory_gb, reset_peak_memory
from modified_lisa.benchmark.parts import free_memory

__all__ = ["memory_now", "start_memory"]


def start_memory(device: torch.device) -> None:
    """Free what is unused, and begin a new peak."""
    free_memory(device)
    reset_peak_memory(device)


def memory_now(device: torch.device, *, process: bool = False) -> dict[str, Any]:
    """Since `start_memory`, in GiB.

    ``peak_gib``: highest sum of tensors (on a CPU: of the process since it started). ``card_gib``: all that is
    in use on the card now, CUDA itself, kernels, the allocator's reserve and other processes with it; None on a
    CPU. ``process_gib``, if asked for: what ``nvidia-smi`` counts for this process, None where it does not tell.
    """
    found: dict[str, Any] = {"peak_gib": round(peak_memory_gb(device), 3)}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        found["card_gib"] = round((total - free) / GIB, 3)
        if process:
            found["process_gib"] = _by_nvidia_smi()
    else:
        found["card_gib"] = None
    return found


def _by_nvidia_smi() -> float | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    for line in done.stdout.splitlines():
        pid, _, used = (part.strip() for part in line.partition(","))
        if pid == str(os.getpid()) and used.isdigit():
            return round(int(used) / 1024, 3)
    return None
