"""Masks come to the host in memory of their own, whatever their number and size."""

import numpy as np
import pytest
import torch

from modified_lisa.geometry import Frame
from modified_lisa.inference import fetching
from modified_lisa.inference.fetching import fetch_masks

FRAMES = [Frame(40, 90), Frame(40, 90), Frame(70, 30)]
COUNTS = [1, 0, 3]


def given(frames: list[Frame]):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(sum(COUNTS), 64, 64, generator=generator)
    scores = torch.rand(sum(COUNTS), generator=generator)
    return frames, logits.split(COUNTS), scores.split(COUNTS)


@pytest.mark.parametrize("frames", [FRAMES, [FRAMES[0]] * 3], ids=["sizes", "one size"])
@pytest.mark.parametrize("room", [0, 10**9], ids=["one by one", "together"])
def test_what_is_fetched(frames, room, monkeypatch):
    monkeypatch.setattr(fetching, "TOGETHER", room)
    frames, logits, scores = given(frames)
    masks, sums, values = fetch_masks(frames, logits, scores, 0.3)
    for frame, part, mask in zip(frames, logits, masks, strict=True):
        assert mask.dtype == np.bool_
        assert mask.shape == (len(part), frame.height, frame.width)
        np.testing.assert_array_equal(mask, (frame.mask_to_image(part) > 0.3).numpy())
    np.testing.assert_allclose(sums, [float(part.sum()) for part in logits], rtol=1e-5)
    for value, score in zip(values, scores, strict=True):
        assert value.dtype == np.float32
        np.testing.assert_array_equal(value, score.numpy())
    for array in (*masks, sums, *values):
        assert array.flags.owndata, "keeps what is another's, or what serves again"
        assert array.flags.writeable


def test_large_masks_leave_the_device_before_the_next_is_made(monkeypatch):
    monkeypatch.setattr(fetching, "TOGETHER", 0)
    made = []
    monkeypatch.setattr(
        Frame, "mask_to_image", lambda self, part: made.append(len(part)) or part.new_zeros(len(part), 1, 1)
    )
    fetch_masks(*given(FRAMES), 0.0)
    assert made == COUNTS
    monkeypatch.setattr(fetching, "TOGETHER", 10**9)
    made.clear()
    fetch_masks(*given([FRAMES[0]] * 3), 0.0)
    assert made == [4], "those of one size are made together"
