"""One HTML file that shows how good a model is: no script, no other file, readable on a phone."""

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from modified_lisa.files import write_text
from modified_lisa.reports.plots import histogram, reliability
from modified_lisa.scoring.ratios import METRICS

__all__ = ["EXPLAINED", "Example", "Gallery", "write_page"]

EXPLAINED = {
    "mIoU": "For each sample, the pixels that the mask and the truth share over the pixels of either; then the mean. "
    "1 is perfect. Where truth and mask are both empty it counts 1, where only one is empty 0. The LISA and the GRES "
    "paper print this number as gIoU.",
    "cIoU": "All shared pixels of the whole set over all pixels of either, so large objects weigh more. The cIoU of "
    "those papers; others call it oIoU.",
    "gIoU": "Generalized IoU of the two masks' bounding boxes (Rezatofighi et al. 2019), from -1 to 1: it says how "
    "far off a box is even where the two do not touch. Not the gIoU of the LISA paper.",
    "boundary_IoU": "IoU of the pixels near the outlines alone, within 2 % of the image's diagonal (Cheng et al. "
    "2021): how well the edges fit, which mIoU hardly shows for large masks.",
    "N_acc": "Of the samples where nothing in the image answers the query, the share that got an empty mask (GRES).",
    "T_acc": "Of the samples that have a target, the share that got a mask with at least one pixel (GRES).",
    "SEG_rate": "The share of the answers in which the model wrote a <SEG>, so that there is a mask. Only where answers "
    "were generated; without a target the right answer has none.",
}
"""What each of `METRICS` means, for readers who meet it for the first time."""
HEADINGS = {
    "type": "By type of query",
    "length": "By length: phrases (short) and whole sentences (long)",
    "target": "By whether there is a target",
    "kind": "By kind of object: seen in training, or held out",
    "wording": "By wording: seen in training, or held out",
    "combination": "By combination of concepts: seen in training, or held out",
}


@dataclass(frozen=True)
class Example:
    """One sample with its pictures."""

    record: Mapping[str, Any]
    pictures: Sequence[tuple[str, bytes]]
    """(what it shows, JPEG)."""


@dataclass(frozen=True)
class Gallery:
    """Samples under a heading."""

    heading: str
    examples: Sequence[Example]


def write_page(
    path: str | os.PathLike[str],
    about: Mapping[str, Any],
    result: Mapping[str, Any],
    galleries: Sequence[Gallery],
) -> Path:
    """Write the page, atomically.

    Args:
        about: facts for the head of the page, such as ``checkpoint`` and ``split``.
        result: what `EvaluationResult.to_dict` gives.
        galleries: examples with pictures, in the order in which they are shown.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    template = files("modified_lisa.reports").joinpath("page.html.jinja").read_text(encoding="utf-8")
    ious = [record["iou"] for record in result["records"]]
    html = environment.from_string(template).render(
        about=about,
        result=result,
        names=[name for name in METRICS if name in result["estimates"]],
        explained=EXPLAINED,
        headings=HEADINGS,
        galleries=[(gallery.heading, [_shown(e) for e in gallery.examples]) for gallery in galleries],
        reliability=_data_uri(reliability(result["calibration"]), "image/svg+xml"),
        histogram=_data_uri(histogram(ious), "image/svg+xml"),
    )
    return write_text(path, html)


def _shown(example: Example) -> dict[str, Any]:
    pictures = [(caption, _data_uri(data, "image/jpeg")) for caption, data in example.pictures]
    return {"record": example.record, "pictures": pictures}


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "−")
