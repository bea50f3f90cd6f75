"""The comparison goes on where it was stopped; what trains is replaced by a record of the call."""

import argparse
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from modified_lisa.config import TrainingConfig
from modified_lisa.errors import TrainingError
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
    write_json(
        folder / "training_history.json",
        {"config": {"epochs": 1}, "parameters": {"trainable": 7}, "epochs": []},
    )
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
        num_workers=0,
        cache_dir=None,
        max_train_samples=None,
        max_val_samples=None,
    )
    before, after = compare.trained(("vlm", False, False), options)
    assert [config.resume for config in seen] == ["latest"]
    assert seen[0].output_dir == seen[0].checkpoint_dir == str(folder)
    assert before["mIoU"] == after["mIoU"] == 0.5
    assert after["weights"] == 7


def test_runs_in_processes_of_their_own_report_which_one_failed(
    compare: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "run.py"
    script.write_text("import sys; print(*sys.argv[1:]); sys.exit('dual' in sys.argv)", encoding="utf-8")
    monkeypatch.setattr(compare, "__file__", str(script))
    options = argparse.Namespace(
        out=str(tmp_path),
        sources=["vlm", "dual"],
        more=["vlm"],
        only=None,
        dtype="fp32",
        epochs=3,
        processes=2,
        no_table=False,
        table_only=False,
    )
    runs = [("vlm", False, False), ("dual", True, False), ("vlm", False, True)]
    with pytest.raises(TrainingError, match="dual-nf4"):
        compare.train_in_processes(runs, options)
    called = (tmp_path / "vlm-fp32" / "log.txt").read_text(encoding="utf-8").split()
    assert "--no_table" in called
    assert "--epochs=3" in called
    assert called[-3:] == ["--sources", "vlm", "--only=plain"]
    called = (tmp_path / "vlm-fp32-more" / "log.txt").read_text(encoding="utf-8").split()
    assert called[-4:] == ["--sources", "--more", "vlm", "--only=plain"]


def test_the_table_of_what_is_there_has_stopped_runs_and_leaves_out_others(
    compare: Any, tmp_path: Path
) -> None:
    options = argparse.Namespace(
        out=str(tmp_path), dtype="fp32", sources=["vlm", "sam"], more=["vlm"], only="plain"
    )
    val = {f"val_{key}": value for key, value in METRICS.items()}
    history = {"config": {"epochs": 3}, "parameters": {"trainable": 7}}
    for name, epochs in (("vlm-fp32", 3), ("vlm-fp32-more", 1)):
        done = [{"epoch": epoch, "val": val, "seconds": 2.0} for epoch in range(1, epochs + 1)]
        write_json(tmp_path / name / "untrained.json", METRICS)
        write_json(tmp_path / name / "training_history.json", {**history, "epochs": done})
    rows = [row["answer"] for run in compare.runs_of(options) for row in compare.rows_of(run, options)]
    assert rows == [
        "vlm, untrained",
        "vlm, trained",
        "vlm, mask decoder and LoRA, untrained",
        "vlm, mask decoder and LoRA, stopped after 1 epochs",
    ]
