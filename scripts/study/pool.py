"""One fixed pool of scenes for all runs of a study, rendered once and read through memory maps.

FOLDER/{train,test}_{vlm,sam}.npy: uint8 (scenes, 3, side, side), the squares of the two encoders; _labels.npy: uint8
(scenes, 256, 256), as `data.Example` has them; {train,test}.json: what is asked, as token ids; pool.json: the
settings, written last. A scene depends on (seed, split, number) alone, not on how many processes render.
"""

import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from data import LABEL_SIDE, Words, labels_of, padded_square
from numpy.lib.format import open_memmap
from packed import Texts

from modified_lisa.data.scenes import QUERY_KINDS, make_queries, make_scene
from modified_lisa.errors import ConfigError
from modified_lisa.files import write_json
from modified_lisa.geometry import Frame
from modified_lisa.model.image_spec import ImageSpec

SPLITS = ("train", "test")
HELD_OUT = ("wording", "combination", "kind")
_CHUNK = 8


@dataclass(frozen=True)
class Renderer:
    """Renders scenes into the pool's files, in a process of its own."""

    folder: Path
    texts: Texts
    images: dict[str, ImageSpec]
    """Of ``vlm`` and ``sam``."""
    queries: dict[str, int]
    """Queries of a scene, by split."""
    seed: int

    def __call__(self, job: tuple[str, int, int]) -> list[dict[str, Any]]:
        """Scenes first to last - 1 of a split: what is said about each."""
        split, first, last = job
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        files = {
            name: open_memmap(self.folder / f"{split}_{name}.npy", mode="r+")
            for name in (*self.images, "labels")
        }
        said = []
        for number in range(first, last):
            rng = np.random.default_rng([self.seed, SPLITS.index(split), number])
            asked: list[Any] = []
            while not asked:
                scene = make_scene(rng, split=split)
                asked = make_queries(scene, rng, split=split, count=self.queries[split])
            for name, spec in self.images.items():
                files[name][number] = padded_square(scene.image, spec.side, spec.interpolation, spec.mean)
            frame = Frame(*scene.image.shape[:2])
            files["labels"][number] = labels_of(scene, frame)
            # One wording each is measured, so that all runs are asked the same.
            wordings = None if split == "train" else 1
            said.append(
                {
                    "content": frame.content(LABEL_SIDE),
                    "queries": [
                        {
                            "wordings": [self.texts.encode(text) for text in query.texts[:wordings]],
                            "targets": query.targets,
                            "kind": query.kind,
                            "held_out": [name for name in HELD_OUT if getattr(query, f"{name}_held_out")],
                        }
                        for query in asked
                    ],
                }
            )
        return said


def make_pool(render: Renderer, scenes: dict[str, int], workers: int) -> dict[str, Any]:
    """Render what is not there yet; returns what pool.json says.

    Raises ConfigError for a folder with a pool of other settings.
    """
    folder = render.folder
    settings = {
        "scenes": scenes,
        "queries": render.queries,
        "seed": render.seed,
        "sides": {name: spec.side for name, spec in render.images.items()},
    }
    done = folder / "pool.json"
    if done.is_file():
        about: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        if about["settings"] != settings:
            raise ConfigError(
                f"{folder} holds a pool made with {about['settings']}, and {settings} is asked for; name another "
                "folder, or remove this one"
            )
        return about
    folder.mkdir(parents=True, exist_ok=True)
    jobs = []
    for split, count in scenes.items():
        shapes = {name: (3, spec.side, spec.side) for name, spec in render.images.items()}
        for name, shape in {**shapes, "labels": (LABEL_SIDE, LABEL_SIDE)}.items():
            open_memmap(folder / f"{split}_{name}.npy", mode="w+", dtype=np.uint8, shape=(count, *shape))
        jobs += [(split, first, min(count, first + _CHUNK)) for first in range(0, count, _CHUNK)]
    began = time.monotonic()
    said: dict[str, list[Any]] = {split: [] for split in scenes}
    # Forked: no GPU has been used yet, and new interpreters would take seconds to start.
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        for (split, _, _), part in zip(jobs, pool.imap(render, jobs), strict=True):
            said[split] += part
    seconds = time.monotonic() - began
    for split, entries in said.items():
        write_json(folder / f"{split}.json", entries)
    rate = sum(scenes.values()) / seconds
    about = {
        "settings": settings,
        "workers": workers,
        "seconds": round(seconds, 1),
        "scenes_per_s": round(rate, 1),
    }
    write_json(done, about)
    return about


class Split:
    """One split of a pool, read from its files as it is needed."""

    def __init__(self, folder: Path, split: str) -> None:
        self.arrays = {
            name: np.load(folder / f"{split}_{name}.npy", mmap_mode="r") for name in ("vlm", "sam", "labels")
        }
        self.said = json.loads((folder / f"{split}.json").read_text(encoding="utf-8"))
        self.words = [
            Words(
                np.zeros((0,), np.int64),
                queries=[
                    (query["wordings"], tuple(query["targets"]), QUERY_KINDS.index(query["kind"]))
                    for query in entry["queries"]
                ],
                content=tuple(entry["content"]),
            )
            for entry in self.said
        ]

    def __len__(self) -> int:
        return len(self.words)

    def pixels(self, places: np.ndarray, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
        """Of these scenes: the squares ``names``, and ``labels``, uint8."""
        return {
            name: torch.from_numpy(np.ascontiguousarray(self.arrays[name][places]))
            for name in (*names, "labels")
        }

    def samples(self) -> Iterator[dict[str, Any]]:
        """Name and groups of each query, in the form that `modified_lisa.scoring` reads."""
        for number, entry in enumerate(self.said):
            for query, asked in enumerate(entry["queries"]):
                yield {
                    "name": f"scene_{number:05d}#{query}",
                    "groups": {
                        "type": asked["kind"],
                        "held_out": "held out" if asked["held_out"] else "familiar",
                    },
                    "target_empty": not asked["targets"],
                }
