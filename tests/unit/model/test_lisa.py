"""ModifiedLISA: what goes in, what comes out, what trains."""

import numpy as np
import pytest
import torch

from factory import picture, tiny_model
from modified_lisa import ModifiedLISA
from modified_lisa.errors import ConfigError
from modified_lisa.model.vision import DualVision, SamVision, VlmVision

SOURCES = ("vlm", "sam", "dual")
IMAGES = [picture(60, 80, 1), picture(90, 40, 2), picture(33, 33, 3)]
TEXTS = ["which of these would keep me dry in the rain?", "the <SEG> one, the <SEG> one and <SEG>", "round"]


@pytest.fixture(scope="module", params=SOURCES)
def model(request: pytest.FixtureRequest) -> ModifiedLISA:
    return tiny_model(vision_source=request.param)


def test_shapes_are_those_of_the_specification(model: ModifiedLISA) -> None:
    with torch.no_grad():
        outputs = model(IMAGES, TEXTS, return_mask=True)
    assert [tuple(mask.shape) for mask in outputs["pred_masks"]] == [(n, 256, 256) for n in (1, 3, 1)]
    assert [tuple(iou.shape) for iou in outputs["iou_predictions"]] == [(1,), (3,), (1,)]
    assert all(mask.dtype == torch.float32 for mask in outputs["pred_masks"])


def test_a_batch_gives_what_its_items_give_one_by_one(model: ModifiedLISA) -> None:
    with torch.no_grad():
        together = model(IMAGES, TEXTS)
        for index, (image, text) in enumerate(zip(IMAGES, TEXTS, strict=True)):
            alone = model([image], [text])
            for key in ("pred_masks", "iou_predictions", "seg_embeddings"):
                torch.testing.assert_close(together[key][index], alone[key][0], rtol=1e-4, atol=1e-5)
    spread = torch.cat(together["pred_masks"]).std()
    assert spread > 0.05, "masks that are all alike would make this test empty"
    assert (together["seg_embeddings"][0] - together["seg_embeddings"][2]).abs().max() > 1e-3


def test_what_stands_after_the_last_seg_changes_nothing(model: ModifiedLISA) -> None:
    with torch.no_grad():
        short = model([IMAGES[0]], ["the <SEG>"])["pred_masks"][0]
        long = model([IMAGES[0]], ["the <SEG> with words behind it"])["pred_masks"][0]
    assert torch.equal(short, long)


def test_return_mask_false_stops_at_the_prompts(model: ModifiedLISA) -> None:
    with torch.no_grad():
        prompts = model([IMAGES[0]], [TEXTS[1]], return_mask=False)
        full = model([IMAGES[0]], [TEXTS[1]])
    assert set(prompts) == {"seg_embeddings"}
    assert torch.equal(prompts["seg_embeddings"][0], full["seg_embeddings"][0])


@pytest.mark.parametrize("source", SOURCES)
def test_the_image_is_encoded_once(source: str) -> None:
    model = tiny_model(vision_source=source)
    calls: list[int] = []
    encoders = [
        module
        for module in model.modules()
        if type(module).__name__ in ("CLIPVisionModel", "SamVisionEncoder")
    ]
    assert len(encoders) == (2 if source == "dual" else 1), "the other encoder is not even kept in memory"
    for encoder in encoders:
        encoder.register_forward_hook(lambda module, arguments, output: calls.append(1))
    model([IMAGES[0]], ["the <SEG> and the <SEG>"])
    assert len(calls) == len(encoders)


