"""The scenes themselves: exact masks, true facts, what training must not see."""

from collections import Counter

import cv2
import numpy as np
import pytest

from modified_lisa.data.annotation import Annotation, Shape, rasterize
from modified_lisa.data.scenes import CAPABILITIES, KINDS, describe, make_scene
from modified_lisa.data.scenes.colours import COLOURS, distance, pick_rgb
from modified_lisa.data.scenes.contours import drop_specks, mask_to_polygons
from modified_lisa.data.scenes.facts import FACTS
from modified_lisa.data.scenes.held_out import is_held_out
from modified_lisa.data.scenes.patches import Look, draw_patch
from modified_lisa.errors import ConfigError


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def drawn(polygons: list[np.ndarray], height: int, width: int) -> np.ndarray:
    """The polygons as the annotation reader draws them."""
    shapes = tuple(Shape("target", polygon.astype(float), "polygon") for polygon in polygons)
    return rasterize(Annotation(None, ("x",), None, shapes), height, width) == 1


@pytest.mark.parametrize("seed", range(30))
def test_polygons_are_the_visible_pixels(seed: int) -> None:
    scene = make_scene(rng(1, seed), split="val")
    for index, thing in enumerate(scene.objects):
        mask = scene.mask(index)
        np.testing.assert_array_equal(drawn(thing.polygons, scene.height, scene.width), mask)
        assert thing.area == mask.sum()
        assert thing.share >= 0.003
        assert thing.area >= 0.55 * thing.whole_area
        rows, columns = np.nonzero(mask)
        assert thing.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("seed", range(20))
def test_polygons_of_ragged_masks_with_holes(seed: int) -> None:
    noise = cv2.GaussianBlur(rng(2, seed).random((60, 80)), (0, 0), 0.5 + seed / 8)
    mask = noise > np.median(noise)
    polygons = mask_to_polygons(mask)
    np.testing.assert_array_equal(drawn(polygons, 60, 80), mask)
    assert all(len(polygon) >= 3 and polygon.dtype == np.int32 for polygon in polygons)


@pytest.mark.parametrize(
    "mask",
    [
        np.ones((1, 1), bool),
        np.ones((1, 9), bool),
        np.eye(7, dtype=bool),
        np.zeros((4, 4), bool),
        ~np.eye(5, dtype=bool),
    ],
)
def test_polygons_of_thin_masks(mask: np.ndarray) -> None:
    np.testing.assert_array_equal(drawn(mask_to_polygons(mask), *mask.shape), mask)


def test_specks_and_pinholes_are_tidied() -> None:
    owner = np.zeros((40, 40), np.uint8)
    owner[5:25, 5:25] = 1
    owner[10, 10] = 0  # a pinhole
    owner[12:18, 12:18] = 0  # a hole that people see
    owner[30, 30] = 1  # a speck
    drop_specks(owner, 1)
    assert owner[10, 10] == 1
    assert owner[15, 15] == 0
    assert owner[30, 30] == 0


def test_same_seed_same_scene() -> None:
    first, second, other = (
        make_scene(rng(5), split="train"),
        make_scene(rng(5), split="train"),
        make_scene(rng(6), split="train"),
    )
    np.testing.assert_array_equal(first.image, second.image)
    assert [thing.to_dict() for thing in first.objects] == [thing.to_dict() for thing in second.objects]
    assert first.image.shape != other.image.shape or (first.image != other.image).any()


def test_scenes_vary() -> None:
    scenes = [make_scene(rng(7, seed), split="train") for seed in range(60)]
    things = [thing for scene in scenes for thing in scene.objects]
    assert len({scene.image.shape for scene in scenes}) >= 10
    assert len({scene.background for scene in scenes}) >= 12
    assert len({thing.kind for thing in things}) >= 50
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.texture for thing in things} >= {"plain", "striped", "spotted", "checked"}
    assert min(len(scene.objects) for scene in scenes) >= 2
    assert max(thing.share for thing in things) > 20 * min(thing.share for thing in things)
    assert any(thing.hidden_by for thing in things)


