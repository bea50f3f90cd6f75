"""The generated protocol: records, N-acc and T-acc, the rate of <SEG>, files, refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from factory import picture, tiny_model
from modified_lisa.apps import cli
from modified_lisa.data.sample import Sample
from modified_lisa.data.scenes import generate
from modified_lisa.errors import ConfigError
from modified_lisa.evaluation import evaluate_checkpoint, evaluate_protocols, result_of
from modified_lisa.model.answers.prompting import answer_inputs
from modified_lisa.protocols.generated import measure_answers
from modified_lisa.scoring.calibration import calibration


class Samples:
    """Two queries with a target, one without."""

    names = ("val/a#0", "val/b#0", "val/c#0")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> Sample:
        target = np.zeros((60, 80), np.uint8)
        if index < 2:
            target[10:30, 20:50] = 1
        return Sample(self.names[index], picture(seed=index), f"query {index}", target)


def speaking(**options: Any) -> Any:
    return tiny_model(answers=True, **options)


def scripted(model: Any, answers: list[str]) -> Any:
    """Make the model say these answers, one after another."""
    say, said = model.generate, iter(answers)
    tokenizer = model.processor.tokenizer

    def generate(inputs: Any, **options: Any) -> Any:
        rows = [
            [*tokenizer.encode(next(said), add_special_tokens=False), tokenizer.eos_token_id]
            for _ in inputs.frames
        ]
        return say(
            inputs,
            prefix_allowed_tokens_fn=lambda row, read: [rows[row][min(len(read), len(rows[row]) - 1)]],
            **options,
        )

    model.generate = generate
    return model


@pytest.mark.parametrize("batch_size", [1, 3])
def test_records_of_what_was_written(batch_size: int) -> None:
    model = scripted(speaking(), ["It is <SEG>.", "all round", "all round"])
    records = measure_answers(model, Samples(), batch_size=batch_size)  # type: ignore[arg-type]
    assert [record["name"] for record in records] == list(Samples.names)
    assert [record["answer"] for record in records] == ["It is <SEG>.", "all round", "all round"]
    assert [record["seg_emitted"] for record in records] == [True, False, False]
    assert [record["masks"] for record in records] == [1, 0, 0]
    assert all(record["complete"] for record in records)
    assert records[1]["predicted_area"] == 0
    assert records[1]["iou"] == 0
    assert records[1]["iou_prediction"] is None
    assert records[2]["iou"] == 1
    found = result_of(records).summary["estimates"]
    assert found["SEG_rate"]["value"] == pytest.approx(1 / 3)
    assert found["N_acc"]["value"] == 1
    assert found["T_acc"]["value"] == (0.5 if records[0]["predicted_area"] else 0)


def test_the_union_of_several_masks_counts() -> None:
    model = scripted(speaking(), ["<SEG> and <SEG>"] * 6)
    areas = []
    for index in range(3):
        sample = Samples()[index]
        inputs = answer_inputs(model.processor, [sample.image], [sample.text])
        (logits,) = model.generate(inputs).pred_masks
        assert len(logits) == 2
        areas.append(int((inputs.frames[0].mask_to_image(logits) > 0).any(dim=0).sum()))
    records = measure_answers(model, Samples())  # type: ignore[arg-type]
    assert [record["predicted_area"] for record in records] == areas
    assert [record["masks"] for record in records] == [2, 2, 2]


def test_no_prediction_at_all_can_be_summed_up() -> None:
    records = measure_answers(scripted(speaking(), ["x"] * 3), Samples())  # type: ignore[arg-type]
    assert calibration(records) == {"ECE": None, "bias": None, "correlation": None, "bins": []}
    json.dumps(result_of(records).to_dict(), allow_nan=False)


def test_both_protocols_from_the_command_line(tmp_path: Path, capsys: Any) -> None:
    generate(tmp_path / "scenes", train=1, val=3, test=1, workers=1, seed=0)
    model = speaking()
    with torch.no_grad():
        model.answer_head.column.row.mul_(20)
    checkpoint = str(model.save_pretrained(tmp_path / "model"))
    options = [
        "--data_dir",
        str(tmp_path / "scenes"),
        "--output_dir",
        str(tmp_path / "out"),
        "--device",
        "cpu",
    ]
    options += ["--max_new_tokens", "6", "--per_sample", str(tmp_path / "each.jsonl"), "--batch_size", "2"]
    assert cli.main(["evaluate", checkpoint, "--protocol", "both", *options]) == 0
    out = capsys.readouterr().out
    assert "side by side:" in out
    (row,) = [line.split() for line in out.splitlines() if line.startswith("  SEG_rate") and "–" in line]
    assert row[1] == "–"
    assert 0 <= float(row[2]) <= 1
    for name in ("report_val.html", "report_val_generated.html", "results_val_generated.jsonl"):
        assert (tmp_path / "out" / name).stat().st_size > 0
    page = (tmp_path / "out" / "report_val_generated.html").read_text(encoding="utf-8")
    assert "SEG rate" in page
    assert "The losses" not in page
    assert len((tmp_path / "each_generated.jsonl").read_text(encoding="utf-8").splitlines()) == 3
    assert "answer" not in json.loads((tmp_path / "each.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert cli.main(["merge-results", str(tmp_path / "out" / "results_val_generated.jsonl")]) == 0


def test_refusals(tmp_path: Path) -> None:
    generate(tmp_path / "scenes", train=1, val=1, test=1, workers=1, seed=0)
    checkpoint = tiny_model().save_pretrained(tmp_path / "model")
    options: dict[str, Any] = {"data_dir": tmp_path / "scenes", "device": "cpu", "progress": False}
    with pytest.raises(ConfigError, match="not trained to answer"):
        evaluate_checkpoint(checkpoint, protocol="generated", **options)
    with pytest.raises(ConfigError, match="teacher_forced, generated"):
        evaluate_checkpoint(checkpoint, protocol="no", **options)
    with pytest.raises(ConfigError, match="max_new_tokens"):
        evaluate_protocols(checkpoint, max_new_tokens=0, **options)
    with pytest.raises(ConfigError, match="add --protocol generated"):
        evaluate_protocols(checkpoint, max_new_tokens=5, **options)
