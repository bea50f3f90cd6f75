"""Segmentation: every form of a result gives the same masks back."""

import json
from dataclasses import FrozenInstanceError

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from pycocotools import mask as coco

from modified_lisa.errors import ConfigError, ModifiedLISAError
from modified_lisa.inference import Segmentation
from modified_lisa.inference.drawing import PALETTE, draw_masks

MASKS = hnp.arrays(bool, st.tuples(st.integers(0, 3), st.integers(1, 12), st.integers(1, 12)))


def result(masks: np.ndarray, *, text: str = "the bus", image: np.ndarray | None = None) -> Segmentation:
    scores = np.linspace(0.2, 0.9, len(masks), dtype=np.float32)
    return Segmentation(masks=masks, scores=scores, text=text, size=masks.shape[1:], image=image)


def two_masks() -> np.ndarray:
    """(2, 20, 30): a square with a hole, and a single pixel."""
    masks = np.zeros((2, 20, 30), dtype=bool)
    masks[0, 3:13, 5:15] = True
    masks[0, 6:9, 8:12] = False
    masks[1, 17, 29] = True
    return masks


# ------------------------------------------------------------------------------------------ polygons, rle


@settings(deadline=None)
@given(masks=MASKS)
def test_polygons_drawn_even_odd_give_the_mask_back(masks):
    polygons = result(masks).polygons()
    assert len(polygons) == len(masks)
    for mask, rings in zip(masks, polygons, strict=True):
        canvas = np.zeros(mask.shape, dtype=np.uint8)
        cv2.fillPoly(canvas, rings, 1)
        np.testing.assert_array_equal(canvas, mask)
        assert all(ring.ndim == 2 and ring.shape[1] == 2 and len(ring) >= 3 for ring in rings)


def test_polygons_are_x_before_y_and_holes_follow_their_ring():
    square, pixel = result(two_masks()).polygons()
    assert len(square) == 2, "one outer ring and one hole"
    outer, hole = (cv2.contourArea(ring, oriented=True) for ring in square)
    assert outer * hole < 0, "a hole runs the other way round"
    assert square[0].min(axis=0).tolist() == [5, 3]
    assert square[0].max(axis=0).tolist() == [14, 12]
    assert np.unique(pixel[0], axis=0).tolist() == [[29, 17]]


def test_each_hole_directly_follows_the_part_it_is_in():
    mask = np.zeros((12, 40), dtype=bool)
    mask[1:11, 1:11] = mask[1:11, 15:25] = mask[1:11, 29:39] = True
    mask[4:7, 4:7] = mask[4:7, 32:35] = False
    (rings,) = result(mask[None]).polygons()
    solid = [cv2.contourArea(ring, oriented=True) < 0 for ring in rings]
    assert sorted(solid) == [False, False, True, True, True]
    for before, ring, outer in zip(rings, rings[1:], solid[1:], strict=False):
        if not outer:
            inside = cv2.pointPolygonTest(before, tuple(map(float, ring[0])), False)
            assert inside > 0


@settings(deadline=None)
@given(masks=MASKS)
def test_rle_is_cocos(masks):
    runs = json.loads(json.dumps(result(masks).rle()))  # plain values only
    assert len(runs) == len(masks)
    for mask, run in zip(masks, runs, strict=True):
        assert run["size"] == list(mask.shape)
        np.testing.assert_array_equal(coco.decode(run), mask)


# ------------------------------------------------------------------------------------------ mask, boxes


@settings(deadline=None)
@given(masks=MASKS)
def test_boxes_are_tight(masks):
    boxes = result(masks).boxes()
    assert boxes.shape == (len(masks), 4)
    for mask, (left, top, right, bottom) in zip(masks, boxes, strict=True):
        inside = mask[top:bottom, left:right]
        assert inside.sum() == mask.sum()
        if mask.any():
            assert all(edge.any() for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))
        else:
            assert (left, top, right, bottom) == (0, 0, 0, 0)


def test_mask_is_the_union():
    masks = two_masks()
    np.testing.assert_array_equal(result(masks).mask, masks[0] | masks[1])


def test_no_mask_at_all_works_everywhere(tmp_path):
    image = np.full((4, 6, 3), 200, dtype=np.uint8)
    empty = result(np.zeros((0, 4, 6), dtype=bool), image=image)
    assert len(empty) == 0
    assert not empty.mask.any()
    assert empty.mask.shape == (4, 6)
    assert empty.boxes().shape == (0, 4)
    assert empty.polygons() == empty.rle() == []
    np.testing.assert_array_equal(np.asarray(empty.overlay()), image)
    assert json.loads(empty.save(tmp_path / "none.json").read_text())["masks"] == []
    assert np.load(empty.save(tmp_path / "none.npz"))["masks"].shape == (0, 4, 6)


