"""The bridge that sees pixels, and an encoder that sees another square than its own."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from factory import tiny_model
from modified_lisa.errors import ConfigError
from modified_lisa.model.bridge import default_layers, make_bridge
from modified_lisa.model.feature_cache import frozen_identity
from modified_lisa.model.fpn import _averaged

IMAGES = [
    np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8),
    np.full((50, 40, 3), 90, np.uint8),
]
TEXTS = ["the round one", "what can roll?"]


def test_the_stem_starts_as_the_pyramid_and_learns_from_pixels() -> None:
    torch.manual_seed(0)
    stem = make_bridge("stem", [16] * 5, (1, 3), 32, 64)
    pyramid = make_bridge("pyramid", [16] * 5, (1, 3), 32, 64)
    pyramid.load_state_dict(stem.state_dict(), strict=False)
    features = [torch.randn(2, 16, 16) for _ in range(2)]
    pixels = torch.randn(2, 3, 56, 56)
    found = stem(features, pixels)
    assert found.shape == (2, 32, 64, 64)
    assert torch.equal(found, pyramid(features))
    found.square().sum().backward()
    assert stem.edges.weight.grad.abs().max() > 0
    torch.nn.init.normal_(stem.edges.weight)
    assert not torch.equal(stem(features, pixels), stem(features, pixels + 1))
    assert default_layers("stem", 23) == default_layers("pyramid", 23)


def test_features_of_the_stem_hold_the_pixels() -> None:
    model, plain = tiny_model(bridge="stem"), tiny_model()
    torch.nn.init.normal_(model.vision.bridge.edges.weight)
    pixels = torch.randn(2, 3, 56, 56)
    features = model.vision.frozen(pixels, None)
    assert torch.equal(features[-1], pixels)
    straight, kept = model.vision(pixels, None), model.vision.trained(features)
    assert torch.equal(straight.embedding, kept.embedding)
    assert torch.equal(straight.tokens, plain.vision(pixels, None).tokens)
    assert len(features) == len(plain.vision.frozen(pixels, None)) + 1
    assert frozen_identity(model) != frozen_identity(plain)


def test_masks_of_a_model_with_a_stem_get_gradients() -> None:
    model = tiny_model(bridge="stem").train()
    outputs = model(IMAGES, TEXTS)
    torch.cat(outputs["pred_masks"]).square().mean().backward()
    missing = [name for name, weight in model.vision.bridge.named_parameters() if weight.grad is None]
    assert missing == []


@pytest.mark.parametrize("source", ["vlm", "dual"])
def test_another_side_keeps_the_tokens_and_refines_the_grid(source: str) -> None:
    own, finer = tiny_model(vision_source=source), tiny_model(vision_source=source, image_side=112)
    assert finer.processor.vlm_image.side == 112
    assert finer.processor.image_tokens == own.processor.image_tokens == 16
    inputs = finer.processor(IMAGES, TEXTS)
    assert inputs.vlm_pixels.shape == (2, 3, 112, 112)
    encoding = finer.vision.encode(inputs)
    assert encoding.tokens.shape == own.vision.encode(own.processor(IMAGES, TEXTS)).tokens.shape
    states = finer.vision.frozen(inputs.vlm_pixels, inputs.sam_pixels)
    assert states[0].shape[1] == 1 + 64
    # The mean of each 2 x 2 patches, in their places.
    patches = states[0][:, 1:].unflatten(1, (4, 2, 4, 2)).mean((2, 4)).flatten(1, 2)
    read = dict.fromkeys(finer.vision.encoder.feature_layers, states[0])
    torch.testing.assert_close(finer.vision.encoder.tokens(read), patches)
    masks = finer(IMAGES, TEXTS)["pred_masks"]
    assert torch.isfinite(torch.cat(masks)).all()


def test_the_encoders_own_side_changes_nothing() -> None:
    own, same = tiny_model(), tiny_model(image_side=56)
    for one, other in zip(own(IMAGES, TEXTS)["pred_masks"], same(IMAGES, TEXTS)["pred_masks"], strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image_side": 60}, "multiple of its patches of 14"),
        ({"image_side": 112, "vision_source": "sam"}, "'vlm' and 'dual'"),
        ({"image_side": 0}, "at least 1"),
    ],
)
def test_a_side_that_cannot_work_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        tiny_model(**options)


@pytest.mark.parametrize("cells", [8, 9, 3])
def test_the_feature_pyramid_averages_parts_of_any_grid(cells: int) -> None:
    grid = torch.randn(2, 5, cells, cells, dtype=torch.float64)
    for side in (1, 2, 4):
        torch.testing.assert_close(_averaged(grid, side), F.adaptive_avg_pool2d(grid, side))


def test_the_feature_pyramid_wants_its_layers_from_shallow_to_deep() -> None:
    assert tiny_model(bridge_layers=(1, -2)).vision.bridge_layers == (1, 3)
    with pytest.raises(ConfigError, match="hidden states 3, 1; --bridge fpn reads them from shallow to deep"):
        tiny_model(bridge_layers=(-2, 1))
    assert tiny_model(bridge="pyramid", bridge_layers=(-2, 1)).vision.bridge_layers == (3, 1)
