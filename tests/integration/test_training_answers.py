"""Training in answer mode as a user runs it: files, the ce column, resuming, and a chat with what came out."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import factory
from modified_lisa import Segmenter
from modified_lisa.apps import cli
from modified_lisa.data.scenes import generate


@pytest.fixture
def command(tmp_path: Path) -> list[str]:
    generate(tmp_path / "scenes", train=3, val=2, test=1, workers=1, seed=0, no_target_share=0.4)
    vlm, sam = factory.folders()
    return [
        *("train", "--vlm_name", vlm, "--sam_name", sam, "--use_vlm_vision", "--no_quantization"),
        *(
            "--dtype",
            "fp32",
            "--data_dir",
            str(tmp_path / "scenes"),
            "--ce_weight",
            "0.5",
            "--batch_size",
            "2",
        ),
        *("--max_train_samples", "4", "--warmup_steps", "1", "--no_target_answer", "Not here."),
        *("--output_dir", str(tmp_path / "out"), "--checkpoint_dir", str(tmp_path / "ck")),
    ]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model_state_dict"]


def test_a_run_its_resumption_and_its_model(command: list[str], tmp_path: Path, capsys: Any) -> None:
    assert cli.main([*command, "--epochs", "2"]) == 0
    record = json.loads((tmp_path / "out" / "metrics_epoch_2.json").read_text(encoding="utf-8"))
    train = record["train"]
    assert train["ce"] > 0
    masks = train["bce"] + train["dice"] + train["iou_loss"]
    assert train["loss"] == pytest.approx(masks + 0.5 * train["ce"], rel=1e-4)
    assert "val_ce" not in record["val"]
    whole = weights(tmp_path / "ck" / "checkpoint_epoch_2.pt")
    assert "answer_head.column.row" in whole
    assert not any("lm_head" in name for name in whole)
    # Questions and answers are drawn by the epoch, so that a resumed run is the same run.
    assert (
        cli.main([*command, "--epochs", "2", "--resume", str(tmp_path / "ck" / "checkpoint_epoch_1.pt")]) == 0
    )
    resumed = weights(tmp_path / "ck" / "checkpoint_epoch_2.pt")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    segmenter = Segmenter.from_pretrained(tmp_path / "ck" / "checkpoint_epoch_2.pt", device="cpu")
    answer = segmenter.answer(factory.picture(), "all that is not round", max_new_tokens=4)
    assert len(answer.masks) == answer.text.count("<SEG>")


def test_a_broken_file_of_explanations_is_found_before_the_model_loads(
    command: list[str], tmp_path: Path, capsys: Any
) -> None:
    path = tmp_path / "scenes" / "explanatory" / "train.json"
    path.parent.mkdir()
    path.write_text("[1]", encoding="utf-8")
    assert cli.main(command) == 2
    assert "entry 1" in capsys.readouterr().err
