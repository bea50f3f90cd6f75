"""Whether a device runs this package's own kernels: CUDA, Triton, and the compiler and the headers that Triton needs."""

import functools
import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

__all__ = ["why_not", "why_not_bf16"]

TRITON_CAPABILITY, BF16_CAPABILITY = (7, 0), (8, 0)
"""Of the first NVIDIA GPUs that Triton compiles for (Volta), and that multiply in bf16 (Ampere)."""


@functools.cache
def why_not(device: torch.device) -> str | None:
    """What keeps ``device`` from Triton's kernels, in words; None if nothing does."""
    if device.type != "cuda":
        return f"the model is on {str(device)!r}, not on a CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "Triton, which comes with PyTorch for CUDA on Linux, is not installed"
    if not os.environ.get("CC") and not any(map(shutil.which, ("gcc", "cc", "clang"))):
        return "Triton needs a C compiler (gcc, or the one that CC names), and there is none"
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        return "Triton needs Python's headers (python3-dev, or what your system calls it), and there are none"
    return _too_old(device, TRITON_CAPABILITY, "Triton compiles")


@functools.cache
def why_not_bf16(device: torch.device) -> str | None:
    """The same of kernels in bf16."""
    return why_not(device) or _too_old(device, BF16_CAPABILITY, "kernels multiply in bf16")


def _too_old(device: torch.device, least: tuple[int, int], what: str) -> str | None:
    found = torch.cuda.get_device_capability(device)
    if found >= least:
        return None
    return (
        f"{torch.cuda.get_device_name(device)} has compute capability {found[0]}.{found[1]}, and {what} from "
        f"{least[0]}.{least[1]} on"
    )
