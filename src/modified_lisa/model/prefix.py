"""The language model in two goes: a prefix once, what follows it as often as needed.

The prompt puts the image before the query, so the keys and values of the image's tokens are the same for
every query about it (`inference.session`), and nothing before the first ``<SEG>`` depends on a trained
weight (`ModifiedLISA.seg_states`). Both run the prefix once, keep its keys and values, and run the rest.

Shapes: B rows, P tokens of the prefix, R of the rest, H key-value heads of width D.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

__all__ = ["Keys", "block_mask", "cut", "run_prefix", "run_rest"]


class Keys(NamedTuple):
    """What a language model remembers of its first P tokens."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """Keys and values of each layer, (B, H, P, D)."""
    last: torch.Tensor
    """(B, Dl): the final hidden state of the last token."""

    @property
    def length(self) -> int:
        """P."""
        return self.layers[0][0].shape[2]

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for pair in self.layers for part in pair) + self.last.nbytes


def cut(keys: Keys, length: int) -> Keys:
    """The first ``length`` tokens of a longer prefix, as views. `last` is then that of the longer one."""
    return Keys(tuple((k[:, :, :length], v[:, :, :length]) for k, v in keys.layers), keys.last)


def run_prefix(language_model: Any, embeds: torch.Tensor) -> Keys:
    """Read ``embeds`` (B, P, Dl), causally; no gradient."""
    with torch.no_grad():
        out = language_model(inputs_embeds=embeds, use_cache=True)
        layers = tuple((layer.keys, layer.values) for layer in out.past_key_values.layers)
        return Keys(layers, out.last_hidden_state[:, -1])


def run_rest(
    language_model: Any,
    embeds: torch.Tensor,
    keys: Keys,
    mask: torch.Tensor | None = None,
    positions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Hidden states (B, R, Dl) of ``embeds`` (B, R, Dl) after the prefix of ``keys``.

    Args:
        mask: bool (1 or B, 1, R, P + R), which token sees which; None: each sees the prefix and what precedes.
        positions: int64 (1 or B, R); None: P, P + 1, ...
    """
    after = keys.length + torch.arange(embeds.shape[1], device=embeds.device)[None]
    if mask is None:
        mask = block_mask(torch.zeros_like(after), keys.length)
    return language_model(
        inputs_embeds=embeds,
        attention_mask=mask,
        position_ids=after if positions is None else positions,
        past_key_values=_prefix_cache(keys.layers, len(embeds)),
        use_cache=True,
    ).last_hidden_state


def block_mask(groups: torch.Tensor, prefix: int) -> torch.Tensor:
    """Bool (B, 1, R, prefix + R): a token sees the prefix, and itself and earlier ones of its own group.

    Args:
        groups: (B, R); several queries stand in one row as one group each, unaware of one another.
    """
    rows, length = groups.shape
    causal = torch.ones(length, length, dtype=torch.bool, device=groups.device).tril()
    own = (groups[:, :, None] == groups[:, None, :]) & causal
    return torch.cat((own.new_ones(rows, length, prefix), own), dim=-1)[:, None]


def _prefix_cache(layers: Sequence[tuple[torch.Tensor, torch.Tensor]], rows: int) -> Any:
    from transformers import DynamicCache

    class PrefixCache(DynamicCache):
        """Hands out the prefix and the new tokens together, and keeps nothing: the prefix stays as it is."""

        def update(
            self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            old_keys, old_values = layers[layer]
            return (
                torch.cat((old_keys.expand(rows, -1, -1, -1), keys), dim=2),
                torch.cat((old_values.expand(rows, -1, -1, -1), values), dim=2),
            )

        def get_seq_length(self, *_: Any, **__: Any) -> int:
            return layers[0][0].shape[2]

    return PrefixCache()
