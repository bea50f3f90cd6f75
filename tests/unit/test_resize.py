"""The same bytes as Pillow's filters, row pass first, whatever computes them."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from modified_lisa.images import resize_image
from modified_lisa.resize import resize_like_pillow

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
