"""PNGs of a distillation: its curves, and sheets of the teacher's masks beside the student's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modified_lisa.data.sample import Sample
from modified_lisa.files import write_atomically
from modified_lisa.images import read_image
from modified_lisa.inference.segmenter import Segmenter
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.pictures import fixed_choice, overlay_sheet
from modified_lisa.training.distillation.preparing import Picture
from modified_lisa.training.distillation.targets import Stores, load_targets

__all__ = ["comparison", "distillation_curves"]


def comparison(
    path: Path, model: ModifiedLISA, pictures: Sequence[Picture], stores: Stores, title: str
) -> Path:
    """Write a sheet: image, the teacher's mask in green, and the student's, from the pixels on, in pink."""
    chosen = [pictures[index] for index in fixed_choice(len(pictures))]
    samples = []
    loaded = load_targets(
        stores, [[one] for one in chosen], model.processor.mask_side, prompts=True, workers=0
    )
    with torch.no_grad():
        for number, (picture, batch) in enumerate(zip(chosen, loaded, strict=True)):
            moved = batch.to(model.device)
            assert moved.prompts is not None
            which = number % len(picture.queries)
            logits, _ = model.mask_head(moved.embedding, moved.prompts[1][:, which])
            image = read_image(picture.path)
            frame = model.processor.frame(*image.shape[:2])
            target = (frame.mask_to_image(logits)[0] > 0).cpu().numpy().astype(np.uint8)
            samples.append(Sample(picture.path.name, image, picture.queries[which], target))
    return overlay_sheet(path, Segmenter(model, fast=False), samples, title=title, truth="teacher")


def distillation_curves(path: Path, epochs: Sequence[dict[str, Any]]) -> Path:
    """Write a PNG of the embedding's errors and of the masks' agreement over the epochs; train dashed, val solid."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    numbers = [record["epoch"] for record in epochs]
    for name, label, colour in (
        ("embedding_error", "squared error / variance", "#0072b2"),
        ("cosine_error", "1 - cosine", "#d55e00"),
    ):
        for part, style in (("train", "--"), ("val", "-")):
            values = [record[part][name] for record in epochs]
            left.plot(numbers, values, style, marker="o", ms=4, color=colour, label=f"{part} {label}")
    values = [record["val"]["agreement"] for record in epochs]
    right.plot(
        numbers, values, "-", marker="o", ms=4, color="#cc79a7", label="val, IoU with the teacher's masks"
    )
    turn = sum(record["stage"] == "embedding" for record in epochs)
    for axes in (left, right):
        if 0 < turn < len(epochs):
            axes.axvline(turn + 0.5, color="#555555", lw=1, ls=":", label="masks are learned from here on")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    left.set(title="SAM's embedding, as the bridge makes it")
    left.set_ylim(bottom=0)
    right.set(title="Masks", ylim=(0, 1))
    return write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))
