"""A checkpoint whose predicted IoU is put right on average, and nothing else is changed."""

import numpy as np
import pytest
import torch

from factory import bright_squares, picture, tiny_model
from modified_lisa.apps.cli import main
from modified_lisa.calibrating import calibrate_checkpoint
from modified_lisa.errors import CheckpointError, ConfigError, DataError
from modified_lisa.evaluation import evaluate_checkpoint
from modified_lisa.model.lisa import ModifiedLISA


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    tiny_model(seed=1).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return bright_squares(tmp_path_factory.mktemp("data"), {"val": 32, "test": 3})


def test_the_prediction_is_put_right_and_the_masks_stay(trained, data, tmp_path, capsys):
    out = tmp_path / "calibrated"
    command = [
        "calibrate",
        str(trained),
        str(out),
        "--data_dir",
        str(data),
        "--batch_size",
        "8",
        "--device",
        "cpu",
    ]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "32 samples" in printed
    assert "five-fold" in printed
    before, after = (
        evaluate_checkpoint(source, data_dir=data, batch_size=8, device="cpu", progress=False)
        for source in (trained, out)
    )
    assert after.metrics == before.metrics
    wanted = np.mean([record["iou"] for record in before.records])
    given = np.mean([record["iou_prediction"] for record in after.records])
    assert given == pytest.approx(wanted, abs=1e-4)
    assert abs(before.summary["calibration"]["bias"]) > 0.01, "there was nothing to correct"


def test_it_is_a_line_of_what_it_was(trained, data, tmp_path):
    found = calibrate_checkpoint(trained, tmp_path / "out", data_dir=data, device="cpu", progress=False)
    models = [ModifiedLISA.from_pretrained(source, "cpu").eval() for source in (trained, found.folder)]
    with torch.no_grad():
        before, after = (model([picture()], ["the cup"]) for model in models)
    torch.testing.assert_close(after["pred_masks"], before["pred_masks"])
    scale, shift = found.correction
    torch.testing.assert_close(after["iou_predictions"][0], scale * before["iou_predictions"][0] + shift)


def test_refusals(trained, data, tmp_path):
    with pytest.raises(CheckpointError, match="holds a checkpoint already"):
        calibrate_checkpoint(trained, trained, data_dir=data)
    with pytest.raises(DataError, match="test has 3 samples; at least 30"):
        calibrate_checkpoint(
            trained, tmp_path / "out", data_dir=data, split="test", device="cpu", progress=False
        )
    assert not (tmp_path / "out").exists()
    with pytest.raises(ConfigError, match="--batch_size is 0"):
        calibrate_checkpoint(trained, tmp_path / "out", data_dir=data, batch_size=0)
