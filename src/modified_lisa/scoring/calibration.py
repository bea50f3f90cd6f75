"""How far the IoU that the model predicts can be trusted: reliability and expected calibration error."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modified_lisa.errors import DataError

__all__ = ["calibration"]

BINS = 10


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