@pytest.mark.parametrize("source", SOURCES)
def test_texts_may_share_an_image(source: str) -> None:
    model = tiny_model(vision_source=source)
    image_of = [0, 1, 0, 1]
    images, texts = IMAGES[:2], ["the red <SEG>", "a <SEG> or <SEG>", "what rolls?", "the blue one"]
    each = model.processor([images[place] for place in image_of], texts)
    two = model.processor(images, texts[:2])
    rows = [model.processor.encode(text) for text in texts]
    shared = model.processor.assemble(rows, each.frames, two.vlm_pixels, two.sam_pixels, image_of)
    seen: list[int] = []
    model.vision.frozen = lambda *pixels: (  # type: ignore[method-assign]
        seen.append(len(next(x for x in pixels if x is not None)))
        or type(model.vision).frozen(model.vision, *pixels)
    )
    gradients = []
    for inputs in (each, shared, shared.spread(), shared.rows(1, 4)):
        model.zero_grad()
        masks = model(inputs)["pred_masks"]
        if len(masks) == 4:
            sum(mask.square().mean() for mask in masks).backward()
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        wanted = model(each)["pred_masks"][-len(masks) :]
        for given, expected in zip(masks, wanted, strict=True):
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
    assert seen[::2] == [4, 2, 4, 3]
    for found in gradients[1:]:
        torch.testing.assert_close(found, gradients[0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("quantize", [False, True])
def test_every_trainable_weight_gets_a_gradient_and_no_other(source: str, quantize: bool) -> None:
    model = tiny_model(vision_source=source, quantize=quantize).train()
    outputs = model(IMAGES[:2], TEXTS[:2])
    (
        torch.cat(outputs["pred_masks"]).square().mean() + torch.cat(outputs["iou_predictions"]).sum()
    ).backward()
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
        elif "iou_prediction_head" not in name:
            assert parameter.grad is not None, name
            assert parameter.dtype == torch.float32, name
            assert parameter.grad.abs().sum() > 0 or "bias" in name, name
    parts = set(model.describe_parameters()["groups"])
    assert parts == {"seg_embedding", "seg_projection", "mask_decoder"} | (
        {"bridge"} if source != "dual" else set()
    )
    trained_of_decoder = [n for n in model.trainable_state_dict() if "mask_decoder" in n]
    assert all("iou_prediction_head" in name for name in trained_of_decoder)


def test_the_predicted_iou_teaches_its_head_only() -> None:
    model = tiny_model(train_mask_decoder=True).train()
    torch.cat(model([IMAGES[0]], [TEXTS[0]])["iou_predictions"]).sum().backward()
    touched = [n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0]
    assert touched
    assert all("iou_prediction_head" in name for name in touched)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"train_mask_decoder": True}, "mask_decoder"),
        ({"train_projector": True}, "projector"),
        ({"lora_r": 2}, "language_model"),
    ],
)
@pytest.mark.parametrize("quantize", [False, True])
def test_options_train_what_they_say(options: dict[str, object], part: str, quantize: bool) -> None:
    plain = tiny_model().describe_parameters()["groups"]
    model = tiny_model(quantize=quantize, **options).train()
    groups = model.describe_parameters()["groups"]
    assert groups[part] > plain.get(part, 0)
    torch.cat(model([IMAGES[0]], [TEXTS[0]])["pred_masks"]).mean().backward()
    grads = [p.grad for n, p in model.named_parameters() if p.requires_grad and part in n and "iou_" not in n]
    assert grads
    # LoRA's B starts at zero, so that its A has no gradient yet; the dead units of a ReLU have none either.
    assert sum(float(g.abs().sum()) > 0 for g in grads if g is not None) >= len(grads) // 4


def test_lora_is_on_the_language_model_only() -> None:
    names = [name for name in tiny_model(lora_r=2).trainable_state_dict() if "lora" in name]
    assert len(names) == 2 * 2 * 2  # layers x (q, v) x (A, B)
    assert all(name.startswith("language_model.") for name in names)


def test_training_mode_reaches_only_what_trains() -> None:
    model = tiny_model().train()
    assert model.training
    assert isinstance(model.vision, VlmVision)
    assert model.vision.bridge.training
    assert not model.vision.encoder.training
    assert not model.language_model.training
    assert not model.eval().vision.bridge.training


def test_gradient_checkpointing_gives_the_same_gradient() -> None:
    grads = []
    for checkpointing in (False, True):
        model = tiny_model(train_projector=True).train()
        if checkpointing:
            assert model.enable_gradient_checkpointing()
            assert model.train().language_model.training
        torch.cat(model([IMAGES[0]], [TEXTS[0]])["pred_masks"]).mean().backward()
        grads.append(model.seg_embedding.row.grad)
    torch.testing.assert_close(grads[0], grads[1])


