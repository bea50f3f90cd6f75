"""The same bytes as Pillow's filters, row pass first, whatever computes them."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from modified_lisa.images import resize_image
from modified_lisa.resize import _table, _taps, resize_like_pillow

SIDES = st.integers(1, 90)


@given(
    SIDES, SIDES, SIDES, SIDES, st.sampled_from(["bilinear", "bicubic"]), st.booleans(), st.integers(0, 99)
)
def test_it_gives_the_bytes_of_pillow(height, width, new_height, new_width, interpolation, extreme, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    if extreme:  # overshoots and is clipped, between the passes too
        image = np.where(image > 127, 255, 0).astype(np.uint8)
    ours = resize_like_pillow(torch.from_numpy(image), new_height, new_width, interpolation)
    np.testing.assert_array_equal(ours.numpy(), resize_image(image, new_height, new_width, interpolation))


@given(old=SIDES, new=SIDES, interpolation=st.sampled_from(["bilinear", "bicubic"]))
def test_the_taps_of_a_pixel_hold_all_of_its_shares(old, new, interpolation):
    """What the kernels on a GPU sum, in 32 bits, is what the products of matrices sum."""
    firsts, shares = (
        part.numpy().astype(np.int64) for part in _taps(old, new, interpolation, torch.device("cpu"))
    )
    table = np.zeros((new, old), np.int64)
    for row, (first, share) in enumerate(zip(firsts, shares, strict=True)):
        assert not share[old - first :].any()
        table[row, first : first + len(share)] = share[: old - first]
    exact = np.eye(old) * 2**22 if old == new else _table(old, new, interpolation)
    assert (table == exact).all()
    assert 255 * np.abs(shares).sum(axis=1).max() + 2**21 < 2**31
