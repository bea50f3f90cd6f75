import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from modified_lisa.errors import DataError
from modified_lisa.metrics import MaskScore, SegmentationMetrics

SEEDS = st.integers(0, 2**31)


def random_masks(seed, count=6, ignored=0.15):
    """Pairs (prediction, target) of sizes that differ, some empty."""
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        shape = tuple(generator.integers(1, 9, 2))
        density = generator.choice([0.0, 0.2, 0.7])
        prediction = (generator.random(shape) < density).astype(np.uint8)
        target = (generator.random(shape) < generator.choice([0.0, 0.3, 0.8])).astype(np.uint8)
        target[generator.random(shape) < ignored] = 255
        pairs.append((prediction, target))
    return pairs


def measure(pairs):
    metrics = SegmentationMetrics()
    for prediction, target in pairs:
        metrics.update(prediction, target)
    return metrics


def grid(*rows):
    return np.array([[{"#": 1, ".": 0, "x": 255}[cell] for cell in row] for row in rows], np.uint8)


def test_by_hand():
    metrics = SegmentationMetrics()
    # Boxes 2x2 at (0, 0) and 2x2 at (1, 1): 1 common, 7 together, 9 around.
    first = metrics.update(grid("##..", "##..", "...."), grid("....", ".##.", ".##."))
    assert first == [MaskScore(intersection=1, union=7, giou=1 / 7 - 2 / 9)]
    assert first[0].iou == 1 / 7
    # Two single pixels, two columns between them: 2 pixels in a hull of 4.
    assert metrics.update(grid("#..."), grid("...#")) == [MaskScore(0, 2, -0.5)]
    assert metrics.update(grid("##"), grid("##")) == [MaskScore(2, 2, 1.0)]
    assert metrics.compute() == {
        "mIoU": pytest.approx((1 / 7 + 0 + 1) / 3),
        "cIoU": pytest.approx(3 / 11),
        "gIoU": pytest.approx((1 / 7 - 2 / 9 - 0.5 + 1) / 3),
    }
    assert metrics.count == 3
    assert metrics.scores[1].union == 2


def test_empty_masks():
    nothing, something = grid("...", "..."), grid(".#.", "...")
    assert SegmentationMetrics().update(nothing, nothing) == [MaskScore(0, 0, 1.0)]
    assert SegmentationMetrics().update(nothing, nothing)[0].iou == 1.0
    assert SegmentationMetrics().update(something, nothing) == [MaskScore(0, 1, -1.0)]
    assert SegmentationMetrics().update(nothing, something) == [MaskScore(0, 1, -1.0)]
    assert measure([(nothing, nothing)]).compute() == {"mIoU": 1.0, "cIoU": 1.0, "gIoU": 1.0}


def test_ignored_pixels_belong_to_neither_mask():
    assert SegmentationMetrics().update(grid("###"), grid("#xx")) == [MaskScore(1, 1, 1.0)]
    assert SegmentationMetrics().update(grid("###"), grid("xxx")) == [MaskScore(0, 0, 1.0)]


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_properties(seed):
    pairs = random_masks(seed)
    metrics = measure(pairs)
    result = metrics.compute()
    assert 0 <= result["mIoU"] <= 1
    assert 0 <= result["cIoU"] <= 1
    assert -1 <= result["gIoU"] <= 1
    for score in metrics.scores:
        assert 0 <= score.intersection <= score.union
        assert -1 <= score.giou <= 1
    # What is predicted where the target is ignored never matters.
    flipped = [(np.where(target == 255, 1 - prediction, prediction), target) for prediction, target in pairs]
    assert measure(flipped).scores == metrics.scores
    # A perfect prediction.
    perfect = measure([((target == 1), target) for _, target in pairs])
    assert perfect.compute() == {"mIoU": 1.0, "cIoU": 1.0, "gIoU": 1.0}
    # Symmetric, when nothing is ignored.
    plain = [(prediction, (target == 1).astype(np.uint8)) for prediction, target in pairs]
    assert measure(plain).scores == measure([(target, prediction) for prediction, target in plain]).scores
    # A mirrored or turned image scores the same.
    turned = [(np.rot90(prediction), np.rot90(target)) for prediction, target in pairs]
    assert measure(turned).scores == metrics.scores


