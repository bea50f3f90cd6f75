"""One optimizer step: equal gradients however it is cut, and refusals that leave the weights alone."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import nn

from fake_lisa import FakeLISA, FakeSet, NanLISA
from modified_lisa.config import LossWeights, ModelConfig, TrainingConfig
from modified_lisa.data.collate import Collator, load_batches
from modified_lisa.errors import ConfigError, TrainingError
from modified_lisa.evaluation import TERMS, score_batch
from modified_lisa.losses import balanced_weights, segmentation_loss
from modified_lisa.metrics import SegmentationMetrics
from modified_lisa.training.step import Stepper, StepResult, balance_strength, learning_rate


def _step(
    model: Any, cuts: list[list[int]], /, **options: Any
) -> tuple[Stepper, StepResult, SegmentationMetrics]:
    stepper = Stepper(model, TrainingConfig(**options), Accelerator(cpu=True))
    metrics = SegmentationMetrics()
    batches = load_batches(FakeSet(10), cuts, Collator(model.processor))
    result = stepper.step(batches, sum(map(len, cuts)), 0.1, metrics)
    return stepper, result, metrics


@pytest.mark.parametrize("cuts", [[[0, 1], [2, 3]], [[0], [1], [2], [3]], [[3, 2, 1], [0]]])
def test_accumulation_equals_one_batch(cuts: list[list[int]]) -> None:
    whole, parts = FakeLISA(), FakeLISA()
    _, expected, one = _step(whole, [[0, 1, 2, 3]], grad_clip=0)
    _, result, other = _step(parts, cuts, grad_clip=0)
    for (name, p), q in zip(whole.named_parameters(), parts.parameters(), strict=True):
        if p.requires_grad:
            torch.testing.assert_close(p.grad, q.grad, rtol=1e-5, atol=1e-7, msg=name)
            assert p.grad.abs().sum() > 0
    assert result.sums == pytest.approx(expected.sums, rel=1e-5)
    assert one.compute() == other.compute()


def test_gradient_is_that_of_the_mean_loss_plus_the_iou_prediction() -> None:
    model = FakeLISA()
    _step(model, [[0, 1], [2]], grad_clip=0)
    other = FakeLISA()
    (batch,) = load_batches(FakeSet(10), [[0, 1, 2]], Collator(other.processor))
    outputs = other(batch.inputs)
    losses = segmentation_loss(torch.cat(outputs["pred_masks"]), batch.grid_target, batch.grid_valid)
    losses["loss"].mean().backward()
    torch.testing.assert_close(model.filter.grad, other.filter.grad, rtol=1e-4, atol=1e-7)
    assert other.iou.grad is None
    assert model.iou.grad.abs().sum() > 0


def test_small_targets_count_for_more_where_they_are_asked_to() -> None:
    model, other = FakeLISA(), FakeLISA()
    stepper = Stepper(model, TrainingConfig(grad_clip=0), Accelerator(cpu=True))
    collator = Collator(model.processor)
    stepper.step(load_batches(FakeSet(10), [[0, 1]], collator), 2, 0.1, SegmentationMetrics(), balance=0.5)
    (batch,) = load_batches(FakeSet(10), [[0, 1]], collator)
    weights = balanced_weights(batch.grid_target, batch.grid_valid, 0.5)
    assert not torch.equal(weights, batch.grid_valid)
    logits = torch.cat(other(batch.inputs)["pred_masks"])
    segmentation_loss(logits, batch.grid_target, weights)["loss"].mean().backward()
    torch.testing.assert_close(model.filter.grad, other.filter.grad, rtol=1e-4, atol=1e-7)


def test_the_balance_falls_in_a_line_to_nothing() -> None:
    assert [balance_strength(0.5, done) for done in (0, 0.25, 0.5, 0.9)] == [1, 0.5, 0, 0]
    assert balance_strength(0.0, 0.0) == 0
    with pytest.raises(ConfigError, match=r"--balance is 1\.5; it is a share"):
        TrainingConfig(balance=1.5)


def test_reported_loss_is_the_weighted_sum_without_the_iou_prediction() -> None:
    model = FakeLISA()
    (batch,) = load_batches(FakeSet(10), [[0, 1, 2]], Collator(model.processor))
    scores = score_batch(model, batch, LossWeights(bce=2, dice=0.5, iou=3))
    assert set(scores.losses) == set(TERMS)
    expected = 2 * scores.losses["bce"] + 0.5 * scores.losses["dice"] + 3 * scores.losses["iou_loss"]
    torch.testing.assert_close(scores.losses["loss"], expected)
    measured = torch.tensor([mask.iou for mask in scores.metrics.scores])
    torch.testing.assert_close(scores.losses["iou_prediction"], (scores.iou_predictions - measured) ** 2)


def test_nan_names_the_sample_and_leaves_the_weights() -> None:
    size = FakeSet(10)[2].target.shape
    model = NanLISA(size)
    before = model.trainable_state_dict()
    with pytest.raises(TrainingError, match=r"train/image_2#0 \(loss nan, bce nan") as caught:
        _step(model, [[0, 1], [2, 3]])
    assert "image_3" not in str(caught.value)
    for name, value in model.trainable_state_dict().items():
        assert torch.equal(value, before[name])


class _Explodes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return grad * math.inf


class ExplodingLISA(FakeLISA):
    """Finite losses, a gradient that is not."""

    def forward(self, inputs: Any) -> Any:
        outputs = super().forward(inputs)
        return {**outputs, "pred_masks": [_Explodes.apply(mask) for mask in outputs["pred_masks"]]}


def test_infinite_gradient_is_refused() -> None:
    model = ExplodingLISA()
    before = model.trainable_state_dict()
    with pytest.raises(TrainingError, match=r"gradient of this step is not finite \(train/image_0#0\)"):
        _step(model, [[0]])
    assert all(torch.equal(value, before[name]) for name, value in model.trainable_state_dict().items())


def test_fp16_overflow_skips_the_step_and_gives_up_in_the_end() -> None:
    model = ExplodingLISA()
    before = model.trainable_state_dict()
    stepper, result, _ = _step(model, [[0]], model=ModelConfig(dtype="fp16"))
    assert result.skipped
    assert all(torch.equal(value, before[name]) for name, value in model.trainable_state_dict().items())

    def go_on() -> None:
        for _ in range(40):
            loaded = load_batches(FakeSet(10), [[0]], Collator(model.processor))
            stepper.step(loaded, 1, 0.1, SegmentationMetrics())

    with pytest.raises(TrainingError, match="does not fit into fp16"):
        go_on()


def test_fp16_scaling_does_not_change_the_step() -> None:
    plain, scaled = FakeLISA(), FakeLISA()
    _step(plain, [[0, 1]])
    _, result, _ = _step(scaled, [[0, 1]], model=ModelConfig(dtype="fp16"))
    assert not result.skipped
    for p, q in zip(plain.parameters(), scaled.parameters(), strict=True):
        torch.testing.assert_close(p, q)


def test_clipping_and_decay_groups() -> None:
    model = FakeLISA()
    stepper, result, _ = _step(model, [[0, 1]], grad_clip=1e-3, weight_decay=0.5)
    grads = torch.cat([p.grad.flatten() for p in stepper.parameters if p.grad is not None])
    assert float(grads.norm()) == pytest.approx(1e-3, rel=1e-3)
    assert result.norm > 1e-3
    decay = {
        id(p): group["weight_decay"] for group in stepper.optimizer.param_groups for p in group["params"]
    }
    assert decay == {id(model.filter): 0.5, id(model.bias): 0.0, id(model.iou): 0.0}


def test_model_without_anything_to_train() -> None:
    with pytest.raises(TrainingError, match="no weight"):
        Stepper(nn.Linear(1, 1).requires_grad_(False), TrainingConfig(), Accelerator(cpu=True))


def test_learning_rate() -> None:
    rates = [learning_rate(2.0, step, warmup=4, total=12) for step in range(12)]
    assert rates[:5] == [0.5, 1.0, 1.5, 2.0, 2.0]
    assert rates[8] == pytest.approx(1.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.1
    assert learning_rate(2.0, 0, warmup=0, total=1) == 2.0
    assert learning_rate(2.0, 9, warmup=100, total=10) == pytest.approx(0.2)


def test_a_sample_without_a_target_teaches_the_empty_mask() -> None:
    samples = FakeSet(2)
    real = samples[0]
    nothing = dataclasses.replace(real, target=np.zeros_like(real.target))
    batch = Collator(FakeLISA().processor)([nothing])
    model = FakeLISA()
    scores = score_batch(model, batch, LossWeights())
    scores.check_finite(batch.names)
    assert all(float(scores.losses[term].detach()) >= 0 for term in TERMS)
    scores.losses["loss"].sum().backward()
    assert any(p.grad is not None and bool(p.grad.abs().sum() > 0) for p in model.parameters())
    [mask] = scores.metrics.scores
    assert mask.intersection == 0
    assert mask.iou == float(mask.union == 0)
