"""Correcting predicted IoU by a straight line."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modified_lisa.errors import DataError
from modified_lisa.scoring.calibration import FEWEST, calibration, cross_validated, fit_correction
from records import record


def judged(predicted, measured):
    return [
        record(f"{number}", iou=float(truth), iou_prediction=None if guess is None else float(guess))
        for number, (guess, truth) in enumerate(zip(predicted, measured, strict=True))
    ]


def overrated(seed: int, count: int = 400, scale: float = 0.5, shift: float = 0.1):
    """Predictions of a model whose masks are right to ``scale * prediction + shift``, give or take."""
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(0.2, 1, count)
    return judged(predicted, np.clip(scale * predicted + shift + rng.normal(0, 0.05, count), 0, 1))


@given(st.floats(0.1, 0.9), st.floats(0.0, 0.1), st.integers(0, 99))
def test_a_line_is_found(scale, shift, seed):
    predicted = np.random.default_rng(seed).uniform(0, 1, FEWEST)
    correction = fit_correction(judged(predicted, scale * predicted + shift))
    assert correction == pytest.approx((scale, shift), abs=1e-9)


@given(st.integers(0, 99))
def test_a_model_that_overrates_itself_is_put_right(seed):
    records = overrated(seed)
    before, after = calibration(records), cross_validated(records)
    assert before["bias"] > 0.15
    assert abs(after["bias"]) < 0.01
    assert after["ECE"] < 0.25 * before["ECE"]
    assert sum(row["count"] for row in after["bins"]) == len(records)


@given(st.integers(0, 99))
def test_nothing_is_lost_where_there_is_nothing_to_correct(seed):
    rng = np.random.default_rng(seed)
    predicted = rng.uniform(0, 1, 400)
    records = judged(predicted, (rng.random(400) < predicted).astype(float))  # right as often as it says
    assert cross_validated(records)["ECE"] < calibration(records)["ECE"] + 0.03


def test_predictions_that_mean_nothing_become_the_mean():
    measured = np.linspace(0, 1, 40)
    assert fit_correction(judged(1 - measured, measured)) == pytest.approx((0.0, 0.5))
    assert fit_correction(judged(np.full(40, 0.9), measured)) == pytest.approx((0.0, 0.5))


def test_too_few_samples_are_refused():
    records = judged([*np.linspace(0, 1, FEWEST - 1), None], np.linspace(0, 1, FEWEST))
    for correct in (fit_correction, cross_validated):
        with pytest.raises(DataError, match=f"{FEWEST - 1} samples have a predicted IoU; at least {FEWEST}"):
            correct(records)
