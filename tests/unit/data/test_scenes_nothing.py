"""Queries about what is not there, and kinds of object that training never meets."""

import re

import numpy as np
import pytest

from modified_lisa.data.scenes import KINDS, Query, Scene, describe, make_queries, make_scene
from modified_lisa.data.scenes.facts import FACTS
from modified_lisa.data.scenes.held_out import HELD_OUT_KINDS

UNSEEN = re.compile(
    rf"\b({'|'.join(name for kind in HELD_OUT_KINDS for pair in KINDS[kind].names for name in pair)})\b"
)


def asked(split: str, scenes: int) -> list[tuple[Scene, Query]]:
    found = []
    for number in range(scenes):
        rng = np.random.default_rng([5, number])
        scene = make_scene(rng, split=split, size=(256, 224))
        found += [(scene, query) for query in make_queries(scene, rng, split=split, no_target_share=0.6)]
    return found


@pytest.fixture(scope="module")
def train() -> list[tuple[Scene, Query]]:
    return asked("train", 200)


@pytest.fixture(scope="module")
def val() -> list[tuple[Scene, Query]]:
    return asked("val", 70)


def test_what_is_asked_for_is_not_there(train: list[tuple[Scene, Query]]) -> None:
    checked: dict[str, int] = {}
    for scene, query in train:
        if query.kind != "no-target":
            continue
        assert query.targets == ()
        text = query.texts[0]
        concept = query.concept.removeprefix("none: ")
        kinds = {thing.kind for thing in scene.objects}
        looks = {f"{thing.colour} {thing.kind}" for thing in scene.objects}
        if concept == "name":
            assert not any(re.search(rf"\b{kind}s?\b", text) for kind in kinds), (text, kinds)
        elif concept == "kind and colour":
            assert not any(look in text for look in looks), (text, looks)
        elif concept == "colour":
            assert not any(re.search(rf"\b{thing.colour}\b", text) for thing in scene.objects), text
        elif concept.startswith("use: "):
            fact = FACTS[concept.removeprefix("use: ")]
            assert not kinds & (fact.yes | fact.maybe)
        checked[concept.split(":")[0]] = checked.get(concept.split(":")[0], 0) + 1
    assert {"name", "kind and colour", "colour", "use", "left", "texture"} <= set(checked)


def test_many_are_nearly_there(train: list[tuple[Scene, Query]]) -> None:
    """A red umbrella where "the blue umbrella" is asked for, beside something blue."""
    near = [
        any(thing.colour in query.texts[0] for thing in scene.objects)
        for scene, query in train
        if query.concept == "none: kind and colour"
    ]
    assert np.mean(near) > 0.5


def test_the_words_give_nothing_away(train: list[tuple[Scene, Query]]) -> None:
    """Queries without a target begin like those with one."""
    begins: dict[bool, list[str]] = {True: [], False: []}
    for _, query in train:
        begins[query.kind == "no-target"] += [text.split()[0] for text in query.texts]
    others = set(begins[False])
    assert np.mean([word in others for word in begins[True]]) > 0.9


def test_training_neither_sees_nor_reads_of_held_out_kinds(
    train: list[tuple[Scene, Query]], val: list[tuple[Scene, Query]]
) -> None:
    for scene, query in train:
        assert not {thing.kind for thing in scene.objects} & HELD_OUT_KINDS
        assert not query.kind_held_out
        assert not any(UNSEEN.search(text) for text in query.texts), query.texts
    for seed in range(15):
        scene = make_scene(np.random.default_rng(seed), split="train")
        for question, answer in describe(scene, np.random.default_rng(seed)):
            assert not UNSEEN.search(f"{question} {answer}"), question
    share = np.mean([query.kind_held_out for _, query in val])
    assert 0.05 < share < 0.4
    for scene, query in val:
        own = any(scene.objects[index].kind in HELD_OUT_KINDS for index in query.targets)
        assert query.kind_held_out or not own


def test_no_share_no_such_query() -> None:
    scene = make_scene(np.random.default_rng(3), split="val")
    queries = make_queries(scene, np.random.default_rng(4), split="val", no_target_share=0.0)
    assert queries
    assert all(query.targets for query in queries)
