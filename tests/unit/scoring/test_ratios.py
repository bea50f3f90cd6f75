"""Metrics as ratios of sums: values, bootstrap against a plain loop, images drawn as wholes."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modified_lisa.errors import DataError
from modified_lisa.metrics import MaskScore, SegmentationMetrics
from modified_lisa.scoring import ratios
from modified_lisa.scoring.ratios import METRICS, bootstrap, estimate, image_of, interval, sums_of_images
from records import random_records, record


def test_by_hand() -> None:
    found = estimate(
        [
            record("a#0", 1, 4, giou=0.5),
            record("b#0", 3, 4, giou=-0.5),
            record("c#0", 0, 0, giou=1.0),  # rightly left empty
            record("d#0", 0, 8, giou=-1.0, target_empty=True),
            record("e#0", 0, 4, giou=-1.0, predicted_empty=True),
        ]
    )
    assert {name: one.value for name, one in found.items()} == {
        "mIoU": pytest.approx(2 / 5),
        "cIoU": 4 / 20,
        "gIoU": pytest.approx(-1 / 5),
        "boundary_IoU": pytest.approx(1 / 5),
        "N_acc": 1 / 2,
        "T_acc": 2 / 3,
    }
    assert [found[name].cases for name in ("mIoU", "cIoU", "N_acc", "T_acc")] == [5, 5, 2, 3]


def test_a_rate_without_cases_is_left_out() -> None:
    assert "N_acc" not in estimate([record("a#0"), record("b#0")])
    assert "T_acc" not in estimate([record("a#0", 0, 0)])
    assert estimate([record("a#0", 0, 0)])["cIoU"].value == 1.0


@given(st.integers(0, 10**6))
@settings(max_examples=25)
def test_values_are_those_of_segmentation_metrics_to_the_last_bit(seed: int) -> None:
    records = random_records(seed)
    metrics = SegmentationMetrics()
    metrics._scores = [MaskScore(r["intersection"], r["union"], r["giou"]) for r in records]
    found = estimate(records, resamples=10)
    assert {name: found[name].value for name in ("mIoU", "cIoU", "gIoU")} == metrics.compute()


@given(st.integers(0, 10**6))
@settings(max_examples=25)
def test_the_order_of_the_records_changes_nothing(seed: int) -> None:
    records = random_records(seed)
    shuffled = random.Random(seed).sample(records, len(records))
    one, other = estimate(records, resamples=50), estimate(shuffled, resamples=50)
    for name in one:
        assert one[name].value == other[name].value
        assert (one[name].low, one[name].high) == pytest.approx((other[name].low, other[name].high))
        assert one[name].low <= one[name].high


def test_bootstrap_is_that_of_a_plain_loop(monkeypatch) -> None:
    records = random_records(3)
    names, sums = sums_of_images(records)
    by_image = [[r for r in records if image_of(r) == name] for name in names]
    rng = np.random.default_rng(0)
    expected = []
    for draw in rng.integers(len(names), size=(40, len(names))):
        drawn = [r for image in draw for r in by_image[image]]
        parts = [(sum(m.hits(r) for r in drawn), sum(m.cases(r) for r in drawn)) for m in METRICS.values()]
        expected.append([hits / cases if cases else np.nan for hits, cases in parts])
    np.testing.assert_allclose(bootstrap(sums[None], 40)[:, 0], expected)
    monkeypatch.setattr(ratios, "_NUMBERS_AT_ONCE", 3 * len(names))  # in pieces, for large sets
    np.testing.assert_allclose(bootstrap(sums[None], 40)[:, 0], expected)


def test_queries_about_one_image_are_drawn_together() -> None:
    """Ten copies of each sample say no more than one, so the interval stays as wide."""
    once = [record(f"val/{i}#0", i, 20) for i in range(20)]
    tenfold = [{**one, "name": f"{one['name']}{copy}"} for one in once for copy in range(10)]
    one, other = estimate(once)["mIoU"], estimate(tenfold)["mIoU"]
    assert (one.low, one.high) == pytest.approx((other.low, other.high))


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        found = estimate([record(f"{i}#0", int(v), 100) for i, v in enumerate(rng.integers(0, 101, 60))])
        covered += found["mIoU"].low <= 0.5 <= found["mIoU"].high
    assert 0.88 < covered / 200 < 0.99


def test_one_image_has_no_interval() -> None:
    assert estimate([record("a#0"), record("a#1")])["mIoU"].low is None


def test_interval_leaves_out_draws_without_a_value() -> None:
    assert interval(np.array([np.nan, 1.0, 1.0])) == (1.0, 1.0)
    assert interval(np.array([np.nan])) == (None, None)


def test_bad_records() -> None:
    with pytest.raises(DataError, match="at least one"):
        estimate([])
    old = record("a#0")
    del old["boundary_iou"]
    with pytest.raises(DataError, match="boundary_iou"):
        estimate([old])
