"""Boundary IoU (Cheng et al. 2021, "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation").

Only the pixels within a distance d of a mask's outline count, d being 2 % of the image's diagonal. IoU of
large masks hardly sees where their borders run; this does.
"""

import math
from typing import NamedTuple

import numpy as np

from modified_lisa.errors import DataError
from modified_lisa.geometry import IGNORE

__all__ = ["DILATION_RATIO", "BoundaryScore", "boundary_band", "boundary_score"]

DILATION_RATIO = 0.02
"""d as a share of the image's diagonal, as in the paper."""


class BoundaryScore(NamedTuple):
    """Pixels of the two masks' boundary bands."""

    intersection: int
    union: int

    @property
    def iou(self) -> float:
        """intersection / union, in [0, 1]; 1 where both bands are empty, which is where both masks are."""
        return self.intersection / self.union if self.union else 1.0


def boundary_score(
    prediction: np.ndarray, target: np.ndarray, dilation_ratio: float = DILATION_RATIO
) -> BoundaryScore:
    """Compare the boundary bands of a mask and of its truth.

    Args:
        prediction: bool (H, W), on the user's image.
        target: (H, W), integers 0, 1, and 255 for ignored pixels. Those are taken out of both masks, and
            the edge of an ignored region is no outline of either mask.
        dilation_ratio: d = round(this x diagonal), at least 1 pixel.

    Raises:
        DataError: shapes that differ, or a prediction that is not bool.
    """
    if prediction.dtype != np.bool_ or prediction.ndim != 2 or prediction.shape != target.shape:
        raise DataError(
            f"the prediction is {prediction.dtype} {prediction.shape} and the target {target.shape}; a bool "
            "array (H, W) and labels of the same shape are expected"
        )
    reach = max(1, round(dilation_ratio * math.hypot(*prediction.shape)))
    ignored = target == IGNORE
    predicted, expected = prediction & ~ignored, target == 1
    window = _around(predicted | expected, reach)
    if window is None:
        return BoundaryScore(0, 0)
    bands = [boundary_band(mask[window], ignored[window], reach) for mask in (predicted, expected)]
    both, either = (np.count_nonzero(combine(*bands)) for combine in (np.logical_and, np.logical_or))
    return BoundaryScore(int(both), int(either))


def boundary_band(mask: np.ndarray, ignored: np.ndarray, reach: int) -> np.ndarray:
    """The pixels of ``mask`` that have a pixel outside it within ``reach`` (in rows and in columns).

    All arrays are bool (H, W). Outside the array counts as outside the mask, so a mask that touches the
    border of the image has an outline there; ``ignored`` pixels count as neither. The square neighbourhood
    is that of the paper's code, which erodes ``reach`` times by 3 x 3.
    """
    inside = np.pad(mask | ignored, reach)
    for axis in (0, 1):
        inside = _windows_full(inside, 2 * reach + 1, axis)
    return mask & ~inside


def _windows_full(mask: np.ndarray, side: int, axis: int) -> np.ndarray:
    """Whether each run of ``side`` pixels along an axis is all True; ``side - 1`` shorter than the mask."""
    mask, done = np.moveaxis(mask, axis, 0), 1
    while done < side:  # each round doubles the length that is known to be full
        step = min(done, side - done)
        mask = mask[:-step] & mask[step:]
        done += step
    return np.moveaxis(mask, 0, axis)


def _around(mask: np.ndarray, margin: int) -> tuple[slice, slice] | None:
    """The window that holds the mask and ``margin`` pixels around it; None for an empty mask."""
    slices = []
    for axis, length in ((1, mask.shape[0]), (0, mask.shape[1])):
        found = np.flatnonzero(mask.any(axis=axis))
        if not len(found):
            return None
        slices.append(slice(max(0, int(found[0]) - margin), min(length, int(found[-1]) + 1 + margin)))
    return slices[0], slices[1]
