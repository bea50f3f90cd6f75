"""The comparison goes on where it was stopped; what trains is replaced by a record of the call."""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from modified_lisa.config import TrainingConfig
from modified_lisa.files import write_json

SCRIPT = Path(__file__).parents[2] / "scripts" / "compare_sources.py"
METRICS = {"mIoU": 0.5, "cIoU": 0.4, "gIoU": 0.3}


@pytest.fixture
def compare() -> Any:
    spec = importlib.util.spec_from_file_location("compare_sources_under_test", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_that_was_stopped_is_resumed_and_not_taken_for_a_finished_one(
    compare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "vlm-fp32"
    write_json(folder / "untrained.json", METRICS)
    write_json(folder / "training_history.json", {"parameters": {"trainable": 7}, "epochs": []})
    seen: list[TrainingConfig] = []

    def train(config: TrainingConfig) -> None:
        seen.append(config)
        path = Path(config.output_dir) / "training_history.json"
        history = json.loads(path.read_text(encoding="utf-8"))
        val = {f"val_{key}": value for key, value in METRICS.items()}
        history["epochs"] = [{"epoch": 1, "val": val, "seconds": 2.0}]
        write_json(path, history)

    monkeypatch.setattr("modified_lisa.training.run.train", train)
    options = argparse.Namespace(
        out=str(tmp_path),
        data_dir="nowhere",
        vlm_name="tiny",
        sam_name="tiny",
        dtype="fp32",
        epochs=1,
        batch_size=1,
        lr=1e-3,
        warmup_steps=0,
        seed=1,
    )
    before, after = compare.trained("vlm", False, options)
    assert [config.resume for config in seen] == ["latest"]
    assert seen[0].output_dir == seen[0].checkpoint_dir == str(folder)
    assert before["mIoU"] == after["mIoU"] == 0.5
    assert after["weights"] == 7
