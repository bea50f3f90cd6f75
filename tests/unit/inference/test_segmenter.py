"""Segmenter: the model's own forward pass, on the user's image."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from factory import picture, tiny_model
from modified_lisa import ConfigError, ImageError, ModelLoadError, Segmenter


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return Segmenter(tiny_model())


def test_segment_is_the_models_answer_on_the_users_image(segmenter):
    image = picture(61, 83)
    found = segmenter.segment(image, "the red one")
    assert found.masks.shape == (1, 61, 83)
    assert found.size == (61, 83)
    assert found.text == "the red one"
    inputs = segmenter.model.processor([image], ["the red one"])
    with torch.no_grad():
        outputs = segmenter.model(inputs)
    logits = inputs.frames[0].mask_to_image(outputs["pred_masks"][0])
    np.testing.assert_array_equal(found.masks, logits.numpy() > 0)
    np.testing.assert_array_equal(found.scores, outputs["iou_predictions"][0].clamp(0, 1).numpy())
    np.testing.assert_array_equal(found.image, image)


def test_each_seg_gives_a_mask(segmenter):
    assert len(segmenter.segment(picture(), "left <SEG> and right <SEG>")) == 2


def test_the_threshold_is_in_logits(segmenter):
    image = picture()
    levels = (-1e6, np.float32(-0.2), 0.2, np.int64(10**6))
    masks = [segmenter.segment(image, "it", threshold=level).mask for level in levels]
    assert masks[0].all()
    assert not masks[-1].any()
    for larger, smaller in pairwise(masks):
        assert not (smaller & ~larger).any()


def test_a_batch_gives_what_its_items_give(segmenter):
    images = [picture(40, 90, seed=1), picture(70, 30, seed=2), picture(50, 50, seed=3)]
    queries = ["the ball", "two of them <SEG> and <SEG>, whichever could roll away", "it"]
    batch = segmenter.segment_batch(images, queries)
    assert [found.text for found in batch] == queries
    for found, image, query in zip(batch, images, queries, strict=True):
        alone = segmenter.segment(image, query)
        assert found.masks.shape == alone.masks.shape
        assert (found.masks == alone.masks).mean() > 0.999, "equal up to rounding at the border"
        np.testing.assert_allclose(found.scores, alone.scores, atol=1e-4)


@pytest.mark.parametrize("room", [0, 10**9])
def test_large_masks_go_to_the_host_one_by_one_and_are_the_same(segmenter, monkeypatch, room):
    monkeypatch.setattr("modified_lisa.inference.fetching.TOGETHER", room)
    queries = ["the red one", "<SEG> or <SEG>", "what is round?"]
    together = segmenter.segment_batch(picture(), queries)
    assert [len(one) for one in together] == [1, 2, 1]
    for query, one in zip(queries, together, strict=True):
        assert (segmenter.segment(picture(), query).masks != one.masks).mean() < 0.001
        assert one.masks.base is None or one.masks.base.nbytes <= one.masks.nbytes, "keeps others' masks"


def test_a_lone_image_or_query_goes_with_all(segmenter):
    image, other = picture(seed=1), picture(30, 30, seed=2)
    about_one = segmenter.segment_batch(image, ["the ball", "the box"])
    assert [found.text for found in about_one] == ["the ball", "the box"]
    about_all = segmenter.segment_batch((image, other), "the box")
    assert [found.size for found in about_all] == [(60, 80), (30, 30)]
    np.testing.assert_allclose(
        about_one[1].scores, segmenter.segment_batch([image], ["the box"])[0].scores, rtol=1e-4
    )
    assert segmenter.segment_batch([], []) == segmenter.segment_batch(image, []) == []


def test_images_come_in_any_form(segmenter, tmp_path):
    pixels = picture()
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    forms = (pixels, Image.fromarray(pixels), tmp_path / "photo.png", str(tmp_path / "photo.png"))
    first, *rest = (segmenter.segment(form, "it") for form in forms)
    for found in rest:
        np.testing.assert_array_equal(found.masks, first.masks)
    grey = segmenter.segment(pixels[..., 0], "it")
    assert grey.overlay().size == (80, 60)


def test_a_result_keeps_its_image_when_the_caller_reuses_the_array(segmenter):
    frame = picture()
    found = segmenter.segment(frame, "it")
    frame[:] = 0
    assert found.image.any()


def test_a_trained_checkpoint_comes_back(segmenter, tmp_path):
    segmenter.model.save_pretrained(tmp_path / "trained")
    again = Segmenter.from_pretrained(tmp_path / "trained", device="cpu")
    assert not again.model.training
    image = picture(seed=5)
    np.testing.assert_array_equal(again.segment(image, "it").scores, segmenter.segment(image, "it").scores)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", 1.5])
def test_a_device_that_is_not_there_is_refused(device, tmp_path):
    with pytest.raises(ConfigError, match="the device is"):
        Segmenter.from_pretrained(tmp_path, device=device)


def test_segmenting_is_evaluation_mode_without_gradients():
    model = tiny_model(lora_r=2, lora_dropout=0.5).train()
    segmenter = Segmenter(model)
    first, second = (segmenter.segment(picture(), "it").scores for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("query", ["", "  \n", "<SEG>"])
def test_an_empty_query_is_refused(segmenter, query):
    with pytest.raises(ConfigError, match="query is empty"):
        segmenter.segment(picture(), query)


@pytest.mark.parametrize("threshold", [2**70, -(10**300), Fraction(1, 2)], ids=str)
def test_any_finite_number_is_a_threshold(segmenter, threshold):
    image = picture()
    wanted = segmenter.segment(image, "it", threshold=float(threshold)).masks
    assert (segmenter.segment(image, "it", threshold=threshold).masks == wanted).all()


def test_answers_about_one_image_cannot_be_drawn_into(segmenter):
    first, second = segmenter.segment_batch(picture(), ["the ball", "the box"])
    for one in (first, second, segmenter.segment(picture(), "the ball")):
        with pytest.raises(ValueError, match="read-only"):
            one.image[:] = 0
    assert (second.image == picture()).all()


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), "0", None, True, 10**400])
def test_a_threshold_is_a_finite_number(segmenter, threshold):
    with pytest.raises(ConfigError, match="threshold"):
        segmenter.segment(picture(), "it", threshold=threshold)


def test_lists_of_other_lengths_are_refused(segmenter):
    with pytest.raises(ConfigError, match="2 images and 1 queries"):
        segmenter.segment_batch([picture(), picture()], ["it"])


def test_a_missing_image_is_refused(segmenter):
    with pytest.raises(ImageError, match=r"no-such\.jpg"):
        segmenter.segment("no-such.jpg", "it")


@pytest.mark.parametrize("where", ["masks", "scores"])
def test_the_answer_that_is_not_finite_is_named(segmenter, where):
    image = picture()
    frame = segmenter.model.processor.frame(*image.shape[:2])
    parts = {
        "masks": [torch.zeros(1, 64, 64) for _ in range(3)],
        "scores": [torch.zeros(1) for _ in range(3)],
    }
    parts[where][1].fill_(float("inf"))
    with pytest.raises(ModelLoadError, match="answer to 'the second' is not finite"):
        segmenter.results(
            [image] * 3,
            ["the first", "the second", "the third"],
            [frame] * 3,
            parts["masks"],
            parts["scores"],
            0.0,
        )


def test_an_answer_that_is_not_finite_is_no_empty_mask():
    model = tiny_model()
    with torch.no_grad():
        next(model.seg_projection.parameters()).fill_(float("nan"))
    with pytest.raises(ModelLoadError, match="not finite"):
        Segmenter(model).segment(picture(), "it")
