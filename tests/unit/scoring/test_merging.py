"""Several seeds as one result, and the paired comparison of two models."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modified_lisa.errors import DataError
from modified_lisa.files import write_json_lines
from modified_lisa.scoring.merging import merge_results, read_results
from modified_lisa.scoring.ratios import estimate
from records import random_records, record


def runs_of(*shifts: int, images: int = 40, seed: int = 0) -> list[list[dict[str, Any]]]:
    """Runs on the same samples, each with its intersections shifted."""
    base = np.random.default_rng(seed).integers(20, 80, images)
    return [
        [record(f"val/{i}#0", int(v) + shift, 100, groups={"type": "ab"[i % 2]}) for i, v in enumerate(base)]
        for shift in shifts
    ]


def test_mean_and_deviation_over_seeds() -> None:
    runs = runs_of(0, 2, 4)
    merged = merge_results(runs)
    row = merged["metrics"]["mIoU"]
    values = [estimate(run)["mIoU"].value for run in runs]
    assert row["values"] == pytest.approx(values)
    assert row["mean"] == pytest.approx(np.mean(values))
    assert row["std"] == pytest.approx(0.02)
    assert row["low"] < row["mean"] < row["high"]
    assert (merged["seeds"], merged["samples"]) == (3, 40)
    use = merged["groups"]["type"]["a"]
    assert use["samples"] == 20
    assert use["metrics"]["mIoU"]["mean"] == pytest.approx(
        np.mean([r["iou"] for run in runs for r in run[::2]])
    )
    assert json.loads(json.dumps(merged, allow_nan=False)) == merged


def test_one_seed_has_no_deviation_and_the_interval_of_evaluate() -> None:
    (run,) = runs_of(0)
    row = merge_results([run])["metrics"]["mIoU"]
    alone = estimate(run)["mIoU"]
    assert row["std"] is None
    assert (row["low"], row["high"]) == pytest.approx((alone.low, alone.high))


def test_seeds_that_differ_widen_the_interval() -> None:
    def width(*shifts: int) -> float:
        row = merge_results(runs_of(*shifts))["metrics"]["mIoU"]
        return row["high"] - row["low"]

    assert width(-15, 0, 15) > 1.3 * width(0, 0, 0)


def test_a_paired_difference_is_sharper_than_two_intervals() -> None:
    """One model is better by 1 point on every sample: their intervals overlap, that of the difference is sure."""
    merged = merge_results(runs_of(1), runs_of(0))
    row = merged["difference"]["mIoU"]
    assert row["mean"] == pytest.approx(0.01)
    assert (row["low"], row["high"]) == pytest.approx((0.01, 0.01))
    assert merged["groups"]["type"]["b"]["difference"]["mIoU"] == pytest.approx(row)
    assert merged["against"]["metrics"]["mIoU"]["high"] > merged["metrics"]["mIoU"]["low"]


def test_the_order_of_the_records_does_not_matter() -> None:
    one, other = runs_of(0, 5)
    assert merge_results([one, other[::-1]])["metrics"] == merge_results([one, other])["metrics"]


def test_rates_without_cases_are_left_out() -> None:
    assert "N_acc" not in merge_results(runs_of(0, 1))["metrics"]
    assert "N_acc" in merge_results([random_records(4), random_records(4)])["metrics"]


def test_other_samples_are_refused() -> None:
    one, other = runs_of(0, 1)
    with pytest.raises(DataError, match="val/39#0"):
        merge_results([one, other[:-1]])
    changed = [{**other[0], "target_area": 7}, *other[1:]]
    with pytest.raises(DataError, match=r"result 2.*val/0#0"):
        merge_results([one], [changed])
    with pytest.raises(DataError, match="at least one"):
        merge_results([])


def test_reading(tmp_path: Path) -> None:
    (run,) = runs_of(0)
    file = write_json_lines(tmp_path / "results_val.jsonl", run)
    assert read_results(file) == run
    assert read_results(tmp_path) == run
    write_json_lines(tmp_path / "results_test.jsonl", run)
    with pytest.raises(DataError, match=r"results_test.jsonl, results_val.jsonl: name one"):
        read_results(tmp_path)


def test_an_end_of_a_line_of_unicode_in_a_query_is_none_of_the_file(tmp_path: Path) -> None:
    run = [record("val/a#0", text="what?\u2028that"), record("val/b#0", text="what?\x85that")]
    assert read_results(write_json_lines(tmp_path / "results_val.jsonl", run)) == run


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("{", "line 1: not valid JSON"),
        ('\n{"name": "a"}', "line 2.*no record"),
        ("[1]", "no record"),
        ('{"name": "a", "groups": {}}\n' * 2, "1 samples twice"),
        ("\udcff", "cannot be read"),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, content: str, says: str) -> None:
    file = tmp_path / "x.jsonl"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=says):
        read_results(file)
    with pytest.raises(DataError, match="no file or folder"):
        read_results(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has none"):
        read_results(tmp_path / "empty")


def test_a_byte_order_mark_and_null(tmp_path: Path) -> None:
    records = runs_of(0)[0]
    lines = "\n".join(json.dumps(record) for record in records)
    (tmp_path / "marked.jsonl").write_text(lines, encoding="utf-8-sig")
    assert read_results(tmp_path / "marked.jsonl") == records
    with pytest.raises(DataError, match="null"):
        merge_results([[{**records[0], "intersection": None}, *records[1:]]])
