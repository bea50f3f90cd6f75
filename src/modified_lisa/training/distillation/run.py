"""A distillation from its configuration: images, stores, student, the two stages, and a measurement."""

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from modified_lisa.benchmark.measure import describe_device
from modified_lisa.data.opening import open_dataset
from modified_lisa.errors import CheckpointError
from modified_lisa.evaluation import evaluate_checkpoint
from modified_lisa.files import alone_in, check_folder, write_json
from modified_lisa.model import loading
from modified_lisa.training.distillation import preparing
from modified_lisa.training.distillation.loop import Distiller
from modified_lisa.training.distillation.preparing import Picture
from modified_lisa.training.distillation.settings import DistillConfig, read_queries
from modified_lisa.training.distillation.stages import Stages, free
from modified_lisa.training.distillation.student import build_student, read_teacher, student_config
from modified_lisa.training.distillation.targets import Stores
from modified_lisa.training.resume import seed_everything

__all__ = ["distill", "measure_both"]

_FREE = {"out", "num_workers", "cache_dir", "resume", "data_dir", "split", "device", "images", "queries"}
"""Fields that do not decide the outcome; images and queries count by their content."""


def distill(config: DistillConfig) -> dict[str, Any]:
    """Make a shared-encoder model of a dual one; returns what ``distillation_history.json`` holds.

    In this order, so that an 8 GB card is enough for a 7B teacher in 4 bits: SAM's encoder alone; the student
    with its language model, for features and prompts; then the bridge and the mask decoder beside it.

    Raises:
        ConfigError, DataError, CheckpointError, ModelLoadError: see the message.
        TrainingError: a loss that is not finite.
    """
    paths = preparing.list_images(config.images, config.max_images)
    queries = read_queries(config.queries)
    _refuse_another_run(config)
    if config.data_dir is not None:
        open_dataset(
            config.data_dir, config.split
        )  # what is wrong with it is known before, not after, the work
    with alone_in(config.out):
        return _distil(config, paths, queries)


def _distil(config: DistillConfig, paths: list[Path], queries: list[str]) -> dict[str, Any]:
    device = loading.find_device(config.device)
    teacher, weights = read_teacher(config.teacher, config.overrides)
    student = student_config(teacher, config.bridge, config.bridge_layers)
    stages = Stages(device, tqdm.write)
    with stages("teacher_embeddings"):
        embeddings, known = preparing.store_embeddings(
            teacher, config.cache, paths, device, config.num_workers, tqdm.write
        )
    pictures = _with_queries(paths, known, queries, config)
    train, val = _split(pictures, config)
    seed_everything(config.seed)
    with stages("student_loading"):
        model = build_student(student, weights, device)
    with stages("features"):
        features = preparing.store_features(model, config.cache, pictures, config.num_workers, tqdm.write)
    asked = pictures if config.mask_epochs else val
    with stages("prompts"):
        prompts = preparing.store_prompts(model, teacher, config.cache, asked, config.num_workers, tqdm.write)
    stores = Stores(embeddings, features, prompts)
    listing = "\n".join(picture.prompts_key for picture in pictures)
    identity = {
        **{f"--{k}": v for k, v in _plain(config).items() if k not in _FREE | {"overrides", "teacher"}},
        "images and queries": f"{len(pictures)} (digest {hashlib.sha256(listing.encode()).hexdigest()[:12]})",
        **{what: getattr(stores, what).digest for what in ("embeddings", "features", "prompts")},
    }
    facts = {
        "config": _plain(config),
        "student": student.to_dict(),
        "images": {"train": len(train), "val": len(val)},
        "queries": len(queries),
        "bridge_weights": sum(p.numel() for p in model.get_submodule("vision.bridge").parameters()),
        "device": describe_device(device),
        "stages": stages.records,
    }
    tqdm.write(
        f"{len(train)} images to learn from and {len(val)} to measure on, {config.queries_per_image} of "
        f"{len(queries)} queries each; {facts['bridge_weights']:,} weights train, on {facts['device']}"
    )
    distiller = Distiller(config, model, train, val, stores, identity, facts)
    history = distiller.run(stages)
    history["peak_memory_gb"] = stages.peak
    best = history["best"]
    tqdm.write(
        f"Done. Best: epoch {best['epoch']}, agreement {best['agreement']:.3f}; the student is in {config.out}"
    )
    del distiller, model
    free()
    if config.data_dir is not None:
        history["evaluation"] = measure_both(config)
    write_json(Path(config.out) / "distillation_history.json", history)
    return history


def measure_both(config: DistillConfig, say: Callable[[str], Any] = tqdm.write) -> dict[str, Any]:
    """Metrics of teacher and student on labelled data, and the share of the teacher's mIoU that the student has."""
    found: dict[str, Any] = {"data_dir": config.data_dir, "split": config.split}
    for who, source in (("teacher", config.teacher), ("student", config.out)):
        result = evaluate_checkpoint(
            source,
            data_dir=str(config.data_dir),
            split=config.split,
            output_dir=Path(config.out) / f"evaluation_{who}",
            num_workers=config.num_workers,
            device=config.device,
            **(config.overrides if who == "teacher" else {}),
        )
        found[who] = result.metrics
        say(f"{who}: " + ", ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()))
        del result
        free()
    of_teacher = found["teacher"]["mIoU"]
    found["share_of_mIoU"] = found["student"]["mIoU"] / of_teacher if of_teacher else None
    if of_teacher:
        say(f"the student has {found['share_of_mIoU']:.1%} of the teacher's mIoU, without a label")
    return found


def _refuse_another_run(config: DistillConfig) -> None:
    """OUT of an earlier run is gone on with, or left alone."""
    out = Path(config.out)
    check_folder("OUT", out)
    check_folder("--cache_dir", config.cache)
    if not config.resume and (out / "distillation_history.json").exists():
        raise CheckpointError(
            f"{out} holds a distillation already; add --resume to go on with it, or name another OUT"
        )
    if (out / "config.json").exists() and not (out / "distillation_history.json").exists():
        raise CheckpointError(
            f"{out} holds a model already, which the student would replace; name another OUT"
        )


def _with_queries(
    paths: list[Path], known: list[tuple[str, tuple[int, int]]], queries: list[str], config: DistillConfig
) -> list[Picture]:
    """Each image with its own draw of the queries, the same in every run of one seed."""
    count = min(config.queries_per_image, len(queries))
    pictures = []
    for number, (path, (key, size)) in enumerate(zip(paths, known, strict=True)):
        drawn = np.random.default_rng([config.seed, number]).permutation(len(queries))[:count]
        pictures.append(Picture(path, key, size, tuple(queries[index] for index in drawn)))
    return pictures


def _split(pictures: Sequence[Picture], config: DistillConfig) -> tuple[list[Picture], list[Picture]]:
    """Train and val; at least one image each."""
    held = min(len(pictures) - 1, max(1, round(config.val_share * len(pictures))))
    order = np.random.default_rng([config.seed, len(pictures)]).permutation(len(pictures))
    val = set(order[:held].tolist())
    parts: tuple[list[Picture], list[Picture]] = ([], [])
    for number, picture in enumerate(pictures):
        parts[number in val].append(picture)
    return parts


def _plain(config: DistillConfig) -> dict[str, Any]:
    values = dataclasses.asdict(config)
    if config.bridge_layers is not None:
        values["bridge_layers"] = list(config.bridge_layers)
    return values
