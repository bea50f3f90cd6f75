import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from modified_lisa.config import LossWeights
from modified_lisa.errors import DataError
from modified_lisa.losses import (
    LARGEST_BALANCE,
    balanced_weights,
    bce_loss,
    dice_loss,
    iou_loss,
    iou_prediction_loss,
    segmentation_loss,
)

LOSSES = [bce_loss, dice_loss, iou_loss]
SEEDS = st.integers(0, 2**31)


def masks(seed, count=3, height=5, width=7, ignored=0.2):
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(count, height, width, generator=generator, dtype=torch.float64)
    target = (torch.rand(count, height, width, generator=generator) < 0.4).to(torch.uint8)
    target[torch.rand(count, height, width, generator=generator) < ignored] = 255
    return logits, target


def test_by_hand():
    # Probabilities 3/4, 1/4, 1/2 and one ignored pixel; labels 1, 0, 1.
    logits = torch.tensor([[[math.log(3), -math.log(3)], [0.0, 50.0]]], dtype=torch.float64)
    target = torch.tensor([[[1, 0], [1, 255]]], dtype=torch.uint8)
    assert bce_loss(logits, target).item() == pytest.approx((2 * -math.log(3 / 4) + math.log(2)) / 3)
    assert dice_loss(logits, target).item() == pytest.approx(1 - (2.5 + 1e-3) / (1.5 + 2 + 1e-3))
    assert iou_loss(logits, target).item() == pytest.approx(1 - (1.25 + 1e-3) / (1.5 + 2 - 1.25 + 1e-3))


def test_soft_target_and_weights_by_hand():
    logits = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
    target = torch.tensor([[0.5, 0.25]], dtype=torch.float64)
    valid = torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    second = -(0.25 * math.log(0.75) + 0.75 * math.log(0.25))
    assert bce_loss(logits, target, valid).item() == pytest.approx((math.log(2) + 0.5 * second) / 1.5)
    both, predicted, expected = 0.25 + 0.5 * 0.1875, 0.5 + 0.5 * 0.75, 0.5 + 0.5 * 0.25
    assert dice_loss(logits, target, valid).item() == pytest.approx(
        1 - (2 * both + 1e-3) / (predicted + expected + 1e-3)
    )
    assert iou_loss(logits, target, valid).item() == pytest.approx(
        1 - (both + 1e-3) / (predicted + expected - both + 1e-3)
    )


def test_dice_is_that_of_the_original():
    logits, target = masks(1, ignored=0)
    p, t = logits.sigmoid().flatten(1), target.double().flatten(1)
    original = 1 - ((2 * (p / 1000 * t)).sum(1) + 1e-6) / ((p / 1000).sum(1) + (t / 1000).sum(1) + 1e-6)
    torch.testing.assert_close(dice_loss(logits, target), original)


def test_bce_is_that_of_torch():
    logits, target = masks(2, ignored=0)
    expected = F.binary_cross_entropy_with_logits(logits, target.double(), reduction="none").mean((1, 2))
    torch.testing.assert_close(bce_loss(logits, target), expected)


@pytest.mark.parametrize("loss", LOSSES)
@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_ignored_pixels_never_matter(loss, seed):
    logits, target = masks(seed)
    ignored = target == 255
    changed = logits.clone()
    changed[ignored] = torch.tensor([math.inf, math.nan, -1e30, 7.0]).double()[
        torch.arange(ignored.sum()) % 4
    ]
    changed.requires_grad_()
    value = loss(changed, target)
    assert torch.equal(value, loss(logits, target))
    value.sum().backward()
    assert (changed.grad[ignored] == 0).all()
    assert changed.grad.isfinite().all()
    # The same pixels taken out by a weight of 0 instead of by the label.
    soft = torch.where(ignored, 9.0, target.double())
    torch.testing.assert_close(loss(logits, soft, (~ignored).double()), value.detach())


