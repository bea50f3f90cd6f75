"""Label maps and metrics against those recorded from the original LISA's code."""

import cv2
import numpy as np
import pytest

from modified_lisa.data import rasterize, read_annotation
from modified_lisa.metrics import SegmentationMetrics

NAMES = (
    "cp1252",
    "flag_is_skipped",
    "ignore_inside_target",
    "no_shapes",
    "one_target",
    "other_label_is_target",
    "outside_the_image",
    "sliver",
    "target_inside_ignore",
    "two_targets_overlap_ignore",
)


@pytest.fixture(scope="module")
def folder(shared_dir):
    return shared_dir / "parity" / "reasonseg_json"


def test_no_recorded_annotation_is_forgotten(folder):
    assert sorted(path.stem for path in folder.glob("*.json")) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_label_map_is_that_of_the_original(folder, name):
    recorded = cv2.imread(str(folder / f"{name}.mask.png"), cv2.IMREAD_UNCHANGED)
    drawn = rasterize(read_annotation(folder / f"{name}.json"), *recorded.shape)
    assert drawn.dtype == np.uint8
    np.testing.assert_array_equal(drawn, recorded)


def test_text_in_cp1252(folder):
    assert read_annotation(folder / "cp1252.json").texts == ("the café’s sign",)


def test_metrics_are_those_of_the_original(folder):
    metrics = SegmentationMetrics()
    with np.load(folder / "metrics.npz") as recorded:
        for index in range(int(recorded["n"])):
            metrics.update(recorded[f"pred{index}"], recorded[f"gt{index}"])
        giou, ciou = recorded["giou"].item(), recorded["ciou"].item()
    assert metrics.compute()["mIoU"] == pytest.approx(giou, abs=1e-6)  # the paper's gIoU is our mIoU
    assert metrics.compute()["cIoU"] == pytest.approx(ciou, abs=1e-6)
