"""Whether this machine can run the fast path: CUDA, Triton, and the compiler that Triton needs."""

import importlib.util
import os
import shutil
from typing import Any

import torch

__all__ = ["why_not", "why_not_captured"]


def why_not(device: torch.device) -> str | None:
    """What keeps a model on ``device`` from being captured, in words; None if nothing does."""
    if device.type != "cuda":
        return f"the model is on {str(device)!r}, not on a CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "Triton, which comes with PyTorch for CUDA on Linux, is not installed"
    if not os.environ.get("CC") and not any(map(shutil.which, ("gcc", "cc", "clang"))):
        return "Triton needs a C compiler (gcc, or the one that CC names), and there is none"
    return None


def why_not_captured(model: Any) -> str | None:
    """What keeps a `ModifiedLISA` from being captured as CUDA graphs, in words; None if nothing does."""
    if model.config.quantization == "int8":
        return "LLM.int8 waits for the GPU in every product, to see which values are large"
    return why_not(model.device)
