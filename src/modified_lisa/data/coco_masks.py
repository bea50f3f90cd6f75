"""COCO's segmentations as pixels.

They are drawn by COCO's own rasteriser (pycocotools), not by `annotation.rasterize`: its rules for pixels on
an outline are part of the format, and published results are measured on its masks.
"""

from typing import Any

import numpy as np

from modified_lisa.errors import DataError

__all__ = ["check_segmentation", "coco_area", "coco_mask"]


def coco_mask(segmentation: object, height: int, width: int) -> np.ndarray:
    """uint8 (height, width), 0 or 1, of one annotation's ``segmentation``.

    Args:
        segmentation: polygons [[x, y, x, y, ...], ...] of 3 or more points (together they are one object), or
            run lengths {"size": [H, W], "counts": list of numbers or COCO's compressed string}.

    Raises:
        DataError: anything else, or run lengths for another size.
    """
    from pycocotools import mask as coco

    return np.ascontiguousarray(coco.decode(_run_lengths(segmentation, height, width)))


def coco_area(segmentation: object, height: int, width: int) -> int:
    """How many pixels `coco_mask` has, without drawing them; the same errors."""
    from pycocotools import mask as coco

    return int(coco.area(_run_lengths(segmentation, height, width)))


def _run_lengths(segmentation: object, height: int, width: int) -> Any:
    from pycocotools import mask as coco

    checked: Any = check_segmentation(segmentation, height, width)
    if isinstance(checked, list):
        return coco.merge(coco.frPyObjects(checked, height, width))
    return coco.frPyObjects(checked, height, width) if isinstance(checked["counts"], list) else checked


def check_segmentation(segmentation: object, height: int, width: int) -> list[list[float]] | dict[str, Any]:
    """What `coco_mask` draws, if it can, without drawing it; DataError otherwise."""
    if isinstance(segmentation, dict):
        return _runs(segmentation, height, width)
    return _polygons(segmentation)


def _polygons(segmentation: object) -> list[list[float]]:
    if not isinstance(segmentation, list) or not segmentation:
        raise DataError(f"its segmentation is {segmentation!r:.60}; polygons or run lengths are expected")
    for polygon in segmentation:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise DataError(f"it has the polygon {polygon!r:.60}; [x, y, x, y, x, y, ...] is expected")
        values = [
            value for value in polygon if isinstance(value, int | float) and not isinstance(value, bool)
        ]
        if len(values) < len(polygon) or not all(abs(value) < 1e6 for value in values):  # NaN fails it too
            raise DataError(f"it has the polygon {polygon!r:.60}; finite pixel coordinates are expected")
    return segmentation


def _runs(segmentation: dict[Any, Any], height: int, width: int) -> dict[str, Any]:
    counts, size = segmentation.get("counts"), segmentation.get("size")
    if size != [height, width] and size != (height, width):
        raise DataError(f"its run lengths are for the size {size!r:.40}; the image is [{height}, {width}]")
    if isinstance(counts, str | bytes):
        # The decoder writes as far as the runs go, so their sum is checked before it sees them.
        counts = counts.encode("ascii", "replace") if isinstance(counts, str) else counts
        total = sum(_decompress(counts))
    elif isinstance(counts, list) and all(type(count) is int and count >= 0 for count in counts):
        total = sum(counts)
    else:
        raise DataError(f"its run lengths are {counts!r:.60}; a list of numbers or a string is expected")
    if total != height * width:
        raise DataError(f"its run lengths cover {total} pixels; the image has {height * width}")
    return {"size": [height, width], "counts": counts}


def _decompress(text: bytes) -> list[int]:
    """The counts in COCO's compressed string (``rleFrString`` of its C code)."""
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            if position >= len(text) or not 48 <= text[position] < 112 or shift > 60:
                raise DataError("its compressed run lengths are damaged")
            piece = text[position] - 48
            value |= (piece & 0x1F) << shift
            more, position, shift = bool(piece & 0x20), position + 1, shift + 5
            if not more and piece & 0x10:
                value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        if value < 0:
            raise DataError("its compressed run lengths are damaged")
        counts.append(value)
    return counts