def test_the_size_can_be_given() -> None:
    scene = make_scene(rng(8), split="test", size=(200, 120))
    assert scene.image.shape == (120, 200, 3)
    assert scene.image.dtype == np.uint8


def test_what_a_scene_cannot_be() -> None:
    with pytest.raises(ConfigError, match="both sides must be at least"):
        make_scene(rng(0), split="train", size=(400, 20))
    with pytest.raises(ConfigError, match="train, val, test"):
        make_scene(rng(0), split="training")


def test_an_object_hidden_by_another_says_so() -> None:
    for seed in range(40):
        scene = make_scene(rng(9, seed), split="train")
        for index, thing in enumerate(scene.objects):
            assert all(front > index for front in thing.hidden_by)
            if thing.hidden_by:
                lost = 1 - thing.area / thing.whole_area
                assert sum(thing.hidden_by.values()) <= lost + 0.02


def test_train_scenes_have_no_held_out_looks_and_the_others_have_both() -> None:
    pairs: dict[str, list[bool]] = {}
    for split in ("train", "val", "test"):
        scenes = [make_scene(rng(10, seed), split=split) for seed in range(40)]
        pairs[split] = [
            any(is_held_out(*pair) for pair in thing.pairs) for scene in scenes for thing in scene.objects
        ]
    assert not any(pairs["train"])
    for split in ("val", "test"):
        assert 0.1 < np.mean(pairs[split]) < 0.6


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_kind_can_be_seen_in_its_colour(kind: str) -> None:
    for seed, colour in enumerate(("red", "black", "white", "green")):
        look = Look(kind, colour, pick_rgb(colour, rng(seed)), "plain")
        patch = draw_patch(look, 90, 200, rng(11, seed))
        cover = patch.cover
        assert cover.sum() == cover[1:-1, 1:-1].sum()
        assert cover.mean() > 0.08
        own = np.abs(patch.rgb[cover].astype(float) - look.rgb).sum(axis=1) < 150
        assert own.mean() > 0.2, f"{kind}: hardly any of it is {colour}"


def test_colours_keep_apart() -> None:
    samples = {name: [pick_rgb(name, rng(12, seed)) for seed in range(12)] for name in COLOURS}
    for first in samples:
        for second in samples:
            if first < second:
                closest = min(distance(a, b) for a in samples[first] for b in samples[second])
                assert closest > 17, (first, second)


def test_the_catalogue() -> None:
    assert len(KINDS) >= 24
    assert all(CAPABILITIES[kind] for kind in KINDS), "every kind is known for something"
    for fact in FACTS.values():
        assert not fact.yes & fact.maybe
        clauses = [text for text in fact.wordings if text.lstrip("!").startswith("that ")]
        assert any(text.startswith("!") for text in clauses), f"{fact.name} has no held-out clause"
        assert any(not text.startswith("!") for text in clauses), f"{fact.name} has no clause for training"
    for kind in KINDS.values():
        assert set(kind.alike) <= set(KINDS)


def test_descriptions_are_true() -> None:
    answers: Counter[str] = Counter()
    questions = set()
    for seed in range(40):
        scene = make_scene(rng(13, seed), split="train")
        for question, answer in describe(scene, rng(14, seed)):
            questions.add(question)
            assert "{" not in question + answer
            assert "[" not in question + answer
            answers[answer] += 1
            if question in (
                "Count the objects.",
                "How many objects are there?",
                "How many things can you see?",
            ):
                number = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
                assert answer == number[len(scene.objects)]
            for colour in COLOURS:  # "What colour is the cup?" with a single cup
                for thing in scene.objects:
                    alone = sum(other.kind == thing.kind for other in scene.objects) == 1
                    if alone and question == f"What colour is the {thing.kind}?" and answer == colour:
                        assert thing.colour == colour
    assert len(questions) > 700
    assert answers["yes"] > 60
    assert answers["no"] > 60
    assert sum(answers[colour] for colour in COLOURS) > 200
