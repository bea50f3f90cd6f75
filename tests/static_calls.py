"""CUDA graphs' manners without CUDA: results, and gradients, that the next call overwrites."""

from types import SimpleNamespace
from typing import Any

import torch
from torch.utils import _pytree as pytree

from modified_lisa.model.reading import ImageState


class StaticCalls:
    """In the place of `model.graphs.Graphs`: plain calls, one set of results for each combination of shapes."""

    def __init__(
        self, function: Any, model: Any, pool: Any = None, keep: int = 0, *, fuse: bool = True
    ) -> None:
        self.function, self.capture_seconds = function, 0.0
        self.pool = pool or SimpleNamespace(handle=None)
        self.kept: dict[Any, Any] = {}

    def __call__(self, *inputs: torch.Tensor | None) -> Any:
        with torch.inference_mode(False), torch.no_grad():
            result = self.function(*inputs)
            if result is None:
                return None
            kept = self.kept.setdefault(tuple(None if x is None else tuple(x.shape) for x in inputs), result)
            if isinstance(kept, ImageState):
                kept.copy_(result)
            else:
                for place, value in zip(kept, result, strict=True):
                    place.copy_(value)
        return kept

    def clear(self) -> None:
        self.kept.clear()


def static_graphed(function: Any, sample: Any, allow_unused_input: bool = False, pool: Any = None) -> Any:
    """In the place of `torch.cuda.make_graphed_callables`, for a function."""
    places, spec = pytree.tree_flatten(sample)
    state: dict[str, Any] = {}

    def kept(name: str, values: list[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
        """The values, where those of the first call were."""
        first = state.setdefault(name, [None if x is None else x.detach().clone() for x in values])
        for place, value in zip(first, values, strict=True):
            if place is not None:
                place.copy_(value.detach())
        return tuple(None if x is None else x.detach() for x in first)

    class Graphed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: torch.Tensor) -> Any:
            for place, value in zip(places, given, strict=True):
                if place.data_ptr() != value.data_ptr():
                    place.copy_(value)
            with torch.enable_grad():
                outputs, state["form"] = pytree.tree_flatten(function(*pytree.tree_unflatten(places, spec)))
            state["outputs"] = outputs
            return kept("results", outputs)

        @staticmethod
        def backward(ctx: Any, *grads: torch.Tensor) -> Any:
            pairs = [pair for pair in zip(state["outputs"], grads, strict=True) if pair[0].requires_grad]
            wanted = [place for place in places if place.requires_grad]
            outputs, given = zip(*pairs, strict=True)
            found = iter(torch.autograd.grad(outputs, wanted, given, allow_unused=allow_unused_input))
            return kept("grads", [next(found) if place.requires_grad else None for place in places])

    def call(*given: Any) -> Any:
        results = Graphed.apply(*pytree.tree_leaves(given))
        return pytree.tree_unflatten(results, state["form"])

    return call
