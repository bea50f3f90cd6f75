"""The metrics of a set of records, each a ratio of two sums, with bootstrap intervals.

A mean is a sum over a count, cIoU a sum of intersections over a sum of unions, a rate a number of hits over a
number of cases. One resampling therefore serves them all, in one matrix product.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modified_lisa.errors import DataError

__all__ = [
    "LEVEL",
    "METRICS",
    "RESAMPLES",
    "Estimate",
    "Metric",
    "bootstrap",
    "estimate",
    "image_of",
    "interval",
    "ratios",
    "sums_of_images",
]

RESAMPLES = 1000
LEVEL = 0.95
_SEED = 0
_NUMBERS_AT_ONCE = 4_000_000
"""Random numbers drawn at once, so that a large set does not fill the memory."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Metric:
    """Sum of ``hits`` over the records divided by the sum of ``cases``."""

    hits: Callable[[Record], float]
    cases: Callable[[Record], float]
    meaning: str
    without_cases: float | None = None
    """The value where no record is a case; None: there is none."""


def _one(_: Record) -> float:
    return 1.0


METRICS: dict[str, Metric] = {
    "mIoU": Metric(
        lambda r: r["iou"], _one, "mean of the masks' IoU (the gIoU of the LISA and the GRES paper)"
    ),
    "cIoU": Metric(
        lambda r: r["intersection"],
        lambda r: r["union"],
        "summed intersection over summed union (cIoU in those papers, oIoU in others)",
        without_cases=1.0,
    ),
    "gIoU": Metric(
        lambda r: r["giou"], _one, "generalized IoU of the bounding boxes (Rezatofighi et al. 2019)"
    ),
    "boundary_IoU": Metric(
        lambda r: r["boundary_iou"], _one, "mean IoU of the masks' boundary bands (Cheng et al. 2021)"
    ),
    "N_acc": Metric(
        lambda r: float(r["target_empty"] and r["predicted_empty"]),
        lambda r: float(r["target_empty"]),
        "share of the samples without a target whose mask is empty (GRES)",
    ),
    "T_acc": Metric(
        lambda r: float(not r["target_empty"] and not r["predicted_empty"]),
        lambda r: float(not r["target_empty"]),
        "share of the samples with a target whose mask is not empty (GRES)",
    ),
    "SEG_rate": Metric(
        lambda r: float(r.get("seg_emitted", False)),
        lambda r: float("seg_emitted" in r),
        "share of the answers in which the model wrote a <SEG> (generated protocol)",
    ),
}
"""Names and meanings. Another rate is one more entry."""


@dataclass(frozen=True)
class Estimate:
    """A metric, and where it might lie had other images been drawn."""

    value: float
    low: float | None
    """None: fewer than two images."""
    high: float | None
    cases: int
    """The number of samples that it speaks of."""

    def to_dict(self) -> dict[str, Any]:
        """``value``, ``low``, ``high``, ``cases``."""
        return {"value": self.value, "low": self.low, "high": self.high, "cases": self.cases}


def image_of(record: Record) -> str:
    """Queries about one image are not independent, so they are drawn together: its name before the ``#``."""
    return str(record["name"]).rpartition("#")[0] or str(record["name"])


def estimate(records: Sequence[Record], *, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """Each of `METRICS` that the records can give, with its interval of `LEVEL`.

    The interval is the percentile bootstrap's (Efron 1979) over images, always with the same random
    numbers. Point values are rounded once (`math.fsum`), so they do not depend on the order of the records.

    Raises:
        DataError: no record, or one that lacks a value.
    """
    if not records:
        raise DataError("there is no record, so there is no metric; measure at least one sample")
    _, sums = sums_of_images(records)
    drawn = bootstrap(sums[None], resamples)[:, 0]
    found = {}
    for column, (name, metric) in enumerate(METRICS.items()):
        hits = math.fsum(metric.hits(record) for record in records)
        cases = math.fsum(metric.cases(record) for record in records)
        value = hits / cases if cases else metric.without_cases
        if value is None:
            continue
        low, high = interval(drawn[:, column]) if len(sums) > 1 else (None, None)
        counted = len(records) if metric.without_cases is not None else int(cases)
        found[name] = Estimate(value, low, high, counted)
    return found


def sums_of_images(records: Sequence[Record]) -> tuple[list[str], NDArray[np.float64]]:
    """(the images' names, sorted; the sums of hits and of cases over each: float64 (images, metrics, 2))."""
    try:
        rows = np.array(
            [[[m.hits(record), m.cases(record)] for m in METRICS.values()] for record in records],
            dtype=np.float64,
        )
        if not np.isfinite(rows).all():  # numpy reads null as NaN
            raise ValueError("null, or no finite number")
        names, index = np.unique([image_of(record) for record in records], return_inverse=True)
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"a record lacks a value or has one of another type ({error!r}); it was not written by this version "
            "of modified-lisa evaluate: measure again"
        ) from error
    sums = np.zeros((len(names), *rows.shape[1:]))
    np.add.at(sums, index, rows)
    return names.tolist(), sums


def bootstrap(sums: NDArray[np.float64], resamples: int = RESAMPLES) -> NDArray[np.float64]:
    """The metrics of data sets drawn anew from the same images, with replacement; always the same draws.

    Args:
        sums: float64 (runs, images, metrics, 2), as `sums_of_images` makes them. All runs get the same draws.

    Returns:
        float64 (resamples, runs, metrics); NaN where a draw holds no case.
    """
    runs, images = sums.shape[:2]
    rows = np.moveaxis(sums, 1, 0).reshape(images, -1)
    rng = np.random.default_rng(_SEED)
    size = max(1, min(resamples, _NUMBERS_AT_ONCE // images))
    parts = []
    for start in range(0, resamples, size):
        drawn = rng.integers(images, size=(min(size, resamples - start), images))
        weights = _counts(drawn, images)
        parts.append(ratios((weights @ rows).reshape(len(weights), runs, -1, 2)))
    return np.concatenate(parts)


def _counts(drawn: NDArray[np.int64], images: int) -> NDArray[np.float64]:
    """How often each image was drawn: (resamples, images)."""
    rows = len(drawn)
    flat = (drawn + images * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, minlength=rows * images).reshape(rows, images).astype(np.float64)


def ratios(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of hits and cases (..., metrics, 2) -> metrics (..., metrics); NaN where there is no case."""
    hits, cases = sums[..., 0], sums[..., 1]
    default = [np.nan if m.without_cases is None else m.without_cases for m in METRICS.values()]
    return np.where(cases > 0, hits / np.where(cases > 0, cases, 1), default)


def interval(drawn: NDArray[np.float64]) -> tuple[float | None, float | None]:
    """The percentiles that hold `LEVEL` of the draws between them; NaN do not count."""
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return None, None
    low, high = np.quantile(finite, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
