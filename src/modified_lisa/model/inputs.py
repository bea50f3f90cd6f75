"""The tensors that `ModifiedLISA` takes, as `processor.LisaProcessor` makes them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from modified_lisa.errors import ConfigError
from modified_lisa.geometry import Frame

__all__ = ["ModelInputs", "Pictures", "QueryInputs", "check_length", "longest_prompt", "whole_numbers"]


_ROOM = 256
"""Tokens that a question and its answer need at least."""


class Pictures(NamedTuple):
    """B images as the encoders take them: what of `ModelInputs` needs no words."""

    frames: list[Frame]
    vlm_pixels: torch.Tensor | None
    sam_pixels: torch.Tensor | None


@dataclass(frozen=True)
class ModelInputs:
    """B texts, each about its own image, or about one of fewer (`image_of`)."""

    frames: list[Frame]
    input_ids: torch.Tensor
    """int64 (B, T), padded on the right; the image's place is filled with P copies of the image token."""
    image_place: slice
    """Positions of the P image tokens: the same in every row, because what precedes them is."""
    is_seg: torch.Tensor
    """bool (B, T); every row has one or more."""
    segs: torch.Tensor
    """int64 (2, N): row and position of every ``<SEG>``, row by row. Made on the CPU, as are the two numbers
    below, so that a GPU is never waited for."""
    seg_counts: list[int]
    """Masks of each text."""
    first_seg: int
    """Position of the earliest ``<SEG>`` of the batch."""
    vlm_pixels: torch.Tensor | None
    """float32 (B, 3, S, S) for the VLM's encoder."""
    sam_pixels: torch.Tensor | None
    """float32 (B, 3, S, S) for SAM's encoder."""
    features: tuple[torch.Tensor, ...] | None = field(default=None, kw_only=True)
    """(B, ...) each: what the frozen part of the vision source made of these images before (`feature_cache`).
    Where they are given, no encoder runs and no pixels are needed."""
    image_of: torch.Tensor | None = field(default=None, kw_only=True)
    """int64 (B,): the image of each text, where several ask about one; pixels and features are then those of M images,
    (M, ...), and each is encoded once (graphs `spread` them first). None: the texts' images in their order, M = B."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def is_image(self) -> torch.Tensor:
        """bool (B, T)."""
        mask = torch.zeros_like(self.is_seg)
        mask[:, self.image_place] = True
        return mask

    @property
    def length(self) -> int:
        """T."""
        return self.input_ids.shape[1]

    def rows(self, begin: int, end: int) -> "ModelInputs":
        """Texts ``begin`` to ``end`` of the batch, with their images."""
        if self.image_of is not None:
            return self.spread().rows(begin, end)
        mine = (self.segs[0] >= begin) & (self.segs[0] < end)
        segs = self.segs[:, mine] - torch.tensor([[begin], [0]])
        return replace(
            self,
            frames=self.frames[begin:end],
            input_ids=self.input_ids[begin:end],
            is_seg=self.is_seg[begin:end],
            segs=segs,
            seg_counts=self.seg_counts[begin:end],
            first_seg=int(segs[1].min()),
            vlm_pixels=None if self.vlm_pixels is None else self.vlm_pixels[begin:end],
            sam_pixels=None if self.sam_pixels is None else self.sam_pixels[begin:end],
            features=None if self.features is None else tuple(x[begin:end] for x in self.features),
        )

    def padded(self, length: int, segs: int) -> "ModelInputs":
        """T grown to ``length`` and N to ``segs`` (the first mask once more); no mask changes by it."""
        extra, more = length - self.length, segs - self.segs.shape[1]
        _check_growth(extra, more)
        pad = torch.nn.functional.pad
        return replace(
            self,
            input_ids=pad(self.input_ids, (0, extra)),
            is_seg=pad(self.is_seg, (0, extra)),
            segs=torch.cat((self.segs, self.segs[:, :1].expand(-1, more)), dim=1),
        )

    def spread(self) -> "ModelInputs":
        """The same with an image of its own for each text."""
        places = self.image_of
        if places is None:
            return self
        vlm_pixels, sam_pixels = (
            None if x is None else x[places] for x in (self.vlm_pixels, self.sam_pixels)
        )
        features = None if self.features is None else tuple(x[places] for x in self.features)
        return replace(self, vlm_pixels=vlm_pixels, sam_pixels=sam_pixels, features=features, image_of=None)

    def to(self, device: torch.device | str) -> "ModelInputs":
        return _moved(self, device)


@dataclass(frozen=True)
class QueryInputs:
    """Q queries about one image, one after another in a single row of R tokens; in two tensors, to go to a GPU in two copies."""

    words: torch.Tensor
    """int64 (4, R): the four below, row by row."""
    marks: torch.Tensor
    """int64 (2, N): `segs` and `begins`."""
    seg_counts: list[int]
    """Masks of each query."""

    @property
    def input_ids(self) -> torch.Tensor:
        """int64 (1, R): what follows the image in each prompt."""
        return self.words[:1]

    @property
    def is_seg(self) -> torch.Tensor:
        """bool (1, R)."""
        return self.words[1:2].bool()

    @property
    def groups(self) -> torch.Tensor:
        """int64 (1, R): the query that each token belongs to."""
        return self.words[2:3]

    @property
    def positions(self) -> torch.Tensor:
        """int64 (1, R): each token's place in its own query, from 0."""
        return self.words[3:]

    @property
    def segs(self) -> torch.Tensor:
        """int64 (N,): where each ``<SEG>`` stands in the row."""
        return self.marks[0]

    @property
    def begins(self) -> torch.Tensor:
        """bool (N,): whether it is the first token of its query."""
        return self.marks[1].bool()

    @property
    def length(self) -> int:
        """R."""
        return self.words.shape[1]

    def padded(self, length: int, segs: int | None = None) -> "QueryInputs":
        """R grown to ``length``, by a group of its own at the end, and N to ``segs``, by the first once more."""
        before, count = self.length, self.marks.shape[1]
        more = 0 if segs is None else segs - count
        _check_growth(length - before, more)
        words = torch.nn.functional.pad(self.words, (0, length - before))
        words[2, before:] = -1
        marks = torch.cat((self.marks, self.marks[:, :1].expand(-1, more)), dim=1) if more else self.marks
        return replace(self, words=words, marks=marks)

    def to(self, device: torch.device | str) -> "QueryInputs":
        return _moved(self, device)


