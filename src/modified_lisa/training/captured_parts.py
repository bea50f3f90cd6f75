"""What trains beside the language model as CUDA graphs, forward and backward: the bridge, the mask head.

At batch 1 they are some thousand small kernels, which Python launches more slowly than a GPU runs them.
"""

import gc
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from modified_lisa.model.graphs import Pool

__all__ = ["CapturedPart", "capture_part", "free_parts"]

KEEP = 4
"""Combinations of shapes that are captured, the first that come; others run plainly, and none is captured again and again."""


def capture_part(module: nn.Module) -> None:
    """Let ``module`` run as graphs where it is called for gradients, with the same values and gradients."""
    module.__dict__["forward"] = CapturedPart(module)


def free_parts(*modules: nn.Module) -> None:
    """The opposite of `capture_part`; frees the graphs' memory."""
    for module in modules:
        module.__dict__.pop("forward", None)
    gc.collect()  # torch makes a class for each set of graphs, which is garbage in a circle


class CapturedPart:
    """A module's forward, captured at the first call with each of `KEEP` combinations of shapes; tensors, or lists of them,
    to tensors.

    What trains is updated in place between calls, which the graphs see; it may not be moved. The results, and the
    gradients of the inputs, are overwritten by the next call and its way back, as those of any graph. What only a result
    trains that no loss reads gets a gradient of 0 instead of none.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._plain: Callable[..., Any] = type(module).forward.__get__(module)
        self._capturing = False
        self._pool = Pool()
        # Sets of graphs are never replayed between another's forward and backward, so that one memory serves all.
        self._graphs: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *inputs: Any) -> Any:
        given = pytree.tree_leaves(inputs)
        if self._capturing or not torch.is_grad_enabled() or not all(one.numel() for one in given):
            return self._plain(*inputs)
        trained = {name: weight for name, weight in self._module.named_parameters() if weight.requires_grad}
        key = (
            tuple((tuple(one.shape), one.dtype, one.requires_grad) for one in given),
            tuple(weight.data_ptr() for weight in trained.values()),
        )
        if key not in self._graphs:
            if len(self._graphs) == KEEP:
                return self._plain(*inputs)
            self._graphs[key] = self._captured(inputs, trained)
        return self._graphs[key](*inputs, *_OwnGradients.apply(*trained.values()))

    def _captured(self, inputs: tuple[Any, ...], trained: dict[str, nn.Parameter]) -> Callable[..., Any]:
        count = len(inputs)  # and not the inputs, whose graph would live as long as this

        def run(*given: Any) -> Any:
            weights = dict(zip(trained, given[count:], strict=True))
            self._capturing = True
            try:
                return torch.func.functional_call(self._module, weights, given[:count])
            finally:
                self._capturing = False

        def place(x: torch.Tensor) -> torch.Tensor:
            return x.detach().clone().requires_grad_(x.requires_grad)

        # The weights where they are: those are never copied.
        weights = [weight.detach().requires_grad_() for weight in trained.values()]
        sample = (*pytree.tree_map(place, inputs), *weights)
        with torch.cuda.device(next(self._module.parameters()).device):
            graphed: Callable[..., Any] = torch.cuda.make_graphed_callables(
                run, sample, allow_unused_input=True, pool=self._pool.handle
            )
        self._pool.graphs += 1
        return graphed


class _OwnGradients(torch.autograd.Function):
    """The same weights. Their gradients go into memory of their own: a weight would take a graph's for its ``grad``, and
    the next replay would overwrite what a step of several batches sums."""

    @staticmethod
    def forward(ctx: Any, *weights: torch.Tensor) -> tuple[torch.Tensor, ...]:
        ctx.set_materialize_grads(False)
        return tuple(weight.detach() for weight in weights)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        there = [grad for grad in grads if grad is not None]
        if not there:
            return grads
        parts = torch.cat([grad.flatten() for grad in there]).split([grad.numel() for grad in there])
        own = iter(parts)
        return tuple(None if grad is None else next(own).view_as(grad) for grad in grads)
