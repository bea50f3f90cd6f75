"""modified-lisa distill: a tiny random dual model into a shared one."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from factory import picture, tiny_model
from modified_lisa import ModifiedLISA
from modified_lisa.apps.cli import main
from modified_lisa.config import ModelConfig, TrainingConfig
from modified_lisa.errors import CheckpointError, ConfigError, DataError
from modified_lisa.model.checkpoint import load_checkpoint
from modified_lisa.model.original_lisa.importing import import_lisa
from modified_lisa.training.arguments import parse
from modified_lisa.training.distillation import masks
from modified_lisa.training.distillation import run as running
from modified_lisa.training.distillation.loop import Distiller
from modified_lisa.training.distillation.settings import DistillConfig
from modified_lisa.training.distillation.stages import Stages
from modified_lisa.training.distillation.student import read_teacher, student_config
from modified_lisa.training.run import train
from original_lisa_factory import Sizes, make_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dual teacher and seven unlabelled images, one of them below."""
    root = tmp_path_factory.mktemp("distillation")
    teacher = tiny_model(3, vision_source="dual")
    with torch.no_grad():  # as if it had been trained
        teacher.seg_embedding.row.add_(0.1)
    teacher.save_pretrained(root / "teacher")
    (root / "images" / "more").mkdir(parents=True)
    for number in range(7):
        smooth = np.kron(picture(6 + number, 8, seed=number), np.ones((10, 10, 1), np.uint8))
        place = root / "images" / ("more" if number == 6 else "")
        Image.fromarray(smooth).save(place / f"{number}.png")
    return root


def settings(folder: Path, out: Path, **options: Any) -> DistillConfig:
    values: dict[str, Any] = {
        "teacher": str(folder / "teacher"),
        "out": str(out),
        "images": str(folder / "images"),
        "queries_per_image": 2,
        "bridge": "pyramid",  # learns something in so few steps
        "embedding_epochs": 4,
        "mask_epochs": 2,
        "batch_size": 3,
        "warmup_steps": 1,
        "val_share": 0.3,
        "device": "cpu",
        "lr": 3e-3,
        "cache_dir": str(folder / "cache"),
    }
    return DistillConfig(**{**values, **options})