def _check_growth(tokens: int, segs: int) -> None:
    # Both would be cut without a word, and masks read from places that are not there.
    if tokens < 0 or segs < 0:
        raise ValueError(f"padding cannot take away: {tokens} tokens, {segs} masks")


def whole_numbers(values: Sequence[int]) -> torch.Tensor:
    """int64 (n,); of a prompt with an image, `torch.tensor` takes a fifth of a millisecond for it, numpy a fifth of that."""
    return torch.from_numpy(np.array(values, dtype=np.int64))


def longest_prompt(config: Any, image_tokens: int) -> int | None:
    """Tokens that a language model of this configuration was made for; None: not said, or so few beside the image's
    that it cannot be meant (positions are rotary, and go on)."""
    most = getattr(config, "max_position_embeddings", None)
    return most if most is not None and most - image_tokens >= _ROOM else None


def check_length(tokens: int, most: int | None) -> None:
    """ConfigError for a prompt of more ``tokens`` than the language model has positions for (None: no limit)."""
    if most is not None and tokens > most:
        raise ConfigError(
            f"the query makes a prompt of {tokens} tokens, the image's among them, and the language model "
            f"reads {most}; shorten it"
        )


_Inputs = TypeVar("_Inputs", ModelInputs, QueryInputs)


def _moved(inputs: _Inputs, device: torch.device | str) -> _Inputs:
    moved: dict[str, Any] = {}
    for entry in fields(inputs):
        value = getattr(inputs, entry.name)
        if isinstance(value, torch.Tensor):
            moved[entry.name] = value.to(device, non_blocking=True)
        elif isinstance(value, tuple):
            moved[entry.name] = tuple(part.to(device, non_blocking=True) for part in value)
    return replace(inputs, **moved)
