"""Write a folder of synthetic scenes in ReasonSeg's layout.

OUT/{train,val,test}/scene_00001.jpg with scene_00001.json beside it; one JSON holds one query in one or
several wordings. Every sample has its own random state, made from (seed, split, number), so the same seed
gives the same bytes whatever the number of processes.
"""

import contextlib
import io
import json
import multiprocessing
import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image
from tqdm import tqdm

from modified_lisa.data.scenes.held_out import SPLITS
from modified_lisa.data.scenes.queries import HELD_OUT, NO_TARGET_SHARE, Query, make_queries
from modified_lisa.data.scenes.render import make_scene
from modified_lisa.data.scenes.scene import Scene
from modified_lisa.errors import ConfigError, DataError
from modified_lisa.files import write_atomically, write_text

__all__ = ["generate", "make_sample", "to_labelme"]

_JPEG = {"format": "JPEG", "quality": 92, "subsampling": "4:2:0", "optimize": False, "progressive": False}
_OURS = re.compile(r"scene_\d{5,}\.(jpg|json)")
_WORTH_A_PROCESS = 400
_CHUNK = 16


def generate(
    out: str | os.PathLike[str],
    *,
    train: int,
    val: int,
    test: int,
    seed: int,
    overwrite: bool = False,
    workers: int | None = None,
    no_target_share: float = NO_TARGET_SHARE,
    progress: bool = True,
) -> dict[str, Any]:
    """Write ``train``, ``val`` and ``test`` samples (image and JSON pairs) under ``out``.

    ``workers`` processes (None: one for each core, one alone for a small folder); several start as new
    interpreters, so a script that asks for them needs the usual ``if __name__ == "__main__"``. A split of
    0 samples gets no folder. ``no_target_share`` of the queries ask for what is not there; their JSON has no
    shapes and says ``"no_target": true``. ``overwrite`` removes earlier scenes under ``out`` and no other file.

    Returns {"folder", "samples": {split: count}, "kinds": {split: {kind of query: count}},
    "held_out": {split: {"wording": count, "combination": count, "kind": count}}}.
    ConfigError for counts below 0 or all 0, or a share outside 0 to 1; DataError when ``out`` has files and ``overwrite`` is not set.
    """
    counts = dict(zip(SPLITS, (train, val, test), strict=True))
    _check_counts(counts, seed, workers, no_target_share)
    folder = _prepare(Path(out), overwrite=overwrite)
    jobs = [(split, number) for split, count in counts.items() for number in range(1, count + 1)]
    if workers is None:
        workers = max(1, min(os.cpu_count() or 1, len(jobs) // _WORTH_A_PROCESS))
    kinds: dict[str, Counter[str]] = {split: Counter() for split, count in counts.items() if count}
    kept = {split: Counter(dict.fromkeys(HELD_OUT, 0)) for split in kinds}
    bar = tqdm(total=len(jobs), desc="scenes", unit="scene", disable=not progress)
    with bar:
        for (split, _), facts in zip(jobs, _run(folder, seed, no_target_share, jobs, workers), strict=True):
            kinds[split][facts["kind"]] += 1
            for what in HELD_OUT:
                kept[split][what] += facts[f"{what}_held_out"]
            bar.update()
    return {
        "folder": str(folder),
        "samples": {split: count for split, count in counts.items() if count},
        "kinds": {split: dict(sorted(found.items())) for split, found in kinds.items()},
        "held_out": {split: dict(found) for split, found in kept.items()},
    }


def make_sample(
    seed: int, split: str, number: int, no_target_share: float = NO_TARGET_SHARE
) -> tuple[Scene, Query]:
    """The scene and the query of sample ``number`` (from 1) of a split; the same for ever for the same seed."""
    rng = np.random.default_rng([seed, SPLITS.index(split), number])
    while True:
        scene = make_scene(rng, split=split)
        queries = make_queries(scene, rng, split=split, count=1, no_target_share=no_target_share)
        if queries:
            return scene, queries[0]


def to_labelme(scene: Scene, query: Query, image_name: str) -> dict[str, Any]:
    """The annotation as the JSON file holds it; filled and outlined, its polygons are the answer's pixels."""
    shapes = [
        _shape("target", polygon) for index in query.targets for polygon in scene.objects[index].polygons
    ]
    mirrored = [
        polygon for index, mirror in scene.reflections.items() if index in query.targets for polygon in mirror
    ]
    shapes += [_shape("ignore", polygon) for polygon in mirrored]
    return {
        "version": "5.2.1",
        "flags": {},
        "text": list(query.texts),
        "is_sentence": query.is_sentence,
        "shapes": shapes,
        **({} if query.targets else {"no_target": True}),
        "imagePath": image_name,
        "imageData": None,
        "imageHeight": scene.height,
        "imageWidth": scene.width,
        "scene": {
            "kind": query.kind,
            "concept": query.concept,
            "wording_held_out": query.wording_held_out,
            "combination_held_out": query.combination_held_out,
            "kind_held_out": query.kind_held_out,
            "targets": list(query.targets),
            "background": scene.background,
            "objects": [thing.to_dict() for thing in scene.objects],
        },
    }


def _shape(label: str, polygon: np.ndarray) -> dict[str, Any]:
    return {
        "label": label,
        "shape_type": "polygon",
        "points": polygon.tolist(),
        "group_id": None,
        "flags": {},
    }


def _check_counts(counts: dict[str, int], seed: int, workers: int | None, no_target_share: float) -> None:
    if not 0 <= no_target_share <= 1:
        raise ConfigError(f"--no_target_share is {no_target_share}; it must be 0 to 1")
    for split, count in counts.items():
        if count < 0:
            raise ConfigError(f"--{split} is {count}; it must be at least 0")
    if not any(counts.values()):
        raise ConfigError("--train, --val and --test are all 0: there is nothing to generate")
    if seed < 0:
        raise ConfigError(f"--seed is {seed}; it must be at least 0")
    if workers is not None and workers < 1:
        raise ConfigError(f"--workers is {workers}; it must be at least 1")


def _prepare(folder: Path, *, overwrite: bool) -> Path:
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; name a folder for the scenes")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise DataError(f"{folder} is not empty; name a new folder, or allow overwriting (--overwrite)")
        for split in SPLITS:
            for path in (folder / split).glob("scene_*"):
                if _OURS.fullmatch(path.name):
                    path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(
    folder: Path, seed: int, no_target_share: float, jobs: list[tuple[str, int]], workers: int
) -> Iterator[dict[str, Any]]:
    work = partial(_write_sample, folder, seed, no_target_share)
    if workers == 1:
        yield from map(work, jobs)
        return
    # "spawn": a forked child of a process that has run torch or cv2 threads can hang
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        workers, mp_context=context, initializer=cv2.setNumThreads, initargs=(1,)
    ) as pool:
        # As the processes that are started here are from then on: it is this one that ends them.
        with _deaf_to_interrupts():
            results: Iterable[dict[str, Any]] = pool.map(work, jobs, chunksize=_CHUNK)
        try:
            yield from results
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Meanwhile, Ctrl-C does nothing, also to processes started in it; only in the main thread can that be asked for."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _write_sample(folder: Path, seed: int, no_target_share: float, job: tuple[str, int]) -> dict[str, Any]:
    split, number = job
    scene, query = make_sample(seed, split, number, no_target_share)
    stem = folder / split / f"scene_{number:05d}"
    annotation = to_labelme(scene, query, f"{stem.name}.jpg")
    coded = io.BytesIO()
    Image.fromarray(scene.image).save(coded, **_JPEG)
    write_atomically(stem.with_suffix(".jpg"), lambda file: file.write(coded.getvalue()))
    write_text(stem.with_suffix(".json"), json.dumps(annotation, ensure_ascii=False, allow_nan=False) + "\n")
    return {name: annotation["scene"][name] for name in ("kind", *(f"{what}_held_out" for what in HELD_OUT))}