@pytest.mark.parametrize("loss", LOSSES)
@given(seed=SEEDS)
@settings(max_examples=25, deadline=None)
def test_bounds_permutation_and_independence(loss, seed):
    logits, target = masks(seed)
    value = loss(logits, target)
    assert value.shape == (3,)
    assert (value >= 0).all()
    if loss is not bce_loss:
        assert (value <= 1).all()
    order = torch.randperm(35, generator=torch.Generator().manual_seed(seed))
    shuffled = loss(logits.flatten(1)[:, order], target.flatten(1)[:, order])
    torch.testing.assert_close(shuffled, value)
    torch.testing.assert_close(
        torch.cat([loss(logits[i : i + 1], target[i : i + 1]) for i in range(3)]), value
    )
    # A logit that moves towards its label can only help.
    better = logits + (2.0 * (target == 1) - 1)
    assert (loss(better, target) <= value + 1e-12).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_an_empty_target_can_be_learned(loss):
    """Whatever is predicted where nothing is right is pushed away, however much or little it is."""
    for start in (2.0, -4.0):
        logits = torch.full((1, 32, 32), start, requires_grad=True)
        value = loss(logits, torch.zeros(1, 32, 32, dtype=torch.uint8))
        (gradient,) = torch.autograd.grad(value.sum(), logits)
        assert 0 < value.item() <= 3
        assert (gradient > 0).all()
        assert float(gradient.sum()) > 1e-3
    blank = torch.full((1, 32, 32), -30.0)
    assert float(loss(blank, torch.zeros(1, 32, 32))) < 1e-6


def test_half_the_loss_where_a_hundredth_is_predicted_of_nothing():
    logits = torch.full((1, 100), -200.0)
    logits[0, 0] = 200.0
    for loss in (dice_loss, iou_loss):
        torch.testing.assert_close(loss(logits, torch.zeros(1, 100)), torch.tensor([0.5]))
    valid = torch.zeros(1, 100)
    torch.testing.assert_close(dice_loss(logits, torch.zeros(1, 100), valid), torch.zeros(1))


@pytest.mark.parametrize("loss", LOSSES)
def test_perfect_wrong_and_empty(loss):
    target = torch.zeros(3, 4, 4, dtype=torch.uint8)
    target[1, :2] = 1
    target[2] = 1
    right = (target.float() * 2 - 1) * 100
    torch.testing.assert_close(loss(right, target), torch.zeros(3), atol=1e-6, rtol=0)
    assert (loss(-right, target) > 0.99).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_no_valid_pixel_gives_zero_and_no_gradient(loss):
    logits = torch.randn(2, 4, 4, requires_grad=True)
    target = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    target[1] = 1
    value = loss(logits, target)
    assert value[0].item() == 0
    assert value[1].item() > 0
    value.sum().backward()
    assert (logits.grad[0] == 0).all()
    assert (logits.grad[1] != 0).any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [1e4, 1e30, 3e38])
def test_huge_logits_stay_finite(loss, size):
    logits = torch.tensor([[size, -size, size, -size] * 64], requires_grad=True)
    target = torch.tensor([[1, 0, 0, 1] * 64])
    value = loss(logits, target)
    value.sum().backward()
    assert value.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_dtypes(loss):
    logits, target = masks(3)
    expected = loss(logits, target)
    assert expected.dtype == torch.float64
    for half in (torch.bfloat16, torch.float16):
        value = loss(logits.to(half), target)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(logits.to(half).float(), target))
    for integer in (torch.int16, torch.int64):
        assert torch.equal(loss(logits, target.to(integer)), expected)
    assert torch.equal(loss(logits, target == 1), loss(logits, (target == 1).long()))
    assert loss(logits[:0], target[:0]).shape == (0,)


@pytest.mark.parametrize("loss", [loss for loss in LOSSES if loss is not bce_loss])
def test_gradient_matches_finite_differences(loss):
    logits, target = masks(4, count=2)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits.requires_grad_())


