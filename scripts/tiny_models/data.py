"""Scenes as examples for pretraining: generated on the fly by worker processes, kept in a pool on the device.

Shapes: B scenes, O objects at most. All maps lie in the model's square (see `modified_lisa.geometry`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from modified_lisa.data.scenes import make_queries, make_scene
from modified_lisa.data.scenes.describe import describe
from modified_lisa.geometry import Frame

MAX_OBJECTS = 12
LABEL_SIDE = 256
PADDING = MAX_OBJECTS + 1
"""Label of the square's padding."""
_PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@dataclass
class Example:
    """One scene. ``labels``: i + 1 on object i, 0 where there is none, PADDING beside the image."""

    vlm_square: torch.Tensor  # uint8 (3, 336, 336)
    sam_square: torch.Tensor  # uint8 (3, 512, 512)
    labels: torch.Tensor  # uint8 (256, 256)
    kinds: list[str]
    colours: list[str]
    answers: list[tuple[str, str]]
    queries: list[tuple[str, tuple[int, ...]]]


def make_example(rng: np.random.Generator) -> Example:
    """One scene of the training split with questions, answers and queries about it."""
    scene = make_scene(rng, split="train")
    height, width = scene.image.shape[:2]
    frame = Frame(height, width)
    squares = [
        (frame.to_square(scene.image, side, interpolation=how, **_PLAIN) * 255).round().to(torch.uint8)
        for side, how in ((336, "bicubic"), (512, "bilinear"))
    ]
    rows, columns = frame.content(LABEL_SIDE)
    labels = torch.full((LABEL_SIDE, LABEL_SIDE), PADDING, dtype=torch.uint8)
    index = np.zeros((height, width), np.uint8)
    for number in range(len(scene.objects)):
        index[scene.mask(number)] = number + 1
    ys = (np.arange(rows) + 0.5) * height / rows
    xs = (np.arange(columns) + 0.5) * width / columns
    labels[:rows, :columns] = torch.from_numpy(index[ys.astype(int)][:, xs.astype(int)])
    queries = [
        (str(rng.choice(query.texts)), tuple(query.targets))
        for query in make_queries(scene, rng, split="train", count=8)
    ]
    return Example(
        squares[0],
        squares[1],
        labels,
        [thing.kind for thing in scene.objects],
        [thing.colour for thing in scene.objects],
        describe(scene, rng),
        queries,
    )


class Scenes(IterableDataset):  # type: ignore[type-arg]
    """An endless stream of examples, another one for each worker."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __iter__(self) -> Iterator[Example]:
        worker = get_worker_info()
        number = worker.id if worker else 0
        torch.set_num_threads(1)
        rng = np.random.default_rng((self.seed, number))
        while True:
            yield make_example(rng)


class Pool:
    """Examples met so far, drawn from again and again while the workers add new ones.

    Rendering is slower than training; with a pool the device never waits, and every scene is still seen
    only as often as (steps * batch) / (scenes made).
    """

    def __init__(self, seed: int, *, workers: int, capacity: int, first: int) -> None:
        loader = DataLoader(
            Scenes(seed), batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None
        )
        self._stream = iter(loader)
        self._examples: list[Example] = []
        self._capacity = capacity
        self._rng = np.random.default_rng(seed + 1)
        self.made = 0
        self.add(first)

    def add(self, count: int) -> None:
        """Take ``count`` new examples from the workers; the oldest make room."""
        for _ in range(count):
            example = next(self._stream)
            if len(self._examples) < self._capacity:
                self._examples.append(example)
            else:
                self._examples[self.made % self._capacity] = example
            self.made += 1

    def draw(self, count: int) -> list[Example]:
        chosen = self._rng.integers(0, len(self._examples), count)
        return [self._examples[int(number)] for number in chosen]
