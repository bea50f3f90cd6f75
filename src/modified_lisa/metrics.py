"""mIoU, cIoU and gIoU of binary masks, summed up exactly over a data set and over processes.

Whose number is which: **our mIoU is what the LISA paper prints as "gIoU"** (the mean of the per-image
IoUs); our cIoU is the paper's cIoU; our gIoU is another thing, the generalized IoU of bounding boxes.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch

from modified_lisa.errors import DataError
from modified_lisa.geometry import IGNORE

__all__ = ["MaskScore", "SegmentationMetrics"]


class MaskScore(NamedTuple):
    """What one mask scored. Pixels labelled 255 are taken out of both masks before anything is counted."""

    intersection: int
    """Pixels in both masks."""
    union: int
    """Pixels in either mask."""
    giou: float
    """Generalized IoU of the masks' bounding boxes, in [-1, 1]."""

    @property
    def iou(self) -> float:
        """intersection / union, in [0, 1]; 1 where the union is empty."""
        return self.intersection / self.union if self.union else 1.0


class SegmentationMetrics:
    """Collects masks and computes

    - ``mIoU``: the mean of the masks' IoU, an empty union counting as 1;
    - ``cIoU``: the sum of all intersections over the sum of all unions, 1 if no mask had any pixel;
    - ``gIoU``: the mean generalized IoU (Rezatofighi et al. 2019) of the masks' bounding boxes,
      I / U - (C - U) / C with C the smallest box around both. Boxes include their last row and column,
      so a single pixel is a box of area 1. Both masks empty: 1; one empty: -1.

    Label 255 in the target is ignored: such a pixel belongs to neither mask.

    The scores of single masks are kept (two integers and a float each), so that the result does not depend
    on the order of the masks or on how they were spread over processes, to the last bit.
    """

    def __init__(self) -> None:
        self._scores: list[MaskScore] = []

    @property
    def count(self) -> int:
        """The number of masks so far."""
        return len(self._scores)

    @property
    def scores(self) -> tuple[MaskScore, ...]:
        """The scores of the masks so far, in the order in which they came."""
        return tuple(self._scores)

    def update(self, prediction: Any, target: Any) -> list[MaskScore]:
        """Add masks; returns the score of each.

        ``prediction`` (H, W) or (N, H, W), bool or integers 0/1; ``target`` of the same shape, integers
        0/1/255 or bool. Either may be a torch tensor on any device or a numpy array. DataError otherwise;
        nothing is added then.
        """
        predictions = _to_array("prediction", prediction, (0, 1))
        targets = _to_array("target", target, (0, 1, IGNORE))
        if predictions.shape != targets.shape:
            raise DataError(
                f"the prediction has shape {predictions.shape} and the target {targets.shape}; they must be "
                "equal: bring the prediction to the size of the user's image first"
            )
        if predictions.ndim == 2:
            predictions, targets = predictions[None], targets[None]
        scores = [_score(p == 1, t) for p, t in zip(predictions, targets, strict=True)]
        self._scores.extend(scores)
        return scores

    def merge(self, other: "SegmentationMetrics") -> "SegmentationMetrics":
        """Add all masks of ``other`` to this one; returns this one."""
        if not isinstance(other, SegmentationMetrics):
            raise DataError(f"got a {type(other).__name__}; only a SegmentationMetrics can be merged")
        self._scores.extend(other.scores)
        return self

    def compute(self) -> dict[str, float]:
        """{"mIoU", "cIoU", "gIoU"} of all masks so far, as fractions; DataError before the first mask."""
        if not self._scores:
            raise DataError("no mask has been added, so there is no metric; call update() first")
        intersection = sum(score.intersection for score in self._scores)
        union = sum(score.union for score in self._scores)
        return {  # fsum rounds once, so the order of the masks does not matter
            "mIoU": math.fsum(score.iou for score in self._scores) / self.count,
            "cIoU": intersection / union if union else 1.0,
            "gIoU": math.fsum(score.giou for score in self._scores) / self.count,
        }

    def state(self) -> dict[str, list[Any]]:
        """All of it in plain lists of numbers, for JSON or for gathering between processes."""
        return {
            "intersection": [score.intersection for score in self._scores],
            "union": [score.union for score in self._scores],
            "giou": [score.giou for score in self._scores],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "SegmentationMetrics":
        """The inverse of `state`, exactly."""
        metrics = cls()
        try:
            columns = zip(state["intersection"], state["union"], state["giou"], strict=True)
            metrics._scores = [
                MaskScore(int(both), int(either), float(giou)) for both, either, giou in columns
            ]
            if not all(0 <= score.intersection <= score.union for score in metrics._scores):
                raise ValueError("an intersection is below 0 or above its union")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise DataError(f"not the state of a SegmentationMetrics: {error!r}") from error
        return metrics


def _to_array(name: str, masks: Any, allowed: tuple[int, ...]) -> np.ndarray:
    if isinstance(masks, torch.Tensor):
        if masks.is_floating_point() or masks.is_complex():
            raise DataError(_not_binary(name, masks.dtype, allowed))
        array = masks.detach().cpu().numpy()
    elif isinstance(masks, np.ndarray):
        array = masks
    else:
        raise DataError(
            f"the {name} is a {type(masks).__name__}; a torch tensor or a numpy array is expected"
        )
    if array.dtype.kind not in "biu":
        raise DataError(_not_binary(name, array.dtype, allowed))
    if array.ndim not in (2, 3) or 0 in array.shape[-2:]:
        raise DataError(f"the {name} has shape {array.shape}; (H, W) or (N, H, W) with pixels is expected")
    if array.dtype.kind != "b" and not np.isin(array, allowed).all():
        found = sorted(set(np.unique(array).tolist()) - set(allowed))
        shown = ", ".join(map(str, found[:5]))
        raise DataError(f"the {name} holds {shown}; only {', '.join(map(str, allowed))} may occur")
    return array


def _not_binary(name: str, dtype: object, allowed: tuple[int, ...]) -> str:
    hint = "threshold it first (logits > 0)" if name == "prediction" else "convert it to uint8 labels first"
    return f"the {name} is {dtype}; bool or integers {'/'.join(map(str, allowed))} are expected: {hint}"


def _score(prediction: np.ndarray, target: np.ndarray) -> MaskScore:
    predicted = prediction & (target != IGNORE)
    expected = target == 1
    both = int(np.count_nonzero(predicted & expected))
    either = int(np.count_nonzero(predicted | expected))
    return MaskScore(both, either, _box_giou(_box(predicted), _box(expected)))


def _box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """(left, top, right, bottom) of the true pixels, right and bottom one past the last; None if none."""
    columns = np.flatnonzero(mask.any(axis=0))
    rows = np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _box_giou(one: tuple[int, int, int, int] | None, other: tuple[int, int, int, int] | None) -> float:
    if one is None or other is None:
        return 1.0 if one is other else -1.0
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    either = (one[2] - one[0]) * (one[3] - one[1]) + (other[2] - other[0]) * (other[3] - other[1]) - both
    hull = (max(one[2], other[2]) - min(one[0], other[0])) * (max(one[3], other[3]) - min(one[1], other[1]))
    return both / either - (hull - either) / hull