def test_segmentation_loss_is_the_weighted_sum():
    logits, target = masks(5)
    weights = LossWeights(bce=2.0, dice=0.5, iou=0.25)
    parts = segmentation_loss(logits, target, weights=weights)
    assert list(parts) == ["bce", "dice", "iou_loss", "loss"]
    for name, loss in zip(parts, LOSSES, strict=False):
        assert torch.equal(parts[name], loss(logits, target))
    assert torch.equal(parts["loss"], 2.0 * parts["bce"] + 0.5 * parts["dice"] + 0.25 * parts["iou_loss"])
    default = segmentation_loss(logits, target)
    assert torch.equal(default["loss"], default["bce"] + default["dice"] + default["iou_loss"])


@pytest.mark.parametrize(
    ("logits", "target", "valid", "message"),
    [
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 3), None, r"\(1, 2, 3\).*\(1, 2, 2\)"),
        (torch.zeros(1, 2), torch.zeros(1, 2), torch.ones(1, 3), "valid has shape"),
        (torch.zeros(4), torch.zeros(4), None, "N, H, W"),
        (torch.zeros(1, 0, 4), torch.zeros(1, 0, 4), None, "N, H, W"),
        (torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2), None, "floating point"),
        (torch.zeros(1, 2), torch.tensor([[0, 2]]), None, "label other than 0, 1 and 255"),
        (torch.zeros(1, 2), torch.tensor([[0, -1]]), None, "label other than"),
        (torch.zeros(1, 2), torch.tensor([[0.0, 255.0]]), None, "as integers"),
        (torch.zeros(1, 2), torch.tensor([[0.0, math.nan]]), None, "outside"),
        (torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[1.0, -1.0]]), "negative"),
        (torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[1.0, math.nan]]), "non-finite"),
        (torch.zeros(1, 2), torch.zeros(1, 2).numpy(), None, "torch tensor"),
    ],
)
def test_bad_arguments(logits, target, valid, message):
    for loss in (*LOSSES, segmentation_loss):
        with pytest.raises(DataError, match=message):
            loss(logits, target, valid)


def test_iou_prediction_loss():
    predicted = torch.tensor([0.5, 1.25], requires_grad=True)
    measured = torch.tensor([0.75, 1.0], requires_grad=True)
    value = iou_prediction_loss(predicted, measured)
    assert value.tolist() == [0.0625, 0.0625]
    value.sum().backward()
    assert predicted.grad.tolist() == [-0.5, 0.5]
    assert measured.grad is None
    with pytest.raises(DataError, match="both must be"):
        iou_prediction_loss(torch.zeros(2), torch.zeros(3))
    with pytest.raises(DataError, match="outside"):
        iou_prediction_loss(torch.zeros(2), torch.tensor([0.5, 50.0]))


@given(st.integers(0, 99), st.floats(0, 1))
def test_balanced_weights(seed, strength):
    generator = torch.Generator().manual_seed(seed)
    target = (torch.rand(3, 16, 16, generator=generator) < 0.05).float()
    target[2] = 0
    valid = torch.rand(3, 16, 16, generator=generator).round() * torch.rand(3, 16, 16, generator=generator)
    weights = balanced_weights(target, valid, strength)
    around = target == 0
    torch.testing.assert_close(
        weights[around], valid[around]
    )  # what is ignored stays so, the rest counts as before
    assert bool((weights >= valid).all())
    assert bool((weights <= LARGEST_BALANCE * valid + 1e-6).all())
    torch.testing.assert_close(balanced_weights(target, valid, 0.0), valid)


def test_at_full_strength_a_target_weighs_as_much_as_what_is_around_it():
    target = torch.zeros(1, 10, 10)
    target[0, :2, :5] = 1
    weights = balanced_weights(target, torch.ones(1, 10, 10), 1.0)
    assert float((weights * target).sum()) == pytest.approx(90)
    assert float((weights * (1 - target)).sum()) == pytest.approx(90)
    large = 1 - target  # and a target that fills the image loses nothing
    torch.testing.assert_close(balanced_weights(large, torch.ones(1, 10, 10), 1.0), torch.ones(1, 10, 10))
