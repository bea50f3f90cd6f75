"""Linear layers that read the same input, as one product: queries, keys and values; gate and up.

For few tokens a product takes as long as reading its weights, and starting and ending it costs a third of that
again; one large product instead of three small ones starts and ends once. The weights are moved side by side
and the layers go on as views of them: no memory is added, and a layer called by itself works as before.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from modified_lisa.model.fp8.linear import FP8Linear, merge_fp8
from modified_lisa.model.nf4.compact import compact
from modified_lisa.model.nf4.linear import NF4Linear, merge_nf4

__all__ = ["merge_projections", "shared_forwards"]

_TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))
_ATTRIBUTE = "merged_product"


class _Merged(NamedTuple):
    """Layers of one module whose product is one."""

    names: tuple[str, ...]
    product: Callable[[torch.Tensor], torch.Tensor]
    sizes: list[int]
    places: list[Any]
    """Where their weights lie, as views of the product's; elsewhere, the module was moved, cast or copied since."""


class _Product:
    """x W^T for W (rows, columns) in 16 or 32 bit."""

    def __init__(self, weight: torch.Tensor) -> None:
        self.weight = weight

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.weight)


def merge_projections(language_model: nn.Module) -> int:
    """Move the weights of such layers side by side; returns how many products became one.

    Layers with a bias, with adapters, or of different kinds stay as they are.
    """
    merged = 0
    for module in language_model.modules():
        for names in _TOGETHER:
            if all(hasattr(module, name) for name in names) and _fresh(module) is None:
                merged += _merge_in(module, names)
    if merged:
        owners = [module for module in language_model.modules() if _ATTRIBUTE in module.__dict__]
        products = [module.__dict__[_ATTRIBUTE].product for module in owners]
        compact(layer for layer in (*language_model.modules(), *products) if isinstance(layer, NF4Linear))
        for module in owners:
            kept = module.__dict__[_ATTRIBUTE]
            module.__dict__[_ATTRIBUTE] = kept._replace(places=_places(module, kept.names))
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what 16-bit weights were moved from
    return merged


def shared_forwards(module: nn.Module) -> dict[str, Callable[[torch.Tensor], torch.Tensor]]:
    """``forward`` for each child whose product is merged; empty for other modules.

    The first of them computes all, the others hand out their part of it; they must be called in order, with
    the same tensor, as attention and gated layers do. Where the module was moved since, they are merged once more.
    """
    before: _Merged | None = module.__dict__.get(_ATTRIBUTE)
    if before is None or not (_fresh(module) or _merge_in(module, before.names)):
        return {}
    names, product, sizes, _ = module.__dict__[_ATTRIBUTE]
    waiting: list[torch.Tensor] = []

    def first(x: torch.Tensor) -> torch.Tensor:
        waiting[:] = product(x).split(sizes, dim=-1)
        return waiting.pop(0)

    def next_part(_: torch.Tensor) -> torch.Tensor:
        return waiting.pop(0)

    return {name: first if number == 0 else next_part for number, name in enumerate(names)}


def _merge_in(module: nn.Module, names: tuple[str, ...]) -> bool:
    """Merge these layers of ``module`` if that can be."""
    module.__dict__.pop(_ATTRIBUTE, None)
    layers: list[Any] = [getattr(module, name) for name in names]
    product = _merge(layers)
    if product is None:
        return False
    # Not registered: the layers hold these weights already, under the names that users know.
    sizes = [layer.out_features for layer in layers]
    module.__dict__[_ATTRIBUTE] = _Merged(names, product, sizes, _places(module, names))
    return True


def _fresh(module: nn.Module) -> _Merged | None:
    """What was merged in ``module``, if it still is what its layers hold."""
    kept: _Merged | None = module.__dict__.get(_ATTRIBUTE)
    return kept if kept is not None and kept.places == _places(module, kept.names) else None


def _places(module: nn.Module, names: tuple[str, ...]) -> list[Any]:
    layers: list[Any] = [getattr(module, name) for name in names]
    weights = [layer.codes if isinstance(layer, NF4Linear) else layer.weight for layer in layers]
    return [
        (type(layer), weight.data_ptr(), weight.dtype, weight.device)
        for layer, weight in zip(layers, weights, strict=True)
    ]


def _merge(layers: Sequence[Any]) -> Callable[[torch.Tensor], torch.Tensor] | None:
    if all(type(layer) is NF4Linear for layer in layers):
        return merge_nf4(layers)
    if all(type(layer) is FP8Linear for layer in layers):
        return merge_fp8(layers)
    if any(
        type(layer) is not nn.Linear or layer.bias is not None or layer.weight.requires_grad
        for layer in layers
    ):
        return None
    if len({layer.weight.dtype for layer in layers}) > 1:
        return None
    weight = torch.cat([layer.weight.data for layer in layers])
    for layer, part in zip(layers, weight.split([layer.out_features for layer in layers]), strict=True):
        layer.weight.data = part
    return _Product(weight)
