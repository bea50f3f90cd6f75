"""Whether a model can be captured as CUDA graphs, and whether a GPU multiplies in fp8."""

from typing import Any

import torch

from modified_lisa.devices import why_not, why_not_bf16
from modified_lisa.errors import ConfigError

__all__ = ["require_fp8", "why_not_captured", "why_not_fp8"]


WAITING_ROPES = ("dynamic", "longrope")
"""Kinds of rotary positions whose frequencies transformers chooses by the length of each prompt."""


def why_not_captured(model: Any) -> str | None:
    """What keeps a `ModifiedLISA` from being captured as CUDA graphs, in words; None if nothing does."""
    if model.config.quantization == "int8":
        return "LLM.int8 waits for the GPU in every product, to see which values are large"
    obstacle = (why_not_bf16 if model.config.dtype == "bf16" else why_not)(model.device)
    if obstacle is not None:
        return obstacle
    rope = getattr(model.language_model.config, "rope_parameters", None) or {}
    if (kind := rope.get("rope_type")) in WAITING_ROPES:
        return f"rotary positions of the kind {kind!r} wait for the GPU, to see how long the prompt is"
    return None


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
