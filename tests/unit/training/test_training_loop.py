"""Whole runs with a fake model: files and their keys, equal runs, kill and resume, refusals."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from PIL import Image

from fake_lisa import FakeLISA, FakeSet, NanLISA
from modified_lisa.config import LossWeights, TrainingConfig
from modified_lisa.errors import CheckpointError, ConfigError, DataError, TrainingError
from modified_lisa.model.checkpoint import load_checkpoint
from modified_lisa.training.loop import Trainer
from modified_lisa.training.report import make_accelerator

TIMINGS = {"seconds", "train_seconds", "avg_inference_time_s", "peak_memory_gb"}


def _config(folder: Path, **options: Any) -> TrainingConfig:
    defaults = {"epochs": 3, "batch_size": 2, "gradient_accumulation_steps": 2, "lr": 0.1, "warmup_steps": 2}
    folders = {"output_dir": str(folder / "outputs"), "checkpoint_dir": str(folder / "checkpoints")}
    return TrainingConfig(**{**defaults, **folders, **options})


def _run(config: TrainingConfig, model: Any = None, train: Any = None, val: Any = None) -> Any:
    model = FakeLISA(dropout=0.3) if model is None else model
    train = FakeSet(7) if train is None else train
    val = FakeSet(5, "val") if val is None else val
    trainer = Trainer(config, Accelerator(cpu=True), model, train, val)
    return trainer.run(), model


def _without_timings(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_timings(entry) for key, entry in value.items() if key not in TIMINGS}
    return [_without_timings(entry) for entry in value] if isinstance(value, list) else value


def _json(folder: Path, name: str) -> Any:
    return json.loads((folder / "outputs" / name).read_text(encoding="utf-8"))


def _equal_weights(one: Any, other: Any) -> bool:
    weights, others = one.trainable_state_dict(), other.trainable_state_dict()
    return all(torch.equal(value, others[name]) for name, value in weights.items())


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of the time of these runs; the run of `whole`, made before this, draws."""
    for name in ("overlay_sheet", "curves"):
        monkeypatch.setattr(f"modified_lisa.training.loop.{name}", lambda *args, **options: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A run of three epochs: its folder, its history, its model."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, *_run(_config(folder))


def test_metrics_file_has_the_keys_of_the_specification(whole: Any) -> None:
    record = _json(whole[0], "metrics_epoch_1.json")
    assert record["epoch"] == 1
    assert list(record["train"])[:6] == ["loss", "bce", "dice", "iou_loss", "mIoU", "cIoU"]
    assert list(record["val"])[:3] == ["val_loss", "val_mIoU", "val_cIoU"]
    train = record["train"]
    assert train["loss"] == pytest.approx(train["bce"] + train["dice"] + train["iou_loss"], rel=1e-5)
    assert all(math.isfinite(value) for part in ("train", "val") for value in record[part].values())


def test_history_has_all_epochs_and_measured_benchmarks(whole: Any) -> None:
    history = _json(whole[0], "training_history.json")
    assert [record["epoch"] for record in history["epochs"]] == [1, 2, 3]
    assert history["epochs"][1] == _json(whole[0], "metrics_epoch_2.json")
    assert history["benchmarks"]["peak_memory_gb"] > 0.01
    assert 0 < history["benchmarks"]["avg_inference_time_s"] < 60
    assert history["config"]["lr"] == 0.1
    assert history == json.loads(json.dumps(whole[1]))


def test_learning_happens(whole: Any) -> None:
    epochs = whole[1]["epochs"]
    assert epochs[-1]["val"]["val_loss"] < epochs[0]["val"]["val_loss"]


def test_pictures_are_written(whole: Any) -> None:
    for name in ("curves.png", "overlays_epoch_1.png", "overlays_epoch_3.png"):
        with Image.open(whole[0] / "outputs" / name) as picture:
            assert picture.width > 900
            assert len(picture.convert("RGB").getcolors(2**24) or []) > 50


def test_best_checkpoints_are_those_that_improved(whole: Any) -> None:
    folder, history, _ = whole
    best, expected = -1.0, []
    for record in history["epochs"]:
        if record["val"]["val_mIoU"] > best:
            best = record["val"]["val_mIoU"]
            expected.append(f"best_model_epoch_{record['epoch']}.pt")
    assert sorted(path.name for path in (folder / "checkpoints").glob("best*")) == expected
    assert history["best"]["val_mIoU"] == best
    content = torch.load(folder / "checkpoints" / expected[-1], weights_only=True)
    assert set(content["model_state_dict"]) == {"filter", "bias", "iou"}
    assert content["metrics"]["val"]["val_mIoU"] == best


def test_save_every_and_the_last(tmp_path: Path) -> None:
    _run(_config(tmp_path, epochs=5, save_every=2))
    found = sorted(path.name for path in (tmp_path / "checkpoints").glob("checkpoint_*"))
    assert found == [f"checkpoint_epoch_{number}.pt" for number in (2, 4, 5)]


def test_same_seed_same_run(whole: Any, tmp_path: Path) -> None:
    history, model = _run(_config(tmp_path))
    assert _equal_weights(model, whole[2])
    assert _without_timings(history["epochs"]) == _without_timings(whole[1]["epochs"])
    other, _ = _run(_config(tmp_path / "other", seed=43))
    assert _without_timings(other["epochs"]) != _without_timings(whole[1]["epochs"])


def test_workers_change_nothing(whole: Any, tmp_path: Path) -> None:
    history, model = _run(_config(tmp_path, num_workers=2))
    assert _equal_weights(model, whole[2])
    assert _without_timings(history["epochs"]) == _without_timings(whole[1]["epochs"])


class _Killed(BaseException):
    pass


class DyingSet(FakeSet):
    """Kills the run at its ``last``-th sample."""

    last = 10**9

    def __getitem__(self, index: int) -> Any:
        self.last -= 1
        if self.last < 0:
            raise _Killed
        return super().__getitem__(index)


@pytest.mark.parametrize("read", [9, 16])  # in the middle of epoch 2, of epoch 3
def test_killed_and_resumed_equals_uninterrupted(whole: Any, tmp_path: Path, read: int) -> None:
    dying = DyingSet(7)
    dying.last = read
    with pytest.raises(_Killed):
        _run(_config(tmp_path), train=dying)
    history, model = _run(_config(tmp_path, resume="latest"), model=FakeLISA(seed=5, dropout=0.3))
    assert _equal_weights(model, whole[2])
    assert _without_timings(history["epochs"]) == _without_timings(whole[1]["epochs"])
    for number in (1, 2, 3):
        name = f"metrics_epoch_{number}.json"
        assert _without_timings(_json(tmp_path, name)) == _without_timings(_json(whole[0], name))
    ours, theirs = (load_checkpoint(f / "checkpoints/checkpoint_epoch_3.pt") for f in (tmp_path, whole[0]))
    moments = [content["training"]["optimizer"]["state"][0]["exp_avg_sq"] for content in (ours, theirs)]
    assert torch.equal(*moments)
    best = [sorted(path.name for path in (f / "checkpoints").glob("best*")) for f in (tmp_path, whole[0])]
    assert best[0] == best[1]


def test_resume_without_a_checkpoint_starts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history, _ = _run(_config(tmp_path, epochs=1, resume="latest"))
    assert len(history["epochs"]) == 1
    assert "starts from scratch" in capsys.readouterr().out


def test_resume_of_a_finished_run_adds_nothing(
    whole: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("modified_lisa.training.loop.curves", lambda *given: drawn.append(given))
    path = whole[0] / "checkpoints" / "checkpoint_epoch_3.pt"
    history, model = _run(_config(tmp_path, resume=str(path)))
    assert history["epochs"] == whole[1]["epochs"]
    assert history["benchmarks"] == whole[1]["benchmarks"]
    assert _equal_weights(model, whole[2])
    out = capsys.readouterr().out
    assert "All 3 epochs had been done before; nothing was trained." in out
    assert drawn == [(tmp_path / "outputs" / "curves.png", history["epochs"])]


def test_resume_refuses_another_run_and_lists_what_differs(whole: Any, tmp_path: Path) -> None:
    path = str(whole[0] / "checkpoints" / "checkpoint_epoch_2.pt")
    changed = {"lr": 0.2, "epochs": 9, "batch_size": 4, "loss": LossWeights(dice=2.0)}
    with pytest.raises(CheckpointError) as caught:
        _run(_config(tmp_path, resume=path, **changed))
    message = str(caught.value)
    for line in (
        "--lr: 0.1 then, 0.2 now",
        "--epochs: 3 then, 9 now",
        "processes: 4 then, 8 now",
        "--dice_weight: 1.0 then, 2.0 now",
    ):
        assert line in message
    assert "--seed" not in message
    with pytest.raises(CheckpointError, match="the samples of train: 7"):
        _run(_config(tmp_path, resume=path), train=FakeSet(8))


def test_resume_allows_what_changes_nothing(whole: Any, tmp_path: Path) -> None:
    path = str(whole[0] / "checkpoints" / "checkpoint_epoch_1.pt")
    free = {"batch_size": 1, "gradient_accumulation_steps": 4, "num_workers": 1, "save_every": 3}
    history, _ = _run(_config(tmp_path, resume=path, **free), model=FakeLISA())
    assert len(history["epochs"]) == 3


def test_resume_refuses_weights_without_a_run(whole: Any, tmp_path: Path) -> None:
    best = next((whole[0] / "checkpoints").glob("best*"))
    with pytest.raises(CheckpointError, match="weights only"):
        _run(_config(tmp_path, resume=str(best)))
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        _run(_config(tmp_path, resume=str(tmp_path / "nothing.pt")))


def test_earlier_run_is_set_aside(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(_config(tmp_path, epochs=3))
    (tmp_path / "outputs" / "notes.txt").write_text("mine", encoding="utf-8")
    _run(_config(tmp_path, epochs=1))
    assert "earlier_run_1" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "checkpoints").glob("checkpoint_*")] == [
        "checkpoint_epoch_1.pt"
    ]
    assert (tmp_path / "checkpoints/earlier_run_1/checkpoint_epoch_3.pt").is_file()
    assert (tmp_path / "outputs/earlier_run_1/metrics_epoch_3.json").is_file()
    assert not (tmp_path / "outputs/metrics_epoch_3.json").exists()
    assert (tmp_path / "outputs/notes.txt").is_file()


def test_nan_stops_with_the_name_and_good_checkpoints(tmp_path: Path) -> None:
    class LateNan(NanLISA):
        def forward(self, inputs: Any) -> Any:
            self.size = FakeSet(7)[4].target.shape if list(tmp_path.glob("checkpoints/*")) else (0, 0)
            return super().forward(inputs)

    with pytest.raises(TrainingError, match="image_4#0"):
        _run(_config(tmp_path), model=LateNan((0, 0)))
    content = load_checkpoint(tmp_path / "checkpoints" / "checkpoint_epoch_1.pt")
    assert all(bool(value.isfinite().all()) for value in content["model_state_dict"].values())


@pytest.mark.parametrize("workers", [0, 1])
def test_several_masks_for_one_target_are_refused_by_name(tmp_path: Path, workers: int) -> None:
    class Two(FakeSet):
        def __getitem__(self, index: int) -> Any:
            sample = super().__getitem__(index)
            return type(sample)(sample.name, sample.image, "both <SEG> and <SEG>", sample.target)

    with pytest.raises(DataError, match=r"train/image_\d#0: the text .* holds 2 <SEG>") as caught:
        _run(_config(tmp_path, num_workers=workers), train=Two(3))
    assert "Traceback" not in str(caught.value)


def test_empty_sets_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="val holds no sample"):
        _run(_config(tmp_path), val=FakeSet(0, "val"))


