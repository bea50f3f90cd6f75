"""Whether a device runs this package's own kernels: CUDA, Triton, and the compiler that Triton needs."""

import importlib.util
import os
import shutil

import torch

__all__ = ["why_not"]


def why_not(device: torch.device) -> str | None:
    """What keeps ``device`` from Triton's kernels, in words; None if nothing does."""
    if device.type != "cuda":
        return f"the model is on {str(device)!r}, not on a CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "Triton, which comes with PyTorch for CUDA on Linux, is not installed"
    if not os.environ.get("CC") and not any(map(shutil.which, ("gcc", "cc", "clang"))):
        return "Triton needs a C compiler (gcc, or the one that CC names), and there is none"
    return None
