"""The language model in two goes: a prefix once, what follows it as often as needed.

The prompt puts the image before the query, so the keys and values of the image's tokens are the same for
every query about it (`inference.session`), and nothing before the first ``<SEG>`` depends on a trained
weight (`ModifiedLISA.seg_states`). Both run the prefix once, keep its keys and values, and run the rest.

Shapes: B rows, P tokens of the prefix, R of the rest, H key-value heads of width D.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from modified_lisa.model.cache_names import given_cache
from modified_lisa.model.skipping import unread

__all__ = ["Keys", "block_mask", "function_cache", "run_prefix", "run_rest", "split_forward"]


class Keys(NamedTuple):
    """What a language model remembers of its first P tokens."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """Keys and values of each layer, (B, H, P + room, D)."""
    last: torch.Tensor
    """(B, Dl): the final hidden state of the last token."""
    room: int = 0
    """Free places behind the P tokens, into which what follows may be written, instead of copying the P."""

    @property
    def length(self) -> int:
        """P."""
        return self.layers[0][0].shape[2] - self.room

    def part(self, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of the P tokens in ``layer``, (B, H, P, D)."""
        keys, values = self.layers[layer]
        return keys[:, :, : self.length], values[:, :, : self.length]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for pair in self.layers for part in pair) + self.last.nbytes


def split_forward(language_model: Any, embeds: torch.Tensor, cut: int) -> torch.Tensor:
    """Hidden states (B, T - cut, Dl) of the tokens from ``cut`` on; what precedes them gets no gradient.

    The same values as one pass over ``embeds`` (B, T, Dl), and the same gradients wherever nothing before
    ``cut`` depends on a trained weight.
    """
    return run_rest(language_model, embeds[:, cut:], run_prefix(language_model, embeds[:, :cut].detach()))


def run_prefix(language_model: Any, embeds: torch.Tensor, into: Keys | None = None, room: int = 0) -> Keys:
    """Read ``embeds`` (B, P, Dl), causally; no gradient.

    Args:
        into: where to write, instead of making new tensors.
        room: free places to leave behind them, in new tensors.
    """
    length = embeds.shape[1]
    layers: list[tuple[torch.Tensor, torch.Tensor]] = []

    def record(keys: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        if into is not None:
            for place, given in zip(into.part(layer), (keys, values), strict=True):
                place.copy_(given)
        elif room:
            roomy = [
                given.new_empty(*given.shape[:2], length + room, given.shape[3]) for given in (keys, values)
            ]
            for place, given in zip(roomy, (keys, values), strict=True):
                place[:, :, :length].copy_(given)
            layers.append((roomy[0], roomy[1]))
        else:
            layers.append((keys, values))
        return keys, values

    with torch.no_grad(), unread(language_model, length - 1):
        cache = function_cache(record, length=0)
        out = language_model(inputs_embeds=embeds, use_cache=True, **given_cache(cache))
        last = out.last_hidden_state[:, -1]
        if into is None:
            return Keys(tuple(layers), last, room)
        into.last.copy_(last)
        return into


def run_rest(
    language_model: Any,
    embeds: torch.Tensor,
    keys: Keys,
    mask: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Hidden states (B, R, Dl) of ``embeds`` (B, R, Dl) after the prefix of ``keys``.

    Args:
        mask: bool (1 or B, 1, R, P + R), which token sees which; or (1 or B, 1, R, R), which of the new ones sees which,
            and each sees the prefix; None: each sees the prefix and what precedes.
        positions: int64 (1 or B, R); None: P, P + 1, ...
    """
    after = keys.length + torch.arange(embeds.shape[1], device=embeds.device)[None]
    if mask is None:
        mask = block_mask(torch.zeros_like(after))
    prefix_is_seen = mask.shape[-1] == embeds.shape[1]
    if prefix_is_seen:
        mask = torch.nn.functional.pad(mask, (keys.length, 0), value=True)
    # As what is added to the scores: made of bools, it would be made anew in every layer.
    bias = torch.zeros(mask.shape, dtype=embeds.dtype, device=embeds.device)
    bias.masked_fill_(~mask, torch.finfo(embeds.dtype).min)

    rows, length, end = len(embeds), keys.length, keys.length + embeds.shape[1]

    def join(new: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
        # Nothing is kept: the prefix stays as it is for the next query.
        if end <= length + keys.room and len(keys.last) == rows and not torch.is_grad_enabled():
            both = keys.layers[layer]
            for place, given in zip(both, (new, values), strict=True):
                place[:, :, length:end].copy_(given)
            return both[0][:, :, :end], both[1][:, :, :end]
        old = (part.expand(rows, -1, -1, -1) for part in keys.part(layer))
        first, second = (torch.cat(pair, dim=2) for pair in zip(old, (new, values), strict=True))
        return first, second

    return language_model(
        inputs_embeds=embeds,
        attention_mask=bias,
        position_ids=after if positions is None else positions,
        use_cache=True,
        **given_cache(function_cache(join, keys.length, kept=keys if prefix_is_seen else None)),
    ).last_hidden_state


def block_mask(groups: torch.Tensor, prefix: int = 0) -> torch.Tensor:
    """Bool (B, 1, R, prefix + R): a token sees the prefix, and itself and earlier ones of its own group.

    Args:
        groups: (B, R); several queries stand in one row as one group each, unaware of one another.
    """
    rows, length = groups.shape
    causal = torch.ones(length, length, dtype=torch.bool, device=groups.device).tril()
    own = (groups[:, :, None] == groups[:, None, :]) & causal
    return torch.cat((own.new_ones(rows, length, prefix), own), dim=-1)[:, None]


def function_cache(
    update: Callable[..., tuple[torch.Tensor, torch.Tensor]], length: int, kept: Keys | None = None
) -> Any:
    """A transformers cache of ``length`` tokens: new keys and values go through ``update``.

    Args:
        kept: what they are put behind, if each sees all of it, for layers that do not join the two (`fused_llama`).
    """
    return _function_cache_class()(update, length, kept)


@functools.cache
def _function_cache_class() -> Any:
    """Made once: a class is garbage in a circle, and one for each call would keep its keys until that is collected."""
    from transformers import DynamicCache

    class FunctionCache(DynamicCache):
        def __init__(self, function: Callable[..., Any], length: int, kept: Keys | None) -> None:
            super().__init__()
            self.function, self.length, self.kept = function, length, kept

        def update(self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any) -> Any:
            return self.function(keys, values, layer)

        def get_seq_length(self, *_: Any, **__: Any) -> int:
            return self.length

    return FunctionCache
