"""Tensors that keep their type, whatever type a model is cast to."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn

__all__ = ["KeepsTypes"]


class KeepsTypes(nn.Module):
    """A module some of whose tensors move to other devices and are never cast: kernels read them as they were made."""

    kept_types: ClassVar[tuple[str, ...]] = ()
    """Names of these parameters and buffers."""

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        kept = [getattr(self, name) for name in self.kept_types]

        def moved(tensor: torch.Tensor) -> torch.Tensor:
            given = fn(tensor)
            return tensor.to(given.device) if any(tensor is one for one in kept) else given

        return super()._apply(moved, recurse)
