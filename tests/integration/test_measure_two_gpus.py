"""scripts/measure_two_gpus.py with the smallest models: two processes on the CPU."""

import fcntl
import importlib.util
import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import factory


@pytest.fixture(scope="module")
def script(repository: Path) -> Any:
    path = repository / "scripts" / "measure_two_gpus.py"
    spec = importlib.util.spec_from_file_location("measure_two_gpus", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # its dataclass looks there
    spec.loader.exec_module(module)
    return module


def test_one_and_two_learn_the_same_and_a_failure_is_told(
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    out = tmp_path / "measured.json"
    vlm, sam = factory.folders()
    words = ["--vlm_name", vlm, "--sam_name", sam, "--out", str(out)]
    words += ["--samples", "4", "--batch_size", "1", "--epochs", "2", "--num_workers", "0"]
    assert script.main([*words, "--runs", "bf16, one", "bf16, two, FSDP2"]) == 0, capsys.readouterr()
    runs = json.loads(out.read_text(encoding="utf-8"))["runs"]
    alone, dealt = runs["bf16, one"], runs["bf16, two, FSDP2"]
    assert (alone["processes"], dealt["processes"]) == (1, 2)
    assert alone["samples_in_a_step"] == dealt["samples_in_a_step"] == 2
    assert len(dealt["epoch_seconds"]) == 2
    assert dealt["times_one"] > 0
    assert dealt["train_loss_off"] < 1e-3
    assert "dealt out over 2 processes" in dealt["said"][0]
    assert "| bf16, two, FSDP2 |" in capsys.readouterr().out

    assert script.main([*words, "--runs", "bf16, one", "--limit", "0.1"]) == 1
    assert "not done after 0.1 s" in json.loads(out.read_text(encoding="utf-8"))["runs"]["bf16, one"]["error"]
    with pytest.raises(SystemExit) as refused:
        script.main([*words, "--epochs", "1"])
    assert refused.value.code == 2


HOLDS_A_LOCK = """
import fcntl, sys, time
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(600)
"""
LAUNCHER = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[2]])
"""


def test_what_a_launcher_has_started_ends_with_it(script: Any, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    assert script.run_within(5, [sys.executable, "-c", LAUNCHER, HOLDS_A_LOCK, str(lock)]) is None
    with lock.open("w") as file:
        for _ in range(50):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        else:
            raise AssertionError("the child of the launcher is still there")
    assert script.run_within(60, [sys.executable, "-c", "print(1); raise SystemExit(3)"]) == (3, "1\n", "")