# ------------------------------------------------------------------------------------------ overlay


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (37, 53), (500, 700)])
def test_overlay_has_the_size_of_the_image(size):
    image = np.zeros((*size, 3), dtype=np.uint8)
    overlay = result(np.ones((1, *size), dtype=bool), image=image).overlay()
    assert overlay.mode == "RGB"
    assert overlay.size == (size[1], size[0])


def test_tint_is_exact_and_stays_inside_the_mask():
    image = np.full((20, 30, 3), 100, dtype=np.uint8)
    masks = two_masks()
    colours = ((200, 0, 100), (0, 50, 0))
    drawn = np.asarray(result(masks, image=image).overlay(colours=colours, alpha=0.25, outline=False))
    assert (drawn[~masks.any(axis=0)] == 100).all()
    assert (drawn[masks[0]] == (125, 75, 100)).all()
    assert (drawn[masks[1]] == (75, 88, 75)).all()
    assert (image == 100).all(), "the user's image is not drawn on"


@pytest.mark.parametrize("shade", [0, 128, 255])
def test_outline_stands_out_on_any_background(shade):
    image = np.full((60, 60, 3), shade, dtype=np.uint8)
    mask = np.zeros((1, 60, 60), dtype=bool)
    mask[0, 20:40, 20:40] = True
    drawn = np.asarray(result(mask, image=image).overlay(alpha=0.0)).astype(int)
    assert (drawn[20, 20:40] == PALETTE[0]).all()
    around = drawn[15:20, 30]
    assert np.abs(around - shade).max() >= 127
    assert (drawn[25:35, 25:35] == shade).all(), "the inside shows the image"


def test_the_mask_of_a_whole_image_shows_as_a_frame():
    drawn = draw_masks(np.zeros((50, 60, 3), np.uint8), np.ones((1, 50, 60), bool), alpha=0.0)
    assert (drawn[0] == PALETTE[0]).all()
    assert (drawn[:, -1] == PALETTE[0]).all()
    assert not drawn[10:-10, 10:-10].any()


def test_colours_go_round():
    masks = np.zeros((3, 4, 6), dtype=bool)
    masks[0, 0], masks[2, 3] = True, True
    drawn = draw_masks(np.zeros((4, 6, 3), np.uint8), masks, colours=((9, 8, 7), (1, 1, 1)), alpha=1.0)
    assert drawn[0, 0].tolist() == drawn[3, 0].tolist() == [9, 8, 7]


def test_overlay_takes_any_image_of_the_same_size():
    masks = two_masks()
    drawn = result(masks).overlay(Image.new("L", (30, 20), 100), alpha=0.0, outline=False)
    assert (np.asarray(drawn) == 100).all()
    with pytest.raises(ConfigError, match=r"20, 30, 3"):
        result(masks).overlay(Image.new("RGB", (20, 30)))
    with pytest.raises(ConfigError, match="pass the image"):
        result(masks).overlay()


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 1.5},
        {"alpha": -0.1},
        {"alpha": float("nan")},
        {"alpha": "a"},
        {"alpha": None},
        {"colours": 5},
        {"colours": None},
        {"colours": ()},
        {"colours": ((300, 0, 0),)},
        {"colours": ((0.5, 0, 0),)},
        {"colours": ((1, 2, 3, 4),)},
        {"colours": ("red",)},
    ],
)
def test_overlay_refuses(options):
    with pytest.raises(ConfigError):
        result(two_masks(), image=np.zeros((20, 30, 3), np.uint8)).overlay(**options)


# ------------------------------------------------------------------------------------------ save


def test_save_json_holds_everything(tmp_path):
    masks = two_masks()
    segmentation = result(masks, text="café <SEG> <SEG>")
    path = segmentation.save(tmp_path / "new" / "folder" / "answer.json")
    saved = json.loads(path.read_text(encoding="utf-8"))
    assert saved["text"] == "café <SEG> <SEG>"
    assert saved["size"] == [20, 30]
    assert [mask["score"] for mask in saved["masks"]] == pytest.approx([0.2, 0.9])
    assert [mask["area"] for mask in saved["masks"]] == [88, 1]
    assert saved["masks"][0]["share"] == pytest.approx(88 / 600, abs=1e-6)
    assert saved["masks"][0]["box"] == [5, 3, 15, 13]
    for mask, entry in zip(masks, saved["masks"], strict=True):
        np.testing.assert_array_equal(coco.decode(entry["rle"]), mask)
        canvas = np.zeros(mask.shape, dtype=np.uint8)
        cv2.fillPoly(canvas, [np.array(ring) for ring in entry["polygons"]], 1)
        np.testing.assert_array_equal(canvas, mask)


