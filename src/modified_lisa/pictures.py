"""PNGs that show how training goes: the curves, and sheets of image, query, truth and prediction."""

import os
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from modified_lisa.data.sample import Sample
from modified_lisa.files import write_atomically
from modified_lisa.geometry import IGNORE
from modified_lisa.inference.drawing import Colour, draw_masks
from modified_lisa.metrics import SegmentationMetrics

if TYPE_CHECKING:
    from modified_lisa.inference.segmenter import Segmenter

__all__ = ["curves", "fixed_choice", "overlay_sheet", "text_block", "three_views"]

TRUTH: Colour = (0, 158, 115)
PREDICTION: Colour = (204, 121, 167)
CELL, GAP, TEXT = 320, 10, 15
"""Side of a picture's cell, space around it, and height of the letters, in pixels."""


def fixed_choice(samples: int, wanted: int = 6) -> list[int]:
    """Up to ``wanted`` indices spread over a data set: the same ones each time, so that sheets compare."""
    return np.unique(np.linspace(0, samples - 1, min(wanted, samples)).round().astype(int)).tolist()


def overlay_sheet(
    path: str | os.PathLike[str],
    segmenter: "Segmenter",
    samples: Sequence[Sample],
    *,
    title: str = "",
    truth: str = "truth",
) -> Path:
    """Write a PNG with one row for each sample: its query, and below it image, truth and prediction.

    The truth (or what ``truth`` calls it) is green, ignored regions are grey, the prediction is pink.
    """
    rows = []
    for sample in samples:
        answer = segmenter.segment(sample.image, sample.text)
        score = SegmentationMetrics().update(answer.mask, sample.target)[0]
        drawn = three_views(sample, answer.mask)
        # An answer that the model writes may be without a mask, and has no score then.
        expects = f"the model expects {answer.scores.mean():.2f}" if len(answer.scores) else "no mask drawn"
        says = f"IoU {score.iou:.2f} ({expects})"
        rows.append(_row(sample, drawn, says, truth))
    width = 3 * CELL + 4 * GAP
    parts = [*([text_block(title, width, size=TEXT, grey=True)] if title else []), *rows]
    sheet = Image.new("RGB", (width, sum(part.height for part in parts) + GAP), "white")
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return write_atomically(path, lambda file: sheet.save(file, format="PNG"))


def three_views(sample: Sample, mask: np.ndarray) -> list[np.ndarray]:
    """The image; the truth on it in green, what is ignored in grey; ``mask``, bool (H, W), on it in pink.

    uint8 (H, W, 3) each, on the user's image.
    """
    truth = sample.image.copy()
    truth[sample.target == IGNORE] = truth[sample.target == IGNORE] // 4 + 96
    return [
        sample.image,
        draw_masks(truth, (sample.target == 1)[None], colours=(TRUTH,)),
        draw_masks(sample.image, mask[None], colours=(PREDICTION,)),
    ]


def _row(sample: Sample, drawn: list[np.ndarray], says: str, truth: str) -> Image.Image:
    width = 3 * CELL + 4 * GAP
    query = text_block(sample.text, width, size=TEXT + 2, bold=True)
    below = text_block(sample.name, width, size=TEXT - 2, grey=True)
    cells = [_fit(picture) for picture in drawn]
    height = max(cell.height for cell in cells)
    captions = ("image", truth, f"prediction: {says}")
    texts = [query, below]
    top = GAP // 2 + sum(part.height for part in texts)
    row = Image.new("RGB", (width, top + height + 2 * TEXT + GAP), "white")
    ImageDraw.Draw(row).line((GAP, 0, width - GAP, 0), fill=(200, 200, 200))
    offset = GAP // 2
    for part in texts:
        row.paste(part, (0, offset))
        offset += part.height
    draw = ImageDraw.Draw(row)
    for column, (cell, caption) in enumerate(zip(cells, captions, strict=True)):
        left = GAP + column * (CELL + GAP)
        row.paste(cell, (left, top))
        draw.text((left, top + cell.height + 3), caption, fill=(60, 60, 60), font=_font(TEXT - 2))
    return row


def _fit(picture: np.ndarray) -> Image.Image:
    """Scaled to CELL pixels wide and no more than that high; small pictures are enlarged."""
    image = Image.fromarray(picture)
    scale = min(CELL / image.width, CELL / image.height)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def text_block(text: str, width: int, *, size: int, bold: bool = False, grey: bool = False) -> Image.Image:
    """A picture of the text, wrapped to ``width`` pixels; at most four lines of it."""
    font = _font(size, bold=bold)
    letters = max(10, int((width - 2 * GAP) / font.getlength("abcdefghij eno") * 14))
    lines = textwrap.wrap(text, letters, max_lines=4, placeholder=" ...") or [""]
    block = Image.new("RGB", (width, len(lines) * (size + 5) + 5), "white")
    draw = ImageDraw.Draw(block)
    for number, line in enumerate(lines):
        fill = (110, 110, 110) if grey else (0, 0, 0)
        draw.text((GAP, 4 + number * (size + 5)), line, fill=fill, font=font)
    return block


def _font(size: int, *, bold: bool = False) -> Any:
    """DejaVu Sans: it comes with matplotlib and has Latin, Greek, Cyrillic and more."""
    import matplotlib

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name), size)


def curves(path: str | os.PathLike[str], epochs: Sequence[dict[str, Any]]) -> Path:
    """Write a PNG of the losses and of mIoU and cIoU over the epochs, train dashed, val solid.

    Args:
        epochs: the records of ``training_history.json``, at least one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    numbers = [record["epoch"] for record in epochs]

    def plot(axes: Any, key: str, label: str, colour: str) -> None:
        for part, prefix, style in (("train", "", "--"), ("val", "val_", "-")):
            values = [record[part][prefix + key] for record in epochs]
            axes.plot(
                numbers,
                values,
                style,
                marker="o",
                ms=4,
                mfc="white" if part == "train" else colour,
                color=colour,
                label=f"{part} {label}",
            )

    for key, label, colour in (
        ("loss", "loss", "black"),
        ("bce", "BCE", "#0072b2"),
        ("dice", "Dice", "#d55e00"),
        ("iou_loss", "IoU loss", "#009e73"),
    ):
        plot(left, key, label, colour)
    for key, colour in (("mIoU", "#cc79a7"), ("cIoU", "#0072b2")):
        plot(right, key, key, colour)
    best = max(epochs, key=lambda record: record["val"]["val_mIoU"])
    value = best["val"]["val_mIoU"]
    right.plot([best["epoch"]], [value], "*", ms=15, color="#e69f00", label=f"best val mIoU {value:.3f}")
    left.set(title="Losses", xlabel="epoch")
    left.set_ylim(bottom=0)
    right.set(title="IoU with the truth", xlabel="epoch", ylim=(0, 1))
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, ncols=2, handlelength=3)
    return write_atomically(path, lambda file: figure.savefig(file, format="png", dpi=120))
