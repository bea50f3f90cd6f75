"""Two processes equal one: loss, metrics, weights; and they stop together."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

WORKER = Path(__file__).with_name("training_worker.py")


def _launch(folder: Path, processes: int, *arguments: object) -> None:
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    words = [*command, str(WORKER), str(folder), *map(str, arguments)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


def _record(folder: Path, epoch: int) -> Any:
    return json.loads((folder / f"outputs/metrics_epoch_{epoch}.json").read_text(encoding="utf-8"))


IN_ONE, IN_TWO = ("good",), ("good", "good in step", "nan", "bad", "nan in step", "bad in step")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of what one process did and of what two did, of a folder each case."""
    one, two = tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two")
    _launch(one, 1, 2, 2, *IN_ONE)
    _launch(two, 2, 1, 2, *IN_TWO)
    return one, two


@pytest.mark.parametrize("case", ["good", "good in step"])
def test_loss_and_metrics_are_equal(runs: tuple[Path, Path], case: str) -> None:
    """In step, as with sharded weights, one process computes what is not counted, to keep the other company."""
    for epoch in (1, 2):
        one, two = _record(runs[0] / "good", epoch), _record(runs[1] / case, epoch)
        assert one["train"] == pytest.approx(two["train"], rel=1e-5)
        assert one["val"] == pytest.approx(two["val"], rel=1e-5)


def test_weights_are_equal(runs: tuple[Path, Path]) -> None:
    one, two = (
        torch.load(folder / "good/checkpoints/checkpoint_epoch_2.pt", weights_only=True) for folder in runs
    )
    for name, value in one["model_state_dict"].items():
        torch.testing.assert_close(value, two["model_state_dict"][name], rtol=1e-4, atol=1e-6)
    assert one["training"]["identity"] == two["training"]["identity"]


def test_one_process_goes_on_where_two_stopped(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """`--resume latest` in a folder with the first epoch of two processes."""
    (tmp_path / "good" / "checkpoints").mkdir(parents=True)
    source = runs[1] / "good/checkpoints/checkpoint_epoch_1.pt"
    (tmp_path / "good" / "checkpoints" / source.name).write_bytes(source.read_bytes())
    _launch(tmp_path, 1, 4, 1, "good")
    assert _record(tmp_path / "good", 2)["train"] == pytest.approx(
        _record(runs[0] / "good", 2)["train"], rel=1e-4
    )


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("nan", "TrainingError: the loss is not finite for train/image_3#0"),
        ("bad", "DataError: train/image_3#0 has gone bad"),
        ("nan in step", "TrainingError: the loss is not finite for train/image_3#0"),
        ("bad in step", "DataError: train/image_3#0 has gone bad"),
    ],
)
def test_processes_stop_together(runs: tuple[Path, Path], case: str, says: str) -> None:
    for rank in (0, 1):
        assert (runs[1] / case / f"error_{rank}.txt").read_text(encoding="utf-8").startswith(says)
    assert not list(runs[1].glob(f"{case}/checkpoints/*"))