@pytest.mark.parametrize("state", ["at", "before"])
@pytest.mark.parametrize("source", ["vlm", "dual"])
def test_the_prefix_without_gradient_gives_the_same_states_and_gradients(
    source: str, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, for a batch whose first <SEG>s stand at different places."""
    model = tiny_model(vision_source=source, seg_state=state).double()
    inputs = model.processor(IMAGES, TEXTS)
    assert len(set(inputs.is_seg.int().argmax(dim=1).tolist())) == 3
    tokens = torch.randn(3, 16, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert model.frozen_prefix
    results = []
    for frozen in (True, False):
        monkeypatch.setattr(ModifiedLISA, "frozen_prefix", frozen)
        model.zero_grad()
        states = model.seg_states(tokens, inputs)
        weights = torch.randn(states.shape, generator=torch.Generator().manual_seed(0), dtype=states.dtype)
        (states * weights).sum().backward()
        results.append((states.detach(), model.seg_embedding.row.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-10, atol=1e-12)
    assert results[0][1] is not None
    assert results[0][1].abs().sum() > 0


@pytest.mark.parametrize(
    "options",
    [{"vision_source": "sam"}, {"lora_r": 2}, {"train_projector": True}],
    ids=["sam", "lora", "projector"],
)
def test_the_prefix_keeps_its_gradient_where_something_before_seg_trains(options: dict[str, object]) -> None:
    assert not tiny_model(**options).frozen_prefix


def test_checkpointing_is_refused_where_it_would_only_cost_time() -> None:
    model = tiny_model().train()
    assert not model.enable_gradient_checkpointing()
    assert not model.train().language_model.training


def test_an_autocast_around_the_call_changes_nothing() -> None:
    model = tiny_model()
    with torch.no_grad():
        plain = model([IMAGES[0]], [TEXTS[0]])["pred_masks"][0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = model([IMAGES[0]], [TEXTS[0]])["pred_masks"][0]
    assert torch.equal(plain, inside)


def test_the_state_before_seg_belongs_to_the_token_before_it() -> None:
    model = tiny_model(seg_state="before")
    at = tiny_model(seg_state="at")
    at.load_state_dict(model.trainable_state_dict())
    inputs = model.processor([IMAGES[0], IMAGES[1]], ["round <SEG>", "the <SEG> and <SEG>"])
    with torch.no_grad():
        tokens = model.vision(inputs.vlm_pixels, None).tokens
        before = model.seg_states(tokens, inputs)
        moved = torch.roll(inputs.is_seg, -1, dims=1)
        embeds_are_equal = at.seg_states(tokens, inputs)
    assert before.shape == embeds_are_equal.shape == (3, 64)
    assert moved.sum() == inputs.is_seg.sum()
    # The state before the first <SEG> cannot depend on the row of <SEG>; the state at it does.
    with torch.no_grad():
        model.seg_embedding.row.add_(1.0)
        changed = model.seg_states(tokens, inputs)
    assert torch.equal(before[0], changed[0])
    assert not torch.equal(before[2], changed[2])


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_half_precision_keeps_what_trains_and_the_masks_in_fp32(dtype: str) -> None:
    model = tiny_model(dtype=dtype)
    frozen = {
        parameter.dtype
        for n, parameter in model.named_parameters()
        if not parameter.requires_grad and "mask_head" not in n
    }
    assert frozen == {torch.bfloat16 if dtype == "bf16" else torch.float16}
    assert {p.dtype for n, p in model.named_parameters() if p.requires_grad or "mask_head" in n} == {
        torch.float32
    }
    reference = tiny_model()
    reference.load_state_dict(model.trainable_state_dict())
    with torch.no_grad():
        low, high = (m([IMAGES[0]], [TEXTS[0]])["pred_masks"][0] for m in (model, reference))
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, high, rtol=0.1, atol=0.1)
    assert not torch.equal(low, high)


def test_images_in_any_form_give_the_same_mask(tmp_path: object) -> None:
    from PIL import Image

    model = tiny_model()
    image = picture(50, 70, 5)
    path = tmp_path / "image.png"  # type: ignore[operator]
    Image.fromarray(image).save(path)
    with torch.no_grad():
        masks = [
            model([form], ["round"])["pred_masks"][0]
            for form in (image, Image.fromarray(image), path, str(path))
        ]
    assert all(torch.equal(masks[0], mask) for mask in masks[1:])


def test_calls_that_cannot_work_say_why() -> None:
    model = tiny_model()
    with pytest.raises(ConfigError, match="one text for each image"):
        model([IMAGES[0]])
    with pytest.raises(ConfigError, match="equal length"):
        model(IMAGES, ["one"])
    with pytest.raises(ConfigError, match="one string"):
        model([IMAGES[0]], "round")
    with pytest.raises(ConfigError, match="a single image"):
        model("photo.jpg", ["round"])
    with pytest.raises(ConfigError, match="no images"):
        model([], [])
    with pytest.raises(ConfigError, match="the device is"):
        tiny_model(device="cuda:99")
    with pytest.raises(ConfigError, match="hold their texts"):
        model(model.processor([IMAGES[0]], ["round"]), ["round"])


def test_constructor_follows_the_specification() -> None:
    assert isinstance(tiny_model(use_vlm_vision_encoder=True).vision, VlmVision)
    assert isinstance(tiny_model(use_vlm_vision_encoder=False).vision, SamVision)
    assert isinstance(tiny_model(vision_source="dual").vision, DualVision)
    with pytest.raises(ConfigError, match="unknown model option"):
        tiny_model(bridge_depth=3)
    with pytest.raises(ConfigError, match="hidden states 0 to 4"):
        tiny_model(bridge_layers=(1, 7))


@pytest.mark.parametrize("bridge", ["fpn", "pyramid", "stem", "linear"])
def test_bridges_stand_side_by_side(bridge: str) -> None:
    model = tiny_model(bridge=bridge, bridge_layers=(1, -2))
    assert isinstance(model.vision, VlmVision)
    assert model.vision.bridge_layers == (1, 3)
    with torch.no_grad():
        assert model([IMAGES[0]], ["round"])["pred_masks"][0].shape == (1, 256, 256)


def test_same_seed_same_model() -> None:
    first, second, other = (tiny_model(seed).trainable_state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_padding_tokens_that_look_like_seg_are_not_seg() -> None:
    model = tiny_model()
    inputs = model.processor(
        [IMAGES[0], IMAGES[1]], ["a", "a much longer query than the other one <SEG> here <SEG>"]
    )
    assert inputs.seg_counts == [1, 2]
    assert inputs.is_image.sum(dim=1).tolist() == [16, 16]
    assert isinstance(np.asarray(inputs.input_ids), np.ndarray)


@pytest.mark.parametrize("source", SOURCES)
def test_a_model_whose_type_is_changed_reads_images_in_its_new_one(source: str) -> None:
    model = tiny_model(vision_source=source, dtype="bf16").float()
    with torch.no_grad():
        masks = model(IMAGES[:1], TEXTS[:1])["pred_masks"]
    assert masks[0].dtype == torch.float32
