"""Parts of a model that are not run where nothing reads what they make, though its forward pass goes through them."""

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

__all__ = ["skipped", "spared", "unread"]

_LOCK = threading.Lock()
_SKIPS = "_skipped_in"
"""Under this name a module keeps what the threads that skip it skip."""


@contextlib.contextmanager
def skipped(modules: Iterable[nn.Module], tokens: int | None = None) -> Iterator[None]:
    """Within it, ``modules`` give back the hidden states (B, T, D) that they are given, their first argument, as they are.

    Hooks run as ever, and calls in other threads are not concerned. Not for a forward pass that gradient checkpointing
    will repeat.

    Args:
        tokens: the first so many alone; the others are computed. None: all.
    """
    with contextlib.ExitStack() as undo:
        for module in modules:
            undo.enter_context(_skipped(module, tokens))
        yield


def unread(language_model: Any, tokens: int) -> AbstractContextManager[None]:
    """Within it, of the first ``tokens`` no final hidden state is read: `skipped` in the last layer is its MLP, most of
    the layer's work. Their keys and values are as ever. With gradients nothing is skipped."""
    return contextlib.nullcontext() if torch.is_grad_enabled() else skipped(spared(language_model), tokens)


def spared(language_model: Any) -> list[nn.Module]:
    """The parts that `unread` skips: the last MLP, or nothing where the last layer has none."""
    parts = [getattr(layer, "mlp", nn.Identity()) for layer in getattr(language_model, "layers", ())[-1:]]
    return [part for part in parts if type(part).__name__.endswith("MLP")]


@contextlib.contextmanager
def _skipped(module: nn.Module, tokens: int | None) -> Iterator[None]:
    mine, kept = threading.get_ident(), module.__dict__
    with _LOCK:
        if _SKIPS not in kept:
            skips: dict[int, list[int | None]] = {}
            before = kept.get("forward")
            kept[_SKIPS] = skips, before, _way_round(module.forward, skips)
            kept["forward"] = kept[_SKIPS][2]
        kept[_SKIPS][0].setdefault(mine, []).append(tokens)
    try:
        yield
    finally:
        with _LOCK:
            skips, before, ours = kept[_SKIPS]
            skips[mine].pop()
            if not skips[mine]:
                del skips[mine]
            if not skips:
                del kept[_SKIPS]
                if kept.get("forward") is ours:
                    kept.pop("forward")
                    kept.update({} if before is None else {"forward": before})


def _way_round(forward: Callable[..., Any], skips: dict[int, list[int | None]]) -> Callable[..., Any]:
    def way_round(*given: Any, **named: Any) -> Any:
        mine = skips.get(threading.get_ident())
        if not mine:
            return forward(*given, **named)
        states: torch.Tensor = given[0] if given else named["hidden_states"]
        tokens = mine[-1]
        if tokens is None:
            return states
        computed = forward(states[:, tokens:].contiguous(), *given[1:], **named)
        return torch.cat((states[:, :tokens], computed), dim=1)

    return way_round
