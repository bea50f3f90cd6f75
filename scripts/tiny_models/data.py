"""Scenes as examples for pretraining. All maps lie in the model's square (see `modified_lisa.geometry`)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from modified_lisa.data.scenes import QUERY_KINDS, Scene, describe, make_queries, make_scene
from modified_lisa.data.scenes.colours import COLOURS
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.data.scenes.textures import TEXTURES
from modified_lisa.geometry import Frame

MAX_OBJECTS = 12
LABEL_SIDE = 256
PADDING = MAX_OBJECTS + 1
"""Label of the square's padding."""
NAMES: dict[str, dict[str, int]] = {
    "kind": {name: number + 1 for number, name in enumerate(KINDS)},
    "colour": {name: number + 1 for number, name in enumerate(COLOURS)},
    "texture": {name: number + 1 for number, name in enumerate(TEXTURES)},
}
_PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
Encode = Callable[[str], list[int]]


@dataclass
class Words:
    """What is said about one scene, as token ids. ``names``: int64 (3, PADDING + 1), numbers of `NAMES` by label."""

    names: np.ndarray
    answers: list[tuple[list[int], list[int]]] = field(default_factory=list)
    """Questions and their answers."""
    queries: list[tuple[list[list[int]], tuple[int, ...], int]] = field(default_factory=list)
    """Wordings, targets (object numbers, from 0), number of the kind in `QUERY_KINDS`."""
    content: tuple[int, int] = (0, 0)
    """Height and width of the image, in pixels."""


@dataclass
class Example:
    """One scene. ``labels``: i + 1 on object i, 0 where there is none, PADDING beside the image."""

    square: np.ndarray  # uint8 (3, side, side)
    labels: np.ndarray  # uint8 (256, 256)
    words: Words


@dataclass(frozen=True)
class Maker:
    """Makes examples. Given to the workers, which are forked, so that it need not pickle."""

    side: int
    interpolation: str
    mean: tuple[float, float, float]
    """Of the encoder's normalisation: what the padding is."""
    answer: Encode | None = None
    """Encodes questions and answers; None: none are made."""
    query: Encode | None = None
    answers: int = 32
    """At most so many of each scene, and of the queries."""
    queries: int = 24
    no_target_share: float = 0.12

    def __call__(self, rng: np.random.Generator, split: str) -> Example:
        scene = make_scene(rng, split=split)
        height, width = scene.image.shape[:2]
        frame = Frame(height, width)
        square = padded_square(scene.image, self.side, self.interpolation, self.mean)
        words = Words(_names(scene), content=(height, width))
        if self.answer is not None:
            words.answers = [
                (self.answer(f"\n{question} ASSISTANT: "), self.answer(f"{answer} "))
                for question, answer in self._some(describe(scene, rng), rng)
            ]
        if self.query is not None:
            words.queries = [
                ([self.query(text) for text in query.texts], query.targets, QUERY_KINDS.index(query.kind))
                for query in make_queries(
                    scene, rng, split=split, count=self.queries, no_target_share=self.no_target_share
                )
            ]
        return Example(square, labels_of(scene, frame), words)

    def _some(self, pairs: list[tuple[str, str]], rng: np.random.Generator) -> list[tuple[str, str]]:
        return [pairs[index] for index in rng.permutation(len(pairs))[: self.answers].tolist()]


def padded_square(
    image: np.ndarray, side: int, interpolation: str, mean: tuple[float, float, float]
) -> np.ndarray:
    """The image uint8 (H, W, 3) as an encoder's square, uint8 (3, side, side), not yet normalised; ``mean`` pads it."""
    frame = Frame(*image.shape[:2])
    square = frame.to_square(image, side, interpolation=interpolation, **_PLAIN) * 255
    rows, columns = frame.content(side)
    padding = torch.tensor(mean)[:, None, None] * 255
    square[:, rows:] = padding
    square[:, :, columns:] = padding
    made: np.ndarray = square.round().to(torch.uint8).numpy()
    return made


def labels_of(scene: Scene, frame: Frame) -> np.ndarray:
    """uint8 (256, 256), as `Example` says."""
    rows, columns = frame.content(LABEL_SIDE)
    ys = ((np.arange(rows) + 0.5) * frame.height / rows).astype(int)
    xs = ((np.arange(columns) + 0.5) * frame.width / columns).astype(int)
    labels = np.full((LABEL_SIDE, LABEL_SIDE), PADDING, np.uint8)
    labels[:rows, :columns] = scene.owner[ys][:, xs]
    return labels


def _names(scene: Scene) -> np.ndarray:
    names = np.zeros((len(NAMES), PADDING + 1), np.int64)
    for number, thing in enumerate(scene.objects[:MAX_OBJECTS], start=1):
        for row, (key, table) in enumerate(NAMES.items()):
            names[row, number] = table[getattr(thing, key)]
    return names


def normalised(squares: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 (B, 3, S, S) -> float32, as an encoder wants it."""
    # Channel by channel: a tensor of the constants would have to be copied to the device each time.
    channels = [
        (squares[:, channel].float() / 255 - mean[channel]) / std[channel] for channel in range(len(mean))
    ]
    return torch.stack(channels, dim=1)


def chosen_labels(targets: Sequence[Sequence[int]]) -> np.ndarray:
    """Sets of object numbers as bool (N, PADDING + 1) over labels."""
    chosen = np.zeros((len(targets), PADDING + 1), bool)
    for row, members in enumerate(targets):
        chosen[row, [member + 1 for member in members]] = True
    return chosen


def patch_boxes(labels: torch.Tensor, centres: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What each patch can know of its object: float32 (B, P, 5), and whether it has one, bool (B, P).

    The distances from the patch's centre to the left, upper, right and lower end of what is visible of the object, in
    quarters of the square's side, and the logarithm of its share of the square. ``labels`` is int64 (B, S, S), ``centres``
    the label of each patch's centre, int64 (B, P).
    """
    side, patches = labels.shape[1], math.isqrt(centres.shape[1])
    is_label = F.one_hot(labels, PADDING + 1)
    rows, columns = is_label.sum(2), is_label.sum(1)  # (B, S, N): how often each label stands in a row
    ends = []
    for counts in (columns, rows):
        there = (counts > 0).int()
        ends += [there.argmax(1) / side, 1 - there.flip(1).argmax(1) / side]
    left, right, upper, lower = ((end * 1.0).gather(1, centres) for end in ends)
    share = (rows.sum(1) / side**2).clamp(min=1e-5).log().gather(1, centres)
    middle = (torch.arange(patches, device=labels.device) + 0.5) / patches
    x, y = middle.repeat(patches), middle.repeat_interleave(patches)
    boxes = torch.stack([(x - left) * 4, (y - upper) * 4, (right - x) * 4, (lower - y) * 4, share], dim=2)
    return boxes, (centres > 0) & (centres < PADDING)