@pytest.fixture(scope="module")
def whole(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A run of both stages."""
    out = tmp_path_factory.mktemp("whole") / "student"
    return out, running.distill(settings(folder, out))


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("comparison", "distillation_curves"):
        monkeypatch.setattr(f"modified_lisa.training.distillation.loop.{name}", lambda *_: None)


def without_times(history: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history["epochs"]]


def test_the_embedding_comes_nearer_and_files_are_there(whole: Any) -> None:
    out, history = whole
    errors = [record["val"]["embedding_error"] for record in history["epochs"]]
    losses = [record["train"]["loss"] for record in history["epochs"] if record["stage"] == "embedding"]
    assert errors[3] < 0.8 * errors[0]
    assert losses[-1] < 0.8 * losses[0]
    assert [record["stage"] for record in history["epochs"]] == ["embedding"] * 4 + ["masks"] * 2
    assert history == json.loads((out / "distillation_history.json").read_text(encoding="utf-8"))
    assert list(history["stages"]) == [
        *("teacher_embeddings", "student_loading", "features", "prompts"),
        *("embedding_training", "mask_training"),
    ]
    peaks = [record["peak_memory_gb"] for record in history["stages"].values()]
    assert history["peak_memory_gb"] == max(peaks) > 0
    for name in ("curves.png", "comparison_epoch_6.png"):
        with Image.open(out / name) as image:
            assert image.width > 900


def test_all_but_the_bridge_is_the_teachers(folder: Path, whole: Any) -> None:
    student = ModifiedLISA.from_pretrained(whole[0], device="cpu")
    teacher = ModifiedLISA.from_pretrained(folder / "teacher", device="cpu")
    assert student.config == student_config(teacher.config, "pyramid", None)
    weights = student.state_dict()
    for name, value in teacher.state_dict().items():
        if "sam_encoder" not in name:
            assert torch.equal(value, weights[name]), name
    others = set(weights) - set(teacher.state_dict())
    assert {name.split(".")[1] for name in others} == {"bridge"}


@pytest.mark.usefixtures("no_pictures")
def test_an_fpn_learns_too(folder: Path, tmp_path: Path) -> None:
    history = running.distill(settings(folder, tmp_path / "out", bridge="fpn", mask_epochs=1))
    errors = [record["val"]["embedding_error"] for record in history["epochs"]]
    assert errors[3] < errors[0]
    assert ModifiedLISA.from_pretrained(tmp_path / "out", device="cpu").config.bridge == "fpn"


@pytest.mark.usefixtures("no_pictures")
def test_stored_targets_are_what_the_teacher_computes(folder: Path, tmp_path: Path) -> None:
    teacher = ModifiedLISA.from_pretrained(folder / "teacher", device="cpu")
    seen: list[Any] = []
    original = Distiller.run

    def spy(self: Distiller, stages: Stages) -> Any:
        seen.append(self)
        return original(self, stages)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distiller, "run", spy)
        running.distill(settings(folder, tmp_path / "out", embedding_epochs=1, mask_epochs=1))
    (distiller,) = seen
    (batch,) = distiller._load([distiller.val], prompts=True)
    head, prompts = distiller.model.mask_head, batch.prompts[1]
    logits, _ = head(batch.embedding.repeat_interleave(2, 0), prompts.flatten(0, 1))
    expected = [torch.cat(teacher([one.path] * 2, list(one.queries))["pred_masks"]) for one in distiller.val]
    torch.testing.assert_close(logits, torch.cat(expected), rtol=1e-4, atol=1e-4)
    assert len(batch.embedding) == len(distiller.val)
    # Of the student's embedding, and another as if it were further in its training.
    for embedding in (distiller._embedding(batch).detach(), batch.embedding * 0.9):
        whole = embedding.clone().requires_grad_()
        ours, _ = head(whole.repeat_interleave(2, 0), batch.prompts[0].flatten(0, 1))
        each = masks.targets.mask_loss(ours, logits, batch.inside.repeat_interleave(2, 0))
        each.mean().backward()
        assert whole.grad.abs().max() > 1e-4, "or nothing is compared"
        for at_once in (1, 5, 100):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(masks, "MASKS_AT_ONCE", at_once)
                loss, gradient = masks.loss_and_gradient(head, embedding, batch)
                torch.testing.assert_close(masks.measures(head, embedding, batch)[0], each.detach())
            torch.testing.assert_close(loss, each.mean().detach())
            torch.testing.assert_close(gradient, whole.grad, rtol=1e-3, atol=1e-6)


class _Stopped(Exception):
    pass


@pytest.mark.parametrize("epochs", [2, 5])
@pytest.mark.usefixtures("no_pictures")
def test_stopped_and_resumed_equals_uninterrupted(
    folder: Path, whole: Any, tmp_path: Path, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish = Distiller._finish

    def stop(self: Distiller, record: Any) -> None:
        if record["epoch"] > epochs:
            raise _Stopped
        finish(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(Distiller, "_finish", stop)
        with pytest.raises(_Stopped):
            running.distill(settings(folder, tmp_path / "out"))
    with pytest.raises(CheckpointError, match="add --resume"):
        running.distill(settings(folder, tmp_path / "out"))
    history = running.distill(settings(folder, tmp_path / "out", resume=True))
    assert without_times(history) == without_times(whole[1])
    ours, theirs = (load_checkpoint(f / "checkpoint_last.pt") for f in (tmp_path / "out", whole[0]))
    for name, value in theirs["model_state_dict"].items():
        assert torch.equal(value, ours["model_state_dict"][name])
    with pytest.raises(CheckpointError, match=r"--lr: 0.003 then, 0.1 now"):
        running.distill(settings(folder, tmp_path / "out", resume=True, lr=0.1))


@pytest.mark.usefixtures("no_pictures")
def test_what_is_kept_is_not_made_again_and_what_is_torn_is(
    folder: Path, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        what: sorted((folder / "cache").glob(f"{what}-*/??/*"))
        for what in ("embeddings", "features", "prompts")
    }
    assert {what: len(paths) for what, paths in files.items()} == dict.fromkeys(files, 7)
    saved: list[str] = []
    from modified_lisa.model.feature_store import FeatureStore

    save = FeatureStore.save

    def spy(self: FeatureStore, key: str, tensors: Any) -> None:
        saved.append(self.identity["what"])
        save(self, key, tensors)

    monkeypatch.setattr(FeatureStore, "save", spy)
    history = running.distill(settings(folder, tmp_path / "one"))
    assert saved == []
    for paths in files.values():
        paths[2].write_bytes(paths[2].read_bytes()[:-3])
    again = running.distill(settings(folder, tmp_path / "two"))
    assert sorted(saved) == ["embeddings", "features", "prompts"]
    assert without_times(again) == without_times(history) == without_times(whole[1])


def test_command_and_measurement(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data" / "val"
    data.mkdir(parents=True)
    square = {"label": "target", "shape_type": "polygon", "points": [[5, 5], [40, 5], [40, 40], [5, 40]]}
    for number in range(2):
        Image.fromarray(picture(60, 80, seed=number)).save(data / f"{number}.png")
        text = {"text": ["the round one"], "shapes": [square]}
        (data / f"{number}.json").write_text(json.dumps(text), encoding="utf-8")
    queries = tmp_path / "queries.txt"
    queries.write_text("the round one\n\nall that is not round\n", encoding="utf-8")
    words = ["distill", str(folder / "teacher"), str(tmp_path / "out"), "--images", str(folder / "images")]
    words += ["--queries", str(queries), "--embedding_epochs", "1", "--mask_epochs", "1", "--device", "cpu"]
    words += ["--bridge", "linear", "--bridge_layers", "2,4", "--data_dir", str(tmp_path / "data")]
    assert main([*words, "--cache_dir", str(folder / "cache")]) == 0
    found = json.loads((tmp_path / "out" / "distillation_history.json").read_text(encoding="utf-8"))
    measured = found["evaluation"]
    assert measured["share_of_mIoU"] == pytest.approx(
        measured["student"]["mIoU"] / measured["teacher"]["mIoU"]
    )
    assert found["queries"] == 2
    assert (tmp_path / "out" / "evaluation_student" / "report_val.html").is_file()
    assert ModifiedLISA.from_pretrained(tmp_path / "out", device="cpu").config.bridge_layers == (2, 4)
    assert main([*words, "--val_share", "2"]) == 2
    assert "--val_share is 2.0" in capsys.readouterr().err


@pytest.mark.usefixtures("no_pictures")
def test_4_bit_students(folder: Path, tmp_path: Path) -> None:
    options = {"overrides": {"quantization": "nf4"}, "embedding_epochs": 1, "mask_epochs": 1}
    history = running.distill(settings(folder, tmp_path / "out", **options))
    assert history["student"]["quantization"] == "nf4"
    assert np.isfinite(history["epochs"][-1]["train"]["loss"])


def test_refusals(folder: Path, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "shared")
    with pytest.raises(ConfigError, match="has one encoder already"):
        read_teacher(tmp_path / "shared", {})
    with pytest.raises(DataError, match="no such folder"):
        running.distill(settings(folder, tmp_path / "out", images=str(tmp_path / "nothing")))
    with pytest.raises(DataError, match=r"1 picture\(s\)"):
        running.distill(settings(folder, tmp_path / "out", images=str(folder / "images" / "more")))
    (tmp_path / "bad").mkdir()
    for number in range(2):
        (tmp_path / "bad" / f"{number}.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cannot be read; take it out:\n.*0.png.*\n.*1.png"):
        running.distill(settings(folder, tmp_path / "out", images=str(tmp_path / "bad")))
    before = (folder / "teacher" / "config.json").read_bytes()
    with pytest.raises(CheckpointError, match="holds a model already"):
        running.distill(settings(folder, folder / "teacher"))
    assert (folder / "teacher" / "config.json").read_bytes() == before
    with pytest.raises(ConfigError, match="nothing would be learned"):
        settings(folder, tmp_path, embedding_epochs=0, mask_epochs=0)


def test_a_published_lisa_is_a_teacher(tmp_path: Path, folder: Path) -> None:
    """Its prompts stay; the student sees the whole padded square, the teacher's prompts come from its own crop."""
    make_checkpoint(tmp_path / "lisa", Sizes(tokenizer=True))
    teacher = import_lisa(tmp_path / "lisa", tmp_path / "teacher")
    seen: list[Distiller] = []
    run = Distiller.run

    def spy(self: Distiller, stages: Stages) -> Any:
        seen.append(self)
        return run(self, stages)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Distiller, "run", spy)
        options = {"teacher": str(teacher), "embedding_epochs": 1, "mask_epochs": 1, "cache_dir": None}
        running.distill(settings(folder, tmp_path / "out", **options))
    student = ModifiedLISA.from_pretrained(tmp_path / "out", device="cpu")
    assert (student.config.protocol, student.config.seg_state) == ("lisa", "before")
    dual = ModifiedLISA.from_pretrained(teacher, device="cpu")
    one = seen[0].val[-1]
    assert one.size[0] != one.size[1]
    own, theirs = seen[0].stores.prompts.load(one.prompts_key) or ()
    for model, prompts in ((student, own), (dual, theirs)):
        expected = torch.cat(model([one.path] * 2, list(one.queries), return_mask=False)["seg_embeddings"])
        torch.testing.assert_close(prompts, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(own, theirs), "a crop and a padded square are not the same picture"
    (embedding,) = seen[0].stores.embeddings.load(one.key) or ()
    inputs = dual.processor([one.path], ["x"])
    with torch.no_grad():
        expected = dual.vision(inputs.vlm_pixels, inputs.sam_pixels).embedding[0]
    torch.testing.assert_close(embedding.float(), expected, rtol=1e-4, atol=1e-4)


def test_training_goes_on_from_a_distilled_model(folder: Path, whole: Any, tmp_path: Path) -> None:
    square = {"label": "target", "shape_type": "polygon", "points": [[5, 5], [40, 5], [40, 40], [5, 40]]}
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        Image.fromarray(picture(60, 80)).save(tmp_path / split / "0.png")
        text = {"text": ["the round one"], "shapes": [square]}
        (tmp_path / split / "0.json").write_text(json.dumps(text), encoding="utf-8")
    student = ModifiedLISA.from_pretrained(whole[0], device="cpu")
    options: dict[str, Any] = {"epochs": 1, "lr": 1e-12, "weight_decay": 0.0, "init_from": str(whole[0])}
    places = {"output_dir": str(tmp_path / "out"), "checkpoint_dir": str(tmp_path / "out")}
    model = student.config.replaced(train_mask_decoder=True)  # more may train than the checkpoint holds
    train(TrainingConfig(model=model, data_dir=str(tmp_path), **options, **places))
    weights = load_checkpoint(tmp_path / "out" / "checkpoint_epoch_1.pt")["model_state_dict"]
    for name, value in student.trainable_state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=1e-5, atol=1e-6)
    words = ["--use_vlm_vision", "--vlm_name", student.config.vlm_name, "--sam_name", student.config.sam_name]
    words += [
        "--dtype",
        "fp32",
        "--no_quantization",
        "--data_dir",
        str(tmp_path),
        "--epochs",
        "1",
        "--lr",
        "1e-12",
    ]
    words += ["--init_from", str(whole[0]), "--train_mask_decoder"]
    words += [text for name, place in places.items() for text in (f"--{name}", f"{place}-again")]
    train(parse(words))  # no --bridge: that of the checkpoint
    saved = load_checkpoint(Path(f"{tmp_path / 'out'}-again") / "checkpoint_epoch_1.pt")
    assert saved["config"]["bridge"] == student.config.bridge == "pyramid" != ModelConfig.bridge
    other = student.config.replaced(bridge="linear")
    with pytest.raises(CheckpointError, match="do not fit this model"):
        train(TrainingConfig(model=other, data_dir=str(tmp_path), **options, **places))
