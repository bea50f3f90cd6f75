"""``scripts/train_new2.py`` as a user runs it, with real Hugging Face parts of random weights."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import factory
from modified_lisa.evaluation import evaluate_checkpoint

SAMPLES = {"train": 5, "val": 3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in ReasonSeg's layout: a bright square on a dark image, not the same size twice."""
    return factory.bright_squares(tmp_path_factory.mktemp("data"), SAMPLES)


def _command(repository: Path, folder: Path, data: Path, *more: str) -> list[str]:
    vlm, sam = factory.folders()
    words = f"--vlm_name {vlm} --sam_name {sam} --use_vlm_vision --no_quantization --dtype fp32 --lora_r 2"
    words += f" --data_dir {data} --epochs 3 --batch_size 2 --lr 1e-2 --warmup_steps 2"
    words += f" --output_dir {folder / 'outputs'} --checkpoint_dir {folder / 'checkpoints'}"
    return [sys.executable, str(repository / "scripts" / "train_new2.py"), *words.split(), *more]


def _environment(repository: Path) -> dict[str, str]:
    source = os.pathsep.join(filter(None, (str(repository / "src"), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": source}


def _run(repository: Path, words: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        words, env=_environment(repository), capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def run(repository: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A finished run: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("run")
    done = _run(repository, _command(repository, folder, data))
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def _record(folder: Path, epoch: int) -> Any:
    record = json.loads((folder / f"outputs/metrics_epoch_{epoch}.json").read_text(encoding="utf-8"))
    del record["seconds"], record["train_seconds"]
    return record


def test_every_file_of_the_specification_is_there(run: tuple[Path, str]) -> None:
    folder, printed = run
    outputs, checkpoints = folder / "outputs", folder / "checkpoints"
    assert all((outputs / f"metrics_epoch_{epoch}.json").is_file() for epoch in (1, 2, 3))
    history = json.loads((outputs / "training_history.json").read_text(encoding="utf-8"))
    assert math.isfinite(
        history["benchmarks"]["peak_memory_gb"] + history["benchmarks"]["avg_inference_time_s"]
    )
    assert (checkpoints / "checkpoint_epoch_3.pt").is_file()
    assert list(checkpoints.glob("best_model_epoch_*.pt"))
    assert [line for line in printed.splitlines() if line.startswith("epoch 3/3")]


def test_the_inference_snippet_of_the_specification(
    run: tuple[Path, str], repository: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(repository / "scripts"))
    from train_new2 import ModifiedLISA

    vlm, sam = factory.folders()
    model = ModifiedLISA(
        vlm_name=vlm, sam_name=sam, use_vlm_vision_encoder=True, dtype="fp32", quantize=False, lora_r=2
    )
    best = max((run[0] / "checkpoints").glob("best_model_epoch_*.pt"))
    checkpoint = torch.load(best)
    model.load_state_dict(checkpoint["model_state_dict"])
    model.eval()
    image = Image.open(data / "val" / "image_0.jpg")
    with torch.no_grad():
        outputs = model([image], ["What object is shown? <SEG>"], return_mask=True)
    assert outputs["pred_masks"][0].shape == (1, 256, 256)
    assert outputs["iou_predictions"][0].shape == (1,)


def test_evaluating_the_best_checkpoint_gives_what_training_reported(
    run: tuple[Path, str], data: Path, tmp_path: Path
) -> None:
    best = max((run[0] / "checkpoints").glob("best_model_epoch_*.pt"))
    result = evaluate_checkpoint(
        best, data_dir=data, split="val", output_dir=tmp_path, device="cpu", progress=False
    )
    expected = torch.load(best, weights_only=True)["metrics"]["val"]
    assert result.metrics == pytest.approx({key: expected[f"val_{key}"] for key in result.metrics}, abs=1e-3)
    assert result.losses["loss"] == pytest.approx(expected["val_loss"], rel=1e-4)
    written = json.loads((tmp_path / "evaluation_val.json").read_text(encoding="utf-8"))
    assert written["metrics"] == result.metrics
    assert written["samples"] == len(written["records"]) == SAMPLES["val"]
    with Image.open(tmp_path / "overlays_val.png") as sheet:
        assert sheet.width > 900


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs a signal that cannot be caught")
def test_killed_and_resumed_equals_uninterrupted(
    run: tuple[Path, str], repository: Path, data: Path, tmp_path: Path
) -> None:
    words = _command(repository, tmp_path, data, "--resume")
    first = tmp_path / "checkpoints" / "checkpoint_epoch_1.pt"
    process = subprocess.Popen(
        words, env=_environment(repository), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not first.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "checkpoints" / "checkpoint_epoch_3.pt").exists(), "it was killed too late"
    done = _run(repository, words)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Going on after epoch" in done.stdout
    weights = [
        torch.load(folder / "checkpoints/checkpoint_epoch_3.pt", weights_only=True)["model_state_dict"]
        for folder in (run[0], tmp_path)
    ]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    for epoch in (1, 2, 3):
        assert _record(run[0], epoch) == _record(tmp_path, epoch)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--data_dir", "nowhere"], "nowhere"),
        (["--vision_source", "sam"], "error: --use_vlm_vision asks for the VLM's encoder"),
        (["--checkpoint_dir", __file__], f"error: --checkpoint_dir is {__file__!r}, a file; name a folder"),
        (["--lr", "0"], "error: --lr is 0.0; it must be above 0"),
        (["--epochs", "many"], "invalid int value: 'many'"),
    ],
)
def test_errors_are_one_message(
    repository: Path, data: Path, tmp_path: Path, more: list[str], says: str
) -> None:
    done = _run(repository, _command(repository, tmp_path, data, *more))
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("outputs/*"))
