"""Queries: their answers against an independent reading of the facts, and what training must not read."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import numpy as np
import pytest

from modified_lisa.data.scenes import QUERY_KINDS, Query, Scene, make_queries, make_scene
from modified_lisa.data.scenes.colours import COLOURS
from modified_lisa.data.scenes.drafts import agree
from modified_lisa.data.scenes.facts import FACTS
from modified_lisa.data.scenes.held_out import is_held_out
from modified_lisa.data.scenes.speaker import Speaker, article, is_sentence
from modified_lisa.data.scenes.wordings import BANKS, COMMANDS, QUESTIONS, TRAINING_ONLY

SCENES = 260


def asked(split: str, seed: int = 0) -> Iterator[tuple[Scene, Query]]:
    for number in range(SCENES):
        rng = np.random.default_rng([seed, number])
        scene = make_scene(rng, split=split, size=(256, 224))
        for query in make_queries(scene, rng, split=split):
            yield scene, query


@pytest.fixture(scope="module")
def train() -> list[tuple[Scene, Query]]:
    return list(asked("train"))


@pytest.fixture(scope="module")
def val() -> list[tuple[Scene, Query]]:
    return list(asked("val"))


def test_every_kind_of_query_occurs_and_leaves_something_out(train: list[tuple[Scene, Query]]) -> None:
    counts = Counter(query.kind for _, query in train)
    assert set(counts) == set(QUERY_KINDS)
    assert min(counts.values()) > 25
    for scene, query in train:
        assert (0 < len(query.targets) < len(scene.objects)) is (query.kind != "no-target")
        assert query.targets or query.kind == "no-target"
        assert list(query.targets) == sorted(set(query.targets))
        assert query.texts
        assert len(set(query.texts)) == len(query.texts)


def test_one_scene_gives_different_answers(train: list[tuple[Scene, Query]]) -> None:
    answers = defaultdict(set)
    for scene, query in train:
        answers[id(scene)].add(query.targets)
    assert np.mean([len(found) for found in answers.values()]) > 4


def test_texts_are_english(train: list[tuple[Scene, Query]], val: list[tuple[Scene, Query]]) -> None:
    for _, query in train + val:
        for text in query.texts:
            assert not re.search(
                r"[{}\[\]|!]|  |\ba (?!one|uni|use|eu)[aeiou]|\ban (?!hour)[^aeiou]|\b(\w+) \1\b(?<!that that)",
                text,
            ), text
            assert is_sentence(text) is query.is_sentence
            assert text[0].isupper() is query.is_sentence, text
            assert "color" not in text


def test_wordings_are_many(train: list[tuple[Scene, Query]]) -> None:
    texts = [text for _, query in train for text in query.texts]
    assert len(set(texts)) > 0.75 * len(texts)
    assert 0.3 < np.mean([query.is_sentence for _, query in train]) < 0.8


def _pattern(template: str) -> re.Pattern[str] | None:
    """A held-out template as a pattern; None when its own words are too few to know it by."""
    body = template.lstrip("!")
    if len(re.sub(r"\{\w+\}|\[|\]|\|", "", body)) < 14:
        return None
    parts = re.split(r"(\{\w+\}|\[[^\]]*\])", body)
    words = ""
    for part in parts:
        if part.startswith("{"):
            words += ".+"
        elif part.startswith("["):
            words += f"(?:{'|'.join(re.escape(option) for option in part[1:-1].split('|'))})"
        else:
            words += re.escape(part)
    return re.compile(words)


def _held_out_patterns() -> list[re.Pattern[str]]:
    templates = [text for bank in BANKS.values() for text in bank]
    templates += [
        form
        for fact in FACTS.values()
        for text in fact.wordings
        for form in (text, "!" + agree(text.lstrip("!"), True) if text.startswith("!") else text)
    ]
    templates += [*COMMANDS, *QUESTIONS]
    return [found for text in templates if text.startswith("!") and (found := _pattern(text)) is not None]


def test_training_reads_no_held_out_wording(
    train: list[tuple[Scene, Query]], val: list[tuple[Scene, Query]]
) -> None:
    patterns = _held_out_patterns()
    assert len(patterns) > 150
    familiar = {text for _, query in train for text in query.texts}
    for text in familiar:
        assert not any(pattern.search(text) for pattern in patterns), text
    assert not any(query.wording_held_out for _, query in train)
    flagged = [query for _, query in val if query.wording_held_out]
    assert 0.25 < len(flagged) / len(val) < 0.55
    known = [any(pattern.search(text) for pattern in patterns) for query in flagged for text in query.texts]
    assert np.mean(known) > 0.9  # the rest is too short to be recognised by a pattern
    for _, query in val:
        if not query.wording_held_out:
            assert not any(pattern.search(text) for pattern in patterns for text in query.texts), query.texts


def test_training_meets_no_held_out_combination(
    train: list[tuple[Scene, Query]], val: list[tuple[Scene, Query]]
) -> None:
    for scene, query in train:
        assert not query.combination_held_out
        for index in query.targets:
            thing = scene.objects[index]
            assert not is_held_out(thing.colour, thing.kind)
            for text in query.texts:  # "the blue box" is not spoken of either
                assert not any(
                    is_held_out(other.colour, other.kind) and f"{other.colour} {other.kind}" in text
                    for other in scene.objects
                )
    share = np.mean([query.combination_held_out for _, query in val])
    assert 0.15 < share < 0.7
    assert {(query.wording_held_out, query.combination_held_out) for _, query in val} == {
        (a, b) for a in (False, True) for b in (False, True)
    }


def test_the_banks_have_both_sorts_of_wording() -> None:
    for concept, bank in BANKS.items():
        for held_out in (False, True):
            phrases = [text for text in bank if text.startswith("!") is held_out and not is_sentence(text)]
            assert phrases, f"{concept}: no phrase with held_out={held_out}"
            if any("{n}" in text for text in bank):  # may be about a group, which must then be named
                assert any("{n" in text for text in phrases), f"{concept}: held_out={held_out}"


def test_colours_brute_force(train: list[tuple[Scene, Query]]) -> None:
    checked = 0
    for scene, query in train:
        for text in query.texts:
            said = [word for word in re.findall(r"\w+", text) if word in COLOURS]
            if query.concept != "not colour" or len(said) != 1:
                continue
            checked += 1
            answer = tuple(index for index, thing in enumerate(scene.objects) if thing.colour != said[0])
            assert query.targets == answer, text
    assert checked > 50


def test_kinds_brute_force(train: list[tuple[Scene, Query]]) -> None:
    checked = 0
    for scene, query in train:
        if query.concept != "kind count" and query.concept != "most common kind":
            continue
        kinds = [thing.kind for thing in scene.objects]
        own = {kinds[index] for index in query.targets}
        assert len(own) == 1
        assert query.targets == tuple(index for index, kind in enumerate(kinds) if kind in own)
        counts = Counter(kinds)
        number = counts[own.pop()]
        if query.concept == "kind count":
            assert list(counts.values()).count(number) == 1
            assert any(
                word in query.texts[0] for word in (("twice", "two"), ("three",), ("four",))[number - 2]
            )
        else:
            assert number == max(counts.values())
            assert list(counts.values()).count(number) == 1
        checked += 1
    assert checked > 15


RANKS = {
    "largest": len,
    "smallest": lambda points: -len(points),
    "leftmost": lambda points: -points[:, 1].min(),
    "rightmost": lambda points: points[:, 1].max(),
    "topmost": lambda points: -points[:, 0].min(),
    "lowest": lambda points: points[:, 0].max(),
}


def test_superlatives_brute_force(train: list[tuple[Scene, Query]]) -> None:
    checked: Counter[str] = Counter()
    for scene, query in train:
        text = query.texts[0]
        if query.concept not in RANKS or not re.search(r"\b(things?|objects?|items?)\b", text):
            continue
        if re.search(r"round|plain|colou", text):
            continue
        colours = [word for word in text.split() if word in {thing.colour for thing in scene.objects}]
        members = [i for i, thing in enumerate(scene.objects) if not colours or thing.colour == colours[0]]
        values = {i: RANKS[query.concept](np.argwhere(scene.mask(i))) for i in members}
        assert query.targets == (max(values, key=values.__getitem__),), text
        checked[query.concept] += 1
    assert set(checked) == set(RANKS)
    assert sum(checked.values()) > 40


def test_relations_brute_force(train: list[tuple[Scene, Query]]) -> None:
    """Of things to the left and right of one that its colour and kind name; whatever else the sentence says."""
    checked = 0
    for scene, query in train:
        if query.concept not in ("left", "right"):
            continue
        things, sign = scene.objects, -1 if query.concept == "left" else 1
        for text in query.texts:
            words = re.findall(r"\w+", text)
            named = [
                i for i, thing in enumerate(things) if re.search(rf"the {thing.colour} {thing.kind}\b", text)
            ]
            said = [word for word in words if word in COLOURS]
            plain = {"thing", "things", "object", "objects", "item", "items"} & set(words)
            if len(named) != 1 or not plain or re.search(r"round|plain|striped|spotted|checked|other", text):
                continue
            said.remove(things[named[0]].colour)
            if len(said) > 1:
                continue
            middle = [np.mean(thing.box[::2]) * sign for thing in things]
            answer = tuple(
                i
                for i, thing in enumerate(things)
                if middle[i] - middle[named[0]] > 0.02 * scene.width and (not said or thing.colour == said[0])
            )
            assert query.targets == answer, text
            checked += 1
    assert checked > 25


def test_uses_brute_force(train: list[tuple[Scene, Query]]) -> None:
    checked = 0
    for scene, query in train:
        if query.kind == "use":
            fact = FACTS[query.concept.removeprefix("use: ")]
            assert query.targets == tuple(
                i for i, thing in enumerate(scene.objects) if thing.kind in fact.yes
            )
            assert not any(thing.kind in fact.maybe for thing in scene.objects)
            for index in query.targets:  # by use, never by name
                assert not any(
                    re.search(rf"\b{scene.objects[index].kind}\b", text)
                    for text in query.texts
                    if fact.noun is None
                )
            checked += 1
    assert checked > 50


def test_count_limits_the_queries() -> None:
    scene = make_scene(np.random.default_rng(3), split="train")
    assert len(make_queries(scene, np.random.default_rng(4), split="train", count=3)) == 3
    again = make_queries(scene, np.random.default_rng(4), split="train", count=3)
    assert again == make_queries(scene, np.random.default_rng(4), split="train", count=3)


@pytest.mark.parametrize(
    ("wording", "plural", "expected"),
    [
        ("that tells the time", True, "that tell the time"),
        ("that tells the time", False, "that tells the time"),
        ("that carries its house on its back", True, "that carry their house on their back"),
        ("that is made of wax", True, "that are made of wax"),
        ("that bees visit", True, "that bees visit"),
        ("that you sit on", True, "that you sit on"),
        ("Which of these brings rain?", True, "Which of these bring rain?"),
    ],
)
def test_number_of_the_verb(wording: str, plural: bool, expected: str) -> None:
    assert agree(wording, plural) == expected


def test_articles_and_templates() -> None:
    assert article("orange cup") == "an orange cup"
    assert article("red cup") == "a red cup"
    speaker = Speaker(np.random.default_rng(0))
    assert (
        speaker.fill("not a(n) {c}, [it is|they are] {c}", {"c": "apple"}, True)
        == "not an apple, they are apple"
    )
    assert speaker.pick(("!a", "b")) == "b"
    assert not speaker.used_held_out
    tester = Speaker(np.random.default_rng(0), held_out=True)
    assert tester.pick(("!a", "b")) == "a"
    assert tester.used_held_out


def test_val_uses_no_wording_that_is_for_training_alone(val: list[tuple[Scene, Query]]) -> None:
    assert len(TRAINING_ONLY) > 4000
    assert not any(text.startswith("!") for text in TRAINING_ONLY), "a held-out wording is for val and test"
    plain = {text for text in TRAINING_ONLY if is_sentence(text) and not re.search(r"[{\[]", text)}
    assert len(plain) > 500
    assert not any(text in plain for _, query in val for text in query.texts)


def test_training_uses_them(train: list[tuple[Scene, Query]]) -> None:
    plain = {text for text in TRAINING_ONLY if is_sentence(text) and not re.search(r"[{\[]", text)}
    assert sum(text in plain for _, query in train for text in query.texts) > 5


def test_a_speaker_picks_what_its_split_may_use() -> None:
    base, more = BANKS["left"][0], next(text for text in BANKS["left"] if text in TRAINING_ONLY)
    picked = {
        training: {
            Speaker(np.random.default_rng(seed), training=training).pick((base, more)) for seed in range(20)
        }
        for training in (False, True)
    }
    assert picked == {False: {base}, True: {base, more}}