@given(seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_order_and_merging_change_nothing(seed):
    pairs = random_masks(seed, count=9)
    whole = measure(pairs).compute()
    order = np.random.default_rng(seed).permutation(9)
    assert measure([pairs[i] for i in order]).compute() == whole
    parts = [measure(pairs[rank::3]) for rank in range(3)]
    sent = [SegmentationMetrics.from_state(json.loads(json.dumps(part.state()))) for part in parts]
    merged = SegmentationMetrics()
    for part in reversed(sent):
        merged.merge(part)
    assert merged.compute() == whole
    assert merged.count == 9
    assert sent[0].count == 3


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_one_more_right_pixel_never_hurts(seed):
    (prediction, target) = random_masks(seed, count=1)[0]
    before = measure([(prediction, target)]).scores[0].iou
    wrong = np.argwhere((target != 255) & (prediction != target))
    for row, column in wrong:
        better = prediction.copy()
        better[row, column] = target[row, column]
        assert measure([(better, target)]).scores[0].iou >= before


def test_ciou_against_torchmetrics():
    from torchmetrics.classification import BinaryJaccardIndex

    oracle, metrics = BinaryJaccardIndex(ignore_index=255), SegmentationMetrics()
    for prediction, target in random_masks(7, count=20):
        metrics.update(prediction, target)
        oracle.update(torch.from_numpy(prediction).long(), torch.from_numpy(target).long())
    assert metrics.compute()["cIoU"] == pytest.approx(oracle.compute().item(), abs=1e-6)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_any_kind_of_input_is_the_same(dtype):
    generator = np.random.default_rng(0)
    prediction = (generator.random((3, 6, 5)) < 0.5).astype(dtype)
    target = generator.choice([0, 1, 255], (3, 6, 5)).astype(np.uint8)
    together = SegmentationMetrics().update(prediction, target)
    assert len(together) == 3
    tensors = SegmentationMetrics().update(torch.from_numpy(prediction), torch.from_numpy(target).long())
    assert tensors == together
    single = [
        SegmentationMetrics().update(p, torch.from_numpy(t))[0]
        for p, t in zip(prediction, target, strict=True)
    ]
    assert single == together
    assert SegmentationMetrics().update(prediction[:0], target[:0]) == []


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint8), "threshold it first"),
        (torch.zeros(2, 2, dtype=torch.bfloat16), np.zeros((2, 2), np.uint8), "threshold it first"),
        (np.full((2, 2), 255, np.uint8), np.zeros((2, 2), np.uint8), "prediction holds 255"),
        (np.full((2, 2), -1), np.zeros((2, 2), np.uint8), "prediction holds -1"),
        (np.zeros((2, 2), bool), np.full((2, 2), 2), "target holds 2; only 0, 1, 255"),
        (np.zeros((2, 2), bool), np.zeros((2, 2)), "uint8 labels"),
        (np.zeros((2, 2), bool), np.zeros((2, 3), np.uint8), "must be equal"),
        (np.zeros((2, 2), bool), np.zeros((1, 2, 2), np.uint8), "must be equal"),
        (np.zeros((4,), bool), np.zeros((4,), np.uint8), r"\(H, W\) or \(N, H, W\)"),
        (np.zeros((0, 4), bool), np.zeros((0, 4), np.uint8), "with pixels"),
        ([[0, 1]], np.zeros((1, 2), np.uint8), "list"),
    ],
)
def test_bad_masks_are_refused_and_add_nothing(prediction, target, message):
    metrics = SegmentationMetrics()
    with pytest.raises(DataError, match=message):
        metrics.update(prediction, target)
    assert metrics.count == 0


def test_other_errors():
    with pytest.raises(DataError, match="no mask"):
        SegmentationMetrics().compute()
    with pytest.raises(DataError, match="merge"):
        SegmentationMetrics().merge({"mIoU": 1.0})
    with pytest.raises(DataError, match="not the state"):
        SegmentationMetrics.from_state({"union": [1]})
    with pytest.raises(DataError, match="not the state"):
        SegmentationMetrics.from_state({"union": [1], "intersection": [1, 2], "giou": [0.0]})
    for both, either in ((3, 2), (-1, 2), (1, float("inf"))):
        with pytest.raises(DataError, match="not the state"):
            SegmentationMetrics.from_state({"union": [either], "intersection": [both], "giou": [0.0]})


def test_pickles():
    metrics = measure(random_masks(1))
    assert pickle.loads(pickle.dumps(metrics)).compute() == metrics.compute()