def test_warning_when_the_warm_up_never_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(_config(tmp_path, epochs=1, warmup_steps=100, lr=0.1))
    assert "never reaches --lr 0.1" in capsys.readouterr().out


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that not even root can write to")
def test_a_checkpoint_folder_that_cannot_be_written_to_is_found_before_training(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="/proc"):
        _run(_config(tmp_path, epochs=1, checkpoint_dir="/proc"))
    assert not list(tmp_path.rglob("metrics_epoch_*.json"))


def test_interrupt_names_the_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Interrupted(DyingSet):
        def __getitem__(self, index: int) -> Any:
            try:
                return super().__getitem__(index)
            except _Killed:
                raise KeyboardInterrupt from None

    train = Interrupted(7)
    train.last = 9
    with pytest.raises(KeyboardInterrupt):
        _run(_config(tmp_path), train=train)
    assert f"--resume {tmp_path / 'checkpoints' / 'checkpoint_epoch_1.pt'}" in capsys.readouterr().out


def test_trackers(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'paper'; accelerate knows .*tensorboard"):
        make_accelerator(_config(tmp_path, log_with="paper"))
    with pytest.raises(ConfigError, match="not installed"):
        make_accelerator(_config(tmp_path, log_with="clearml"))
    config = _config(tmp_path, epochs=1, log_with="tensorboard")
    accelerator = make_accelerator(config)
    Trainer(config, accelerator, FakeLISA(), FakeSet(4), FakeSet(2, "val")).run()
    accelerator.end_training()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "outputs" / "tracker_logs" / "modified_lisa"))
    events.Reload()
    assert {"step/loss", "step/lr", "train/mIoU", "val/mIoU", "val/loss"} <= set(events.Tags()["scalars"])
