"""How far the IoU that the model predicts can be trusted: reliability, expected calibration error, and its correction."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from modified_lisa.errors import DataError

__all__ = ["FEWEST", "Correction", "calibration", "cross_validated", "fit_correction"]

BINS = 10
FOLDS = 5
FEWEST = 30
"""Records that a correction is fitted to, at least."""


def calibration(records: Sequence[Mapping[str, Any]], bins: int = BINS) -> dict[str, Any]:
    """Compare ``iou_prediction`` with ``iou`` over the records that have one.

    Predictions are clipped to 0..1, as users see them, and sorted into ``bins`` of equal width.

    Returns:
        ``ECE``: the expected calibration error (Guo et al. 2017, with the IoU in the place of being right):
        the mean over the samples of |mean predicted - mean measured| of their bin; 0 is perfect.
        ``bias``: mean predicted - mean measured; above 0 the model thinks too well of itself.
        ``correlation``: Pearson's, of predicted and measured; None if either is constant.
        ``bins``: for each that is not empty ``low``, ``high``, ``count``, mean ``predicted``, mean ``measured``.

    All None and no bin where no record has a prediction.

    Raises:
        DataError: no record.
    """
    if not records:
        raise DataError("there is no record to calibrate against; measure at least one sample")
    records = [record for record in records if record["iou_prediction"] is not None]
    if not records:
        return {"ECE": None, "bias": None, "correlation": None, "bins": []}
    predicted = np.clip([float(record["iou_prediction"]) for record in records], 0, 1)
    measured = np.array([float(record["iou"]) for record in records])
    # A small excess keeps what was computed as 0.3 in 32 bits, a little below 0.3, in the bin that starts there.
    index = np.minimum((predicted * bins + 1e-6).astype(int), bins - 1)
    rows = []
    for number in np.unique(index).tolist():
        here = index == number
        rows.append(
            {
                "low": number / bins,
                "high": (number + 1) / bins,
                "count": int(here.sum()),
                "predicted": float(predicted[here].mean()),
                "measured": float(measured[here].mean()),
            }
        )
    gaps = sum(row["count"] * abs(row["predicted"] - row["measured"]) for row in rows)
    constant = bool(np.ptp(predicted) == 0 or np.ptp(measured) == 0)
    return {
        "ECE": gaps / len(records),
        "bias": float(predicted.mean() - measured.mean()),
        "correlation": None if constant else float(np.corrcoef(predicted, measured)[0, 1]),
        "bins": rows,
    }


class Correction(NamedTuple):
    """``scale * prediction + shift`` is the IoU to be expected."""

    scale: float
    shift: float


def fit_correction(records: Sequence[Mapping[str, Any]]) -> Correction:
    """The line through predicted and measured IoU with the least squared error; it never falls.

    Raises:
        DataError: fewer than `FEWEST` records with a prediction.
    """
    return _fit(_with_prediction(records))


def _fit(records: Sequence[Mapping[str, Any]]) -> Correction:
    predicted, measured = (
        np.array([float(record[name]) for record in records]) for name in ("iou_prediction", "iou")
    )
    spread = predicted.var()
    # Where higher predictions mean nothing or the contrary, the mean is the best that can be said.
    scale = max(0.0, float(np.cov(predicted, measured, bias=True)[0, 1] / spread)) if spread > 0 else 0.0
    return Correction(scale, float(measured.mean() - scale * predicted.mean()))


def cross_validated(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`calibration` after correction, each record corrected by what the other folds say.

    Raises DataError as `fit_correction`.
    """
    records = _with_prediction(records)
    folds = np.random.default_rng(0).permutation(len(records)) % FOLDS
    corrected = []
    for number in range(FOLDS):
        others = [record for record, fold in zip(records, folds, strict=True) if fold != number]
        scale, shift = _fit(others)
        corrected += [
            {**record, "iou_prediction": scale * record["iou_prediction"] + shift}
            for record, fold in zip(records, folds, strict=True)
            if fold == number
        ]
    return calibration(corrected)


def _with_prediction(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found = [record for record in records if record["iou_prediction"] is not None]
    if len(found) < FEWEST:
        raise DataError(
            f"{len(found)} samples have a predicted IoU; at least {FEWEST} are needed to correct it by"
        )
    return found
