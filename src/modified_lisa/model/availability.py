"""Whether a model can be captured as CUDA graphs, and whether a GPU multiplies in fp8."""

from typing import Any

import torch

from modified_lisa.devices import why_not
from modified_lisa.errors import ConfigError

__all__ = ["require_fp8", "why_not_captured", "why_not_fp8"]


def why_not_captured(model: Any) -> str | None:
    """What keeps a `ModifiedLISA` from being captured as CUDA graphs, in words; None if nothing does."""
    if model.config.quantization == "int8":
        return "LLM.int8 waits for the GPU in every product, to see which values are large"
    return why_not(model.device)


FP8_CAPABILITY = (8, 9)
"""Of the first NVIDIA GPUs with fp8 units: Ada (L4, L40, RTX 40), then Hopper and Blackwell."""


def why_not_fp8(device: torch.device) -> str | None:
    """What keeps a model on ``device`` from being loaded in fp8, in words; None if nothing does."""
    if (obstacle := why_not(device)) is not None:
        return obstacle
    found = torch.cuda.get_device_capability(device)
    if found < FP8_CAPABILITY:
        return (
            f"{torch.cuda.get_device_name(device)} has compute capability {found[0]}.{found[1]}, and units for fp8 "
            f"come with {FP8_CAPABILITY[0]}.{FP8_CAPABILITY[1]}"
        )
    return None


def require_fp8(quantization: str | None, device: torch.device) -> None:
    """Raises ConfigError if ``quantization`` is fp8 and ``device`` cannot multiply in it."""
    if quantization == "fp8" and (obstacle := why_not_fp8(device)) is not None:
        raise ConfigError(
            f"--quantization fp8 needs a GPU that multiplies fp8: {obstacle}. Use int8 or nf4, or none for 16 bit"
        )
