"""FSDP2 of two processes gives what one process gives: losses, metrics, weights; and they stop together."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import factory


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Numbers of samples that do not deal out evenly: each process has to keep the other company once."""
    return factory.bright_squares(tmp_path_factory.mktemp("data"), {"train": 5, "val": 3})


def _run(
    repository: Path, folder: Path, data: Path, processes: int, *more: str
) -> "subprocess.CompletedProcess[str]":
    vlm, sam = factory.folders()
    words = f"--vlm_name {vlm} --sam_name {sam} --dtype fp32 --data_dir {data} --epochs 2 --lr 1e-2"
    words += f" --warmup_steps 2 --batch_size 1 --gradient_accumulation_steps {2 // processes}"
    words += f" --output_dir {folder / 'outputs'} --checkpoint_dir {folder / 'checkpoints'}"
    command = [sys.executable]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(
        filter(None, (str(repository / "src"), os.environ.get("PYTHONPATH")))
    )
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        environment |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    script = str(repository / "scripts" / "train_new2.py")
    return subprocess.run(
        [*command, script, *words.split(), *more],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def _record(folder: Path, epoch: int) -> Any:
    return json.loads((folder / f"outputs/metrics_epoch_{epoch}.json").read_text(encoding="utf-8"))


CASES = {
    "frozen prefix": ["--use_vlm_vision", "--no_quantization"],
    "everything trains": [
        *("--vision_source", "dual", "--no_quantization", "--lora_r", "2", "--lora_dropout", "0"),
        *("--train_mask_decoder", "--train_projector", "--gradient_checkpointing"),
    ],
}
Runs = dict[str, tuple[Path, Path]]


@pytest.fixture(scope="module")
def runs(repository: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Of each case, the folders of one process and of two."""
    done: Runs = {}
    for case, flags in CASES.items():
        one, two = done[case] = (tmp_path_factory.mktemp("one"), tmp_path_factory.mktemp("two"))
        for folder, processes in ((one, 1), (two, 2)):
            said = _run(repository, folder, data, processes, *flags)
            assert said.returncode == 0, said.stderr[-3000:]
        assert "are dealt out over 2 processes" in said.stdout
    return done


@pytest.mark.parametrize("case", CASES)
def test_two_processes_give_what_one_gives(runs: Runs, case: str) -> None:
    one, two = runs[case]
    for epoch in (1, 2):
        alone, dealt = _record(one, epoch), _record(two, epoch)
        assert alone["train"] == pytest.approx(dealt["train"], rel=1e-3)
        assert alone["val"] == pytest.approx(dealt["val"], rel=1e-3)
        assert (two / f"outputs/overlays_epoch_{epoch}.png").is_file()
    first, second = (
        torch.load(folder / "checkpoints/checkpoint_epoch_2.pt", weights_only=True) for folder in (one, two)
    )
    assert first["training"]["identity"] == second["training"]["identity"]
    for name, value in first["model_state_dict"].items():
        if name.endswith("k_proj.bias"):
            continue  # adds the same to all scores of a token: its gradient is 0 but for rounding, which Adam makes large
        torch.testing.assert_close(value, second["model_state_dict"][name], rtol=1e-2, atol=1e-4)


def test_one_process_goes_on_where_two_stopped(
    runs: Runs, repository: Path, data: Path, tmp_path: Path
) -> None:
    before = runs["frozen prefix"][1]
    for part in ("outputs", "checkpoints"):
        shutil.copytree(before / part, tmp_path / part)
    (tmp_path / "checkpoints/checkpoint_epoch_2.pt").unlink()
    done = _run(repository, tmp_path, data, 1, *CASES["frozen prefix"], "--resume", "latest")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Going on after epoch 1" in done.stdout
    assert _record(tmp_path, 2)["train"] == pytest.approx(_record(before, 2)["train"], rel=1e-3)


def test_a_bad_sample_stops_both(repository: Path, data: Path, tmp_path: Path) -> None:
    done = _run(repository, tmp_path, data, 2, *CASES["frozen prefix"], "--lr", "1e30")
    assert done.returncode != 0
    assert "is not finite" in done.stderr


def test_a_quantised_model_is_refused(repository: Path, data: Path, tmp_path: Path) -> None:
    done = _run(repository, tmp_path, data, 2, "--use_vlm_vision")
    assert done.returncode != 0
    assert "FSDP deals out weights in 16 or 32 bit" in done.stderr
