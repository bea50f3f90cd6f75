"""The files of one evaluation: numbers for programs, sheets and a page for people."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from modified_lisa.data.collate import SampleSource
from modified_lisa.files import write_json, write_json_lines
from modified_lisa.pictures import fixed_choice, overlay_sheet, three_views
from modified_lisa.reports.page import Example, Gallery, write_page

if TYPE_CHECKING:
    from modified_lisa.inference.segmenter import Segmenter

__all__ = ["choose_examples", "write_results"]

SHOWN = 4
"""Examples of each sort on the page."""
PICTURE_SIDE = 400
"""Longest side of a picture on the page, in pixels: sharp on a phone, and the page stays light."""


def write_results(
    folder: str | os.PathLike[str],
    about: Mapping[str, Any],
    result: Mapping[str, Any],
    segmenter: "Segmenter",
    samples: SampleSource,
    *,
    name: str | None = None,
) -> list[Path]:
    """Write ``evaluation_SPLIT.json``, ``results_SPLIT.jsonl``, ``overlays_SPLIT.png`` and ``report_SPLIT.html``.

    Args:
        about: facts for the JSON and the head of the page; ``split`` and ``checkpoint`` must be among them.
        result: what `EvaluationResult.to_dict` gives for ``samples``, in their order.
        segmenter: answers the few samples that are shown once more.
        name: in the files' names in the place of SPLIT; None: the split.
    """
    folder, split = Path(folder), about["split"]
    name = name or split
    records = result["records"]
    shown = [samples[index] for index in fixed_choice(len(records))]
    title = f"{split}: {about['checkpoint']}"
    galleries = [
        Gallery(heading, [_example(records[index], samples, segmenter, index) for index in chosen])
        for heading, chosen in choose_examples(records).items()
    ]
    return [
        write_json(folder / f"evaluation_{name}.json", {**about, **result}),
        write_json_lines(folder / f"results_{name}.jsonl", records),
        overlay_sheet(folder / f"overlays_{name}.png", segmenter, shown, title=title),
        write_page(folder / f"report_{name}.html", about, result, galleries),
    ]


def choose_examples(records: Sequence[Mapping[str, Any]], each: int = SHOWN) -> dict[str, list[int]]:
    """{heading: indices of records}: the best, the worst and random ones, the same for the same records.

    Of equal IoU the one with the better box comes first. No record is shown twice.
    """
    order = sorted(range(len(records)), key=lambda i: (-records[i]["iou"], -records[i]["giou"], i))
    share = min(each, max(1, len(order) // 3))
    best, worst = order[:share], order[share:][-share:][::-1]
    rest = sorted({*order} - {*best, *worst})
    drawn = np.random.default_rng(0).permutation(len(rest))[:each]
    chosen = {"The best": best, "The worst": worst, "Random ones": [rest[i] for i in sorted(drawn)]}
    return {heading: indices for heading, indices in chosen.items() if indices}


def _example(record: Mapping[str, Any], samples: SampleSource, segmenter: "Segmenter", index: int) -> Example:
    sample = samples[index]
    views = three_views(sample, segmenter.segment(sample.image, sample.text).mask)
    captions = ("image", "truth", "prediction")
    return Example(record, [(caption, _jpeg(view)) for caption, view in zip(captions, views, strict=True)])


def _jpeg(picture: np.ndarray) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=80)
    return file.getvalue()
