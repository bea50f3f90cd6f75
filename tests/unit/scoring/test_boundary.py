"""Boundary IoU: hand cases, the paper's own erosion, brute force over pixels, ignored regions."""

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from modified_lisa.errors import DataError
from modified_lisa.scoring.boundary import BoundaryScore, boundary_band, boundary_score


def brute_force(mask: np.ndarray, ignored: np.ndarray, reach: int) -> np.ndarray:
    """The definition, pixel by pixel."""
    height, width = mask.shape
    band = np.zeros_like(mask)
    for row, column in np.argwhere(mask):
        for y in range(row - reach, row + reach + 1):
            for x in range(column - reach, column + reach + 1):
                outside = not (0 <= y < height and 0 <= x < width)
                if outside or not (mask[y, x] or ignored[y, x]):
                    band[row, column] = True
    return band


def papers_band(mask: np.ndarray, ratio: float) -> np.ndarray:
    """``mask_to_boundary`` of the paper's code."""
    height, width = mask.shape
    dilation = max(1, round(ratio * math.hypot(height, width)))
    padded = cv2.copyMakeBorder(mask.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=dilation)
    return (mask - eroded[1 : height + 1, 1 : width + 1]).astype(bool)


def random_mask(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Blobs rather than noise, so that masks have an inside."""
    coarse = rng.random((rng.integers(1, 5), rng.integers(1, 5))) < 0.5
    return cv2.resize(coarse.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST).astype(bool)


def test_a_square_by_hand() -> None:
    target = np.zeros((60, 80), np.uint8)  # diagonal 100, so d = 2
    target[10:20, 10:20] = 1
    prediction = np.zeros((60, 80), bool)
    prediction[10:20, 12:22] = True
    # Bands: 100 - 6 * 6 = 64 pixels each. Common: rows 10, 11, 18, 19 over columns 12..19 = 32; in the six
    # rows between, columns 12, 13 of one band lie in the inside of the other, and so do 18, 19.
    assert boundary_score(prediction, target) == BoundaryScore(32, 64 + 64 - 32)
    assert boundary_score(target == 1, target) == BoundaryScore(64, 64)


def test_the_border_of_the_image_is_an_outline() -> None:
    full = np.ones((60, 80), bool)
    assert boundary_band(full, np.zeros_like(full), 2).sum() == 60 * 80 - 56 * 76


def test_empty_masks() -> None:
    nothing, something = np.zeros((9, 9), np.uint8), np.eye(9, dtype=np.uint8)
    assert boundary_score(nothing == 1, nothing).iou == 1.0
    assert boundary_score(something == 1, nothing).iou == 0.0
    assert boundary_score(nothing == 1, something).iou == 0.0


def test_a_shifted_large_mask_loses_more_at_its_boundary() -> None:
    target = np.zeros((300, 400), np.uint8)
    target[50:250, 50:350] = 1
    prediction = np.roll(target == 1, 6, axis=1)
    both = np.count_nonzero(prediction & (target == 1)) / np.count_nonzero(prediction | (target == 1))
    assert both > 0.95
    assert boundary_score(prediction, target).iou < 0.7


def test_ignored_pixels_make_no_outline() -> None:
    target = np.zeros((60, 80), np.uint8)
    target[10:40, 10:40] = 1
    plain = boundary_score(target == 1, target)
    target[20:30, 20:30] = 255
    prediction = np.zeros((60, 80), bool)
    prediction[10:40, 10:40] = True
    assert boundary_score(prediction, target) == plain
    prediction[20:30, 20:30] = False  # what is predicted there does not matter
    assert boundary_score(prediction, target) == plain


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30), st.sampled_from([0.02, 0.05, 0.2]))
def test_agrees_with_the_papers_code(seed: int, height: int, width: int, ratio: float) -> None:
    rng = np.random.default_rng(seed)
    one, other = random_mask(rng, height, width), random_mask(rng, height, width)
    bands = papers_band(one, ratio), papers_band(other, ratio)
    score = boundary_score(one, other.astype(np.uint8), ratio)
    assert score == ((bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum())


@given(st.integers(0, 10**6), st.integers(1, 4))
def test_agrees_with_the_definition(seed: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    mask = random_mask(rng, 12, 14)
    ignored = (rng.random(mask.shape) < 0.1) & ~mask
    np.testing.assert_array_equal(boundary_band(mask, ignored, reach), brute_force(mask, ignored, reach))


@given(st.integers(0, 10**6))
def test_cutting_a_window_out_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    target = np.zeros((40, 50), np.uint8)
    target[10:25, 20:30] = random_mask(rng, 15, 10)
    target[rng.random(target.shape) < 0.05] = 255
    prediction = np.zeros((40, 50), bool)
    prediction[12:28, 18:33] = random_mask(rng, 16, 15)
    ignored = target == 255
    bands = [boundary_band(mask, ignored, 3) for mask in (prediction & ~ignored, target == 1)]
    score = boundary_score(prediction, target, 3 / math.hypot(40, 50))
    assert score == ((bands[0] & bands[1]).sum(), (bands[0] | bands[1]).sum())


def test_refuses_what_is_no_mask() -> None:
    with pytest.raises(DataError, match="bool"):
        boundary_score(np.zeros((3, 3)), np.zeros((3, 3), np.uint8))
    with pytest.raises(DataError, match="same shape"):
        boundary_score(np.zeros((3, 3), bool), np.zeros((3, 4), np.uint8))
