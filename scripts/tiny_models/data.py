"""Scenes as examples for pretraining: made on the fly by worker processes, kept in a pool on the device.

All maps lie in the model's square (see `modified_lisa.geometry`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from modified_lisa.data.scenes import describe, make_queries, make_scene
from modified_lisa.data.scenes.colours import COLOURS
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.geometry import Frame

MAX_OBJECTS = 12
LABEL_SIDE = 256
PADDING = MAX_OBJECTS + 1
"""Label of the square's padding."""
_KIND = {name: number + 1 for number, name in enumerate(KINDS)}
_COLOUR = {name: number + 1 for number, name in enumerate(COLOURS)}
_PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@dataclass
class Example:
    """One scene. ``labels``: i + 1 on object i, 0 where there is none, PADDING beside the image."""

    square: np.ndarray  # uint8 (3, side, side)
    labels: np.ndarray  # uint8 (256, 256)
    kinds: list[str]
    colours: list[str]
    answers: list[tuple[str, str]]
    queries: list[tuple[str, tuple[int, ...]]]


def make_example(rng: np.random.Generator, side: int, interpolation: str) -> Example:
    """One scene of the training split with questions, answers and queries about it."""
    scene = make_scene(rng, split="train")
    height, width = scene.image.shape[:2]
    frame = Frame(height, width)
    square = frame.to_square(scene.image, side, interpolation=interpolation, **_PLAIN) * 255
    index = np.zeros((height, width), np.uint8)
    for number in range(len(scene.objects)):
        index[scene.mask(number).astype(bool)] = number + 1
    rows, columns = frame.content(LABEL_SIDE)
    ys = ((np.arange(rows) + 0.5) * height / rows).astype(int)
    xs = ((np.arange(columns) + 0.5) * width / columns).astype(int)
    labels = np.full((LABEL_SIDE, LABEL_SIDE), PADDING, np.uint8)
    labels[:rows, :columns] = index[ys][:, xs]
    queries = [
        (str(rng.choice(query.texts)), tuple(query.targets))
        for query in make_queries(scene, rng, split="train", count=8)
    ]
    return Example(
        square.round().to(torch.uint8).numpy(),
        labels,
        [thing.kind for thing in scene.objects],
        [thing.colour for thing in scene.objects],
        describe(scene, rng),
        queries,
    )


class _Stream(IterableDataset[Example]):
    """An endless stream of examples, another one for each worker."""

    def __init__(self, seed: int, side: int, interpolation: str) -> None:
        self.seed, self.side, self.interpolation = seed, side, interpolation

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        while True:
            yield make_example(rng, self.side, self.interpolation)


class Pool:
    """Examples met so far, drawn from again and again while the workers add new ones.

    Rendering is slower than training; with a pool the device never waits, and a scene is still seen only a
    few times: (steps * batch) / (scenes made). Pixels and labels stay on the device.
    """

    def __init__(
        self,
        seed: int,
        side: int,
        interpolation: str,
        *,
        workers: int,
        capacity: int,
        first: int,
        device: Any,
    ) -> None:
        stream = _Stream(seed, side, interpolation)
        self._stream = iter(
            DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=16 if workers else None)
        )
        self._squares = torch.empty(capacity, 3, side, side, dtype=torch.uint8, device=device)
        self._labels = torch.empty(capacity, LABEL_SIDE, LABEL_SIDE, dtype=torch.uint8, device=device)
        self._words: list[Example] = []
        self._rng = np.random.default_rng(seed + 1)
        self.made = 0
        self.add(first)

    def add(self, count: int) -> None:
        """Take ``count`` new examples from the workers; the oldest make room."""
        for _ in range(count):
            example = next(self._stream)
            place = self.made % len(self._squares)
            self._squares[place] = torch.as_tensor(example.square)
            self._labels[place] = torch.as_tensor(example.labels)
            example.square = example.labels = np.empty(0)
            self._words[place : place + 1] = [example]
            self.made += 1

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor, list[Example]]:
        """Squares uint8 (count, 3, side, side), labels int64 (count, 256, 256), and the words."""
        chosen = self._rng.integers(0, len(self._words), count)
        index = torch.as_tensor(chosen, device=self._squares.device)
        return (
            self._squares[index],
            self._labels[index].long(),
            [self._words[int(number)] for number in chosen],
        )


def normalised(squares: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """uint8 (B, 3, S, S) -> float32, as an encoder wants it. Padding is black here, the mean in use."""
    shape = (1, 3, 1, 1)
    centre = torch.tensor(mean, device=squares.device).view(shape)
    return (squares.float() / 255 - centre) / torch.tensor(std, device=squares.device).view(shape)


def names_of(examples: list[Example], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Kind and colour numbers by label, (B, PADDING + 1) each; 0 for nothing."""
    kinds = torch.zeros(len(examples), PADDING + 1, dtype=torch.long)
    colours = torch.zeros_like(kinds)
    for row, example in enumerate(examples):
        for number, (kind, colour) in enumerate(zip(example.kinds, example.colours, strict=True)):
            kinds[row, number + 1] = _KIND[kind]
            colours[row, number + 1] = _COLOUR[colour]
    return kinds.to(device), colours.to(device)
