"""Frame: the user's image, the model's square, and back."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from modified_lisa.errors import ImageError
from modified_lisa.geometry import Frame

SIDES = st.integers(1, 900)
PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


@given(SIDES, SIDES, st.sampled_from([256, 336, 1024]))
def test_content_fills_the_longest_side_and_never_leaves_the_square(
    height: int, width: int, side: int
) -> None:
    h, w = Frame(height, width).content(side)
    assert max(h, w) == side
    assert min(h, w) >= 1
    # Each side is within half a pixel of its exact scaling, except that nothing vanishes.
    scale = side / max(height, width)
    assert abs(h - height * scale) <= max(0.5, 1 - height * scale)
    assert abs(w - width * scale) <= max(0.5, 1 - width * scale)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (640, 480), (37, 1000), (336, 336), (20, 30)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_square_agrees_with_pil_and_is_padded_with_the_mean(
    height: int, width: int, interpolation: str
) -> None:
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (9, 12, 3), dtype=np.uint8))
    image = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
    frame = Frame(height, width)
    square = frame.to_square(image, 336, **PLAIN, interpolation=interpolation)
    h, w = frame.content(336)
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    expected = np.asarray(Image.fromarray(image).resize((w, h), filters[interpolation])).astype(np.float32)
    assert np.abs(square[:, :h, :w].permute(1, 2, 0).numpy() * 255 - expected).max() < 0.01
    assert square[:, h:].abs().sum() == 0
    assert square[:, :, w:].abs().sum() == 0


def test_normalising_comes_before_padding() -> None:
    frame = Frame(2, 4)
    white = np.full((2, 4, 3), 255, dtype=np.uint8)
    square = frame.to_square(white, 4, mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    assert torch.allclose(square[:, 0, 0], torch.tensor([2.0, 1.0, 0.5]))
    assert square[:, 2:].abs().sum() == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.integers(0, 10_000))
def test_mask_of_a_box_survives_the_way_to_the_grid_and_back(height: int, width: int, seed: int) -> None:
    """A box of at least a quarter of each side comes back with most of its area (the grid is 256 wide)."""
    rng = np.random.default_rng(seed)
    y, x = int(rng.integers(0, height // 2)), int(rng.integers(0, width // 2))
    h, w = height // 4 + 1, width // 4 + 1
    target = torch.zeros(height, width, dtype=torch.uint8)
    target[y : y + h, x : x + w] = 1
    frame = Frame(height, width)
    soft, weight = frame.target_to_grid(target)
    back = frame.mask_to_image((soft * weight)[None] - 0.5)[0] > 0
    inside = target.bool()
    # Cells that lie half in the padding lose what a cell can lose: one row and column at each border.
    overlap = (back & inside).sum() / (back | inside).sum()
    assert overlap > 0.5
    assert back[y + h // 2, x + w // 2]


def test_soft_targets_are_area_averages_and_ignore_has_no_weight() -> None:
    target = torch.zeros(1024, 512, dtype=torch.uint8)
    target[0:2, 0:4] = 1  # the upper half of the first cell of 4 x 4 pixels
    target[4:8, 0:4] = 255  # all of the cell below it
    target[8:10, 0:4] = 255  # half of the next one,
    target[10:12, 0:4] = 1  # whose other half is target
    soft, weight = Frame(1024, 512).target_to_grid(target)
    assert soft[0, 0] == 0.5
    assert weight[0, 0] == 1
    assert weight[1, 0] == 0
    assert weight[2, 0] == 0.5
    assert soft[2, 0] == 1.0
    assert weight[:, 128:].sum() == 0, "padding counts for nothing"
    assert weight[:, :128].sum() == 256 * 128 - 1.5


@given(SIDES, SIDES)
@settings(max_examples=20, deadline=None)
def test_full_image_target_has_full_share_everywhere_in_the_content(height: int, width: int) -> None:
    soft, weight = Frame(height, width).target_to_grid(torch.ones(height, width, dtype=torch.uint8))
    assert torch.all((soft == 1) == (weight > 0))
    h, w = Frame(height, width).content(1024)
    assert weight.sum().item() == pytest.approx(h * w / 16, rel=1e-4)


def test_no_masks_and_wrong_shapes() -> None:
    frame = Frame(5, 7)
    assert frame.mask_to_image(torch.zeros(0, 256, 256)).shape == (0, 5, 7)
    with pytest.raises(ImageError, match="side, side"):
        frame.mask_to_image(torch.zeros(1, 256, 255))
    with pytest.raises(ImageError, match="same size"):
        frame.target_to_grid(torch.zeros(7, 5, dtype=torch.uint8))
    with pytest.raises(ImageError, match="expected uint8"):
        frame.to_square(np.zeros((5, 7, 3)), 64, **PLAIN)
    with pytest.raises(ImageError, match="no pixels"):
        Frame(0, 7)
