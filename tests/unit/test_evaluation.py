"""Evaluation: records, exact sums, order, refusals."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from fake_lisa import FakeLISA, FakeSet, NanLISA
from modified_lisa.config import LossWeights
from modified_lisa.data.sample import Sample
from modified_lisa.errors import ConfigError, DataError, TrainingError
from modified_lisa.evaluation import TERMS, evaluate
from modified_lisa.inference.segmenter import Segmenter
from modified_lisa.metrics import SegmentationMetrics
from modified_lisa.scoring.boundary import boundary_score


def test_metrics_are_those_of_the_masks_at_the_users_resolution() -> None:
    model, samples = FakeLISA(), FakeSet(5, "val")
    result = evaluate(model, samples, batch_size=2)
    metrics = SegmentationMetrics()
    with torch.no_grad():
        for index in range(5):
            sample = samples[index]
            inputs = model.processor([sample.image], [sample.text])
            mask = inputs.frames[0].mask_to_image(model(inputs)["pred_masks"][0])[0] > 0
            metrics.update(mask, sample.target)
    assert result.metrics == metrics.compute()
    assert [record["name"] for record in result.records] == samples.names
    assert [record["iou"] for record in result.records] == [score.iou for score in metrics.scores]


@pytest.mark.parametrize(
    "options", [{"batch_size": 1}, {"batch_size": 5}, {"batch_size": 2, "num_workers": 1}]
)
def test_batches_and_workers_change_nothing(options: dict[str, Any]) -> None:
    model, samples = FakeLISA(), FakeSet(5, "val")
    one, other = evaluate(model, samples, batch_size=3), evaluate(model, samples, **options)
    assert one.metrics == other.metrics
    assert one.losses == pytest.approx(other.losses, rel=1e-5)


def test_losses_are_means_with_the_given_weights() -> None:
    result = evaluate(FakeLISA(), FakeSet(4), loss_weights=LossWeights(bce=2, dice=0, iou=1))
    assert set(result.losses) == set(TERMS)
    assert result.losses["loss"] == pytest.approx(
        2 * result.losses["bce"] + result.losses["iou_loss"], rel=1e-5
    )
    bce = [record["losses"]["bce"] for record in result.records]
    assert result.losses["bce"] == pytest.approx(sum(bce) / 4)


def test_the_model_is_evaluated_without_dropout_and_left_as_it_was() -> None:
    model = FakeLISA(dropout=0.9).train()
    one = evaluate(model, FakeSet(3))
    assert model.training
    assert evaluate(model, FakeSet(3)).losses == one.losses
    assert all(parameter.grad is None for parameter in model.parameters())


def test_progress_counts_every_sample() -> None:
    seen: list[int] = []
    evaluate(FakeLISA(), FakeSet(5), batch_size=2, progress=seen.append)
    assert seen == [2, 2, 1]


def test_nothing_to_evaluate() -> None:
    with pytest.raises(DataError, match="empty"):
        evaluate(FakeLISA(), FakeSet(0))


def test_nan_is_named() -> None:
    model = NanLISA(FakeSet(4)[1].target.shape)
    with pytest.raises(TrainingError, match="image_1#0"):
        evaluate(model, FakeSet(4))


def test_to_dict_is_plain_json() -> None:
    import json

    values = evaluate(FakeLISA(), FakeSet(2)).to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["samples"] == 2
    for name, value in values["metrics"].items():
        assert values["estimates"][name]["value"] == value


def test_records_say_what_was_asked_and_what_came_out() -> None:
    class Grouped(FakeSet):
        def __getitem__(self, index: int) -> Sample:
            groups = {"type": "use", "length": "long"} if index else {}
            return dataclasses.replace(super().__getitem__(index), groups=groups)

    samples = Grouped(2)
    first, second = evaluate(FakeLISA(), samples, batch_size=2).records
    assert (first["type"], first["is_sentence"], first["groups"]) == (None, None, {})
    assert (second["type"], second["is_sentence"]) == ("use", True)
    target = samples[0].target
    mask = Segmenter(FakeLISA()).segment(samples[0].image, samples[0].text).mask
    assert first["boundary_iou"] == boundary_score(mask, target).iou
    assert first["target_area"] == (target == 1).sum()
    assert first["predicted_area"] == (mask & (target != 255)).sum()
    assert first["target_area"] + first["predicted_area"] == first["intersection"] + first["union"]


@pytest.mark.parametrize("found", [True, False])
def test_samples_without_a_target(found: bool) -> None:
    class Nothing(FakeSet):
        def __getitem__(self, index: int) -> Sample:
            sample = super().__getitem__(index)
            if index == 0:
                sample.target[sample.target == 1] = 0  # 255 stays
            return sample

    model = FakeLISA()
    model.bias.data.fill_(1000.0 if found else -1000.0)
    result = evaluate(model, Nothing(3))
    assert [record["target_empty"] for record in result.records] == [True, False, False]
    assert [record["predicted_empty"] for record in result.records] == [not found] * 3
    rates = [result.summary["estimates"][name]["value"] for name in ("N_acc", "T_acc")]
    assert rates == ([0.0, 1.0] if found else [1.0, 0.0])
    # The gIoU of the GRES paper: an empty answer to an empty target is a full hit, any other a miss.
    assert result.records[0]["iou"] == (0.0 if found else 1.0)
    assert set(result.to_dict()["groups"]["target"]) == {"absent", "present"}
    assert all(np.isfinite(value) for value in result.losses.values())


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_holds_a_sample(batch_size):
    with pytest.raises(ConfigError, match=f"batch_size is {batch_size}"):
        evaluate(FakeLISA(), FakeSet(2), batch_size=batch_size)