def test_save_npz_holds_the_arrays(tmp_path):
    segmentation = result(two_masks())
    with np.load(segmentation.save(tmp_path / "answer.npz"), allow_pickle=False) as saved:
        np.testing.assert_array_equal(saved["masks"], segmentation.masks)
        np.testing.assert_array_equal(saved["scores"], segmentation.scores)
        assert str(saved["text"]) == "the bus"


@pytest.mark.parametrize(("name", "form"), [("a.png", "PNG"), ("a.jpg", "JPEG"), ("A.JPEG", "JPEG")])
def test_save_picture_holds_the_overlay(tmp_path, name, form):
    segmentation = result(two_masks(), image=np.full((20, 30, 3), 90, dtype=np.uint8))
    with Image.open(segmentation.save(tmp_path / name)) as saved:
        assert saved.format == form
        difference = np.asarray(saved, dtype=int) - np.asarray(segmentation.overlay(), dtype=int)
    assert np.abs(difference).mean() < (1e-9 if form == "PNG" else 6)


def test_save_says_what_stands_in_the_way(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.png").write_bytes(b"kept")
    for name, why in (("folder.png", "it is a folder"), ("file.png/a.png", "a file; name a folder")):
        with pytest.raises(ConfigError, match=why):
            result(two_masks(), image=np.zeros((20, 30, 3), np.uint8)).save(tmp_path / name)
    assert (tmp_path / "file.png").read_bytes() == b"kept"


def test_colours_may_be_an_array():
    image = np.zeros((20, 30, 3), np.uint8)
    given = result(two_masks(), image=image).overlay(colours=np.array([[200, 10, 20]]))
    wanted = result(two_masks(), image=image).overlay(colours=((200, 10, 20),))
    np.testing.assert_array_equal(np.asarray(given), np.asarray(wanted))


@pytest.mark.parametrize("name", ["answer.bmp", "answer", ".png"])
def test_save_names_the_endings_it_knows(tmp_path, name):
    with pytest.raises(ConfigError, match=r"\.png.*\.json.*\.npz"):
        result(two_masks()).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------ what it refuses


@pytest.mark.parametrize(
    "wrong",
    [
        {"masks": np.zeros((1, 2, 3), np.uint8)},
        {"masks": np.zeros((2, 3), bool)},
        {"masks": [[[True]]]},
        {"scores": np.zeros(2, np.float32)},
        {"scores": np.zeros(1, np.float64)},
        {"scores": np.array([np.nan], np.float32)},
        {"scores": np.array([1.5], np.float32)},
        {"text": None},
        {"size": (3, 2)},
        {"image": np.zeros((3, 2, 3), np.uint8)},
        {"image": np.zeros((2, 3, 3), np.float32)},
    ],
)
def test_fields_are_checked(wrong):
    right = {
        "masks": np.zeros((1, 2, 3), bool),
        "scores": np.zeros(1, np.float32),
        "text": "",
        "size": (2, 3),
    }
    Segmentation(**right)
    with pytest.raises(ConfigError) as error:
        Segmentation(**{**right, **wrong})
    assert isinstance(error.value, ModifiedLISAError)
    assert next(iter(wrong)) in str(error.value)


def test_it_is_frozen_and_its_repr_leaves_the_image_out():
    segmentation = result(two_masks(), image=np.zeros((20, 30, 3), np.uint8))
    with pytest.raises(FrozenInstanceError):
        segmentation.text = "other"
    assert "image" not in repr(segmentation)


def test_a_jpeg_has_no_room_for_a_very_wide_image(tmp_path):
    wide = np.zeros((1, 1, 65_501), dtype=bool)
    wide[0, 0, 7] = True
    found = result(wide, image=np.zeros((1, 65_501, 3), np.uint8))
    with pytest.raises(ConfigError, match=r"at most 65,500 pixels a side.*65501 x 1; use .png"):
        found.save(tmp_path / "wide.jpg")
    assert found.save(tmp_path / "wide.png").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["wide.png"]
