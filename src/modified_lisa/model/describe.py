"""How many weights a model has, and where."""

from typing import Any

import torch
from torch import nn

from modified_lisa.model.fp8.linear import FP8Linear
from modified_lisa.model.nf4.linear import NF4Linear

__all__ = ["describe_parameters", "weights_of"]


def weights_of(module: nn.Module) -> int:
    """Weights that ``module`` itself holds, not those of its children; packed ones count as what they stand for."""
    total = 0
    for parameter in module.parameters(recurse=False):
        state = getattr(parameter, "quant_state", None)  # bitsandbytes' 4 bit
        total += int(torch.Size(state.shape).numel()) if state is not None else parameter.numel()
    if isinstance(module, NF4Linear):
        total += module.in_features * module.out_features
    if isinstance(module, FP8Linear):
        total -= module.scale.numel()
    return total


def describe_parameters(model: nn.Module) -> dict[str, Any]:
    """``trainable`` and ``total`` numbers of weights, and ``groups``: trainable ones by part."""
    groups: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = name.split(".")[int(name.startswith(("vision", "mask_head")))]
            groups[part] = groups.get(part, 0) + parameter.numel()
    total = sum(weights_of(module) for module in model.modules())
    return {"trainable": sum(groups.values()), "total": total, "groups": groups}
