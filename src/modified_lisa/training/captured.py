"""A training step's parts as CUDA graphs; here the frozen ones, `prefix.split_forward` and the encoders.

At batch 1 the tokens from ``<SEG>`` on are few, and Python's launches of their forward and backward passes
would take longer than the passes themselves.
"""

import contextlib
import gc
from collections.abc import Callable
from typing import Any

import torch

from modified_lisa.model.availability import why_not_captured
from modified_lisa.model.fused import fused
from modified_lisa.model.graphs import Graphs, bucket
from modified_lisa.model.merged import merge_projections
from modified_lisa.model.prefix import Keys, run_prefix, run_rest, split_forward
from modified_lisa.training.captured_parts import capture_part, free_parts

__all__ = ["CapturedSplit", "capture_parts", "release_parts"]

LONGEST_REST = 64
"""Tokens from the first ``<SEG>`` on; a batch whose texts differ more is run without graphs."""


class CapturedSplit:
    """Called like `split_forward`, with the same values and gradients up to rounding.

    One graph for each batch size and length, rounded up: the prefix to a multiple of 32 tokens, the rest to a
    power of two. Padding of the prefix is masked; padding of the rest comes last, where nothing looks.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        merge_projections(model.language_model)
        self._keys: Keys | None = None
        self._shape = (0, 0)
        self._prefix = Graphs(self._run_prefix, model)
        self._rest: dict[Any, Callable[..., torch.Tensor]] = {}

    def __call__(self, language_model: Any, embeds: torch.Tensor, cut: int) -> torch.Tensor:
        rows, length, _ = embeds.shape
        rest = length - cut
        if rest > LONGEST_REST:
            return split_forward(language_model, embeds, cut)
        padded, room = bucket(cut), 1 << (rest - 1).bit_length()
        self._reserve(language_model, embeds, rows, padded)
        pad = torch.nn.functional.pad
        self._prefix(pad(embeds[:, :cut].detach(), (0, 0, 0, padded - cut)))
        places = torch.arange(padded, device=embeds.device)
        after = torch.arange(room, device=embeds.device)
        mask = torch.cat(((places < cut).expand(room, -1), after[None] <= after[:, None]), dim=1)
        graph = self._rest_graph(rows, padded, room, embeds)
        hidden = graph(pad(embeds[:, cut:], (0, 0, 0, room - rest)), mask[None, None], (cut + after)[None])
        return hidden[:, :rest]

    def _reserve(self, language_model: Any, embeds: torch.Tensor, rows: int, length: int) -> None:
        """One set of keys and values for all graphs, as large as the largest batch so far."""
        if rows <= self._shape[0] and length <= self._shape[1]:
            return
        self._prefix.clear()
        self._rest.clear()
        most = max(rows, self._shape[0]), max(length, self._shape[1])
        config = language_model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        # Freed before its larger successor is made, for which there may be no room; torch's graphs with a way back are
        # garbage in a circle.
        self._keys, self._shape = None, (0, 0)
        gc.collect()
        shape = (most[0], heads, most[1], width)
        pairs = tuple(
            (embeds.new_zeros(shape), embeds.new_zeros(shape)) for _ in range(config.num_hidden_layers)
        )
        self._keys, self._shape = Keys(pairs, embeds.new_zeros(most[0], embeds.shape[2])), most

    def _part(self, rows: int, length: int) -> Keys:
        assert self._keys is not None
        layers = tuple((k[:rows, :, :length], v[:rows, :, :length]) for k, v in self._keys.layers)
        return Keys(layers, self._keys.last[:rows])

    def _run_prefix(self, embeds: torch.Tensor) -> None:
        run_prefix(self.model.language_model, embeds, into=self._part(*embeds.shape[:2]))

    def _rest_graph(
        self, rows: int, padded: int, room: int, embeds: torch.Tensor
    ) -> Callable[..., torch.Tensor]:
        key = (rows, padded, room)
        if key not in self._rest:
            keys, language_model = self._part(rows, padded), self.model.language_model

            def run(rest: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
                return run_rest(language_model, rest, keys, mask=mask, positions=positions)

            device = embeds.device
            sample = (
                embeds.new_zeros(rows, room, embeds.shape[2]).requires_grad_(True),
                torch.ones(1, 1, room, padded + room, dtype=torch.bool, device=device),
                torch.arange(room, device=device)[None],
            )
            # Captured are streams of the current device.
            on = torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()
            with on, fused(self.model):
                graphed: Any = torch.cuda.make_graphed_callables(run, sample, pool=self._prefix.pool.handle)
            self._rest[key] = graphed
        return self._rest[key]


def capture_parts(model: Any) -> str:
    """Let ``model`` train with captured graphs where that is valid; says in words what was done and why."""
    obstacle = why_not_captured(model)
    if obstacle:
        return f"trained without CUDA graphs: {obstacle}"
    if not model.frozen_prefix:
        return "the prompt depends on trained weights (LoRA, a trained projector, or the sam source): full backward pass"
    model.split_forward = CapturedSplit(model)
    capture_encoders(model)
    for part in _trained_parts(model):
        capture_part(part)
    return "the prompt before <SEG> needs no gradient: captured as CUDA graphs"


def release_parts(model: Any) -> None:
    """The opposite of `capture_parts`: the plain functions again, and the graphs' memory freed."""
    model.split_forward = split_forward
    model.vision.__dict__.pop("frozen", None)
    free_parts(*_trained_parts(model))


def _trained_parts(model: Any) -> list[torch.nn.Module]:
    bridge = getattr(model.vision, "bridge", None)
    return [model.mask_head] if bridge is None else [bridge, model.mask_head]


def capture_encoders(model: Any) -> None:
    """Run the frozen encoders, `VisionSource.frozen`, as a graph; its features hold until the next call."""
    vision = model.vision
    plain = type(vision).frozen.__get__(vision)
    graphs = Graphs(plain, model, keep=4)

    def frozen(vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Any:
        # Outside of training, others may keep the features, or be capturing graphs themselves.
        return (graphs if torch.is_grad_enabled() else plain)(vlm_pixels, sam_pixels)

    vision.frozen = frozen
