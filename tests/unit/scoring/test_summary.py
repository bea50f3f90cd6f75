"""Groups, calibration, and the plain values of a summary."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modified_lisa.errors import DataError
from modified_lisa.scoring.calibration import calibration
from modified_lisa.scoring.ratios import estimate
from modified_lisa.scoring.summary import groupings, summarize
from records import random_records, record


def test_groups_split_the_records() -> None:
    records = [
        record("a#0", groups={"type": "use", "wording": "seen"}),
        record("b#0", 0, 0, groups={"type": "relation", "wording": "seen"}),
        record("c#0", groups={"type": "use", "length": "long"}),
    ]
    found = groupings(records)
    # A grouping with one group says nothing new; "wording" and "length" have one each.
    assert {g: {n: [r["name"] for r in m] for n, m in groups.items()} for g, groups in found.items()} == {
        "type": {"relation": ["b#0"], "use": ["a#0", "c#0"]},
        "target": {"absent": ["b#0"], "present": ["a#0", "c#0"]},
    }
    assert list(found) == ["type", "target"]


def test_a_summary_is_plain_and_agrees_with_its_parts() -> None:
    records = random_records(0)
    found = summarize(records)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["estimates"]["mIoU"] == estimate(records)["mIoU"].to_dict()
    use = [r for r in records if r["groups"]["type"] == "use"]
    assert found["groups"]["type"]["use"]["estimates"]["cIoU"] == estimate(use)["cIoU"].to_dict()
    assert found["groups"]["type"]["use"]["samples"] == len(use)
    row = found["estimates"]["mIoU"]
    assert row["low"] < row["value"] < row["high"]


def test_calibration_by_hand() -> None:
    records = [
        record("a#0", 0, 10, iou_prediction=0.21),
        record("b#0", 4, 10, iou_prediction=0.29),  # this bin: predicted 0.25, measured 0.2
        record("c#0", 10, 10, iou_prediction=1.2),  # clipped to 1
        record("d#0", 9, 10, iou_prediction=0.95),  # this bin: predicted 0.975, measured 0.95
    ]
    found = calibration(records)
    assert found["ECE"] == pytest.approx((2 * 0.05 + 2 * 0.025) / 4)
    assert found["bias"] == pytest.approx((0.25 + 0.975 - 0.2 - 0.95) / 2)
    assert [(row["low"], row["count"]) for row in found["bins"]] == [(0.2, 2), (0.9, 2)]
    assert found["correlation"] > 0.9


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_a_perfect_prediction_has_no_error(values: list[float]) -> None:
    records = [record(f"{i}#0", iou=v, iou_prediction=v) for i, v in enumerate(values)]
    found = calibration(records)
    assert found["ECE"] == pytest.approx(0, abs=1e-12)
    assert sum(row["count"] for row in found["bins"]) == len(values)


@given(st.integers(0, 10**6))
def test_the_error_is_between_the_bias_and_the_mean_distance(seed: int) -> None:
    records = random_records(seed)
    found = calibration(records)
    far = np.mean([abs(r["iou"] - r["iou_prediction"]) for r in records])
    assert abs(found["bias"]) - 1e-9 <= found["ECE"] <= far + 1e-9


def test_nothing_to_calibrate() -> None:
    assert calibration([record("a#0")])["correlation"] is None
    with pytest.raises(DataError, match="no record"):
        calibration([])
