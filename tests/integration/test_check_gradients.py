"""The script that compares gradients with those of float32."""

import importlib.util
import json

import pytest
import torch


@pytest.fixture(scope="module")
def script(repository):
    spec = importlib.util.spec_from_file_location(
        "check_gradients", repository / "scripts" / "check_gradients.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_short_way_back_is_no_farther_from_float32(script, tmp_path, capsys):
    out = tmp_path / "gradients.json"
    assert script.main(["--tiny", "--device", "cpu", "--out", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))["distance_from_float32"]
    assert found["split in float32"]["all"] < 1e-4
    assert 1e-4 < found["full"]["all"] < 1
    assert found["split"]["all"] < 1.5 * found["full"]["all"]
    assert json.loads(capsys.readouterr().out)["models"] == "tiny"


def test_a_distance_is_relative(script):
    reference = {"a.x": torch.tensor([3.0, 0.0]).double(), "b": torch.tensor([4.0]).double()}
    given = {"a.x": torch.tensor([3.0, 0.5]).double(), "b": torch.tensor([4.0]).double()}
    assert script.distances(given, reference) == pytest.approx({"all": 0.1, "a": 0.5 / 3, "b": 0.0})
