"""A scene in words: captions, and questions with short answers, to pretrain a small language model on.

Only wordings that training may see are used, and no held-out combination is spoken of.
"""

from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np

from modified_lisa.data.scenes.builders_one import noun_slots
from modified_lisa.data.scenes.drafts import Context, Reference, the
from modified_lisa.data.scenes.facts import FACTS
from modified_lisa.data.scenes.groups import Group, kind_words
from modified_lisa.data.scenes.held_out import HELD_OUT_KINDS
from modified_lisa.data.scenes.judge import SIDES, extreme, has_colour, has_fact, is_kind, larger, on_side
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.data.scenes.scene import Scene, SceneObject
from modified_lisa.data.scenes.speaker import Speaker, article, number_word
from modified_lisa.data.scenes.textures import NAMED_TEXTURES

__all__ = ["describe", "place_word"]

Pair = tuple[str, str]
_CAPTIONS = (
    "Describe the picture.",
    "What do you see?",
    "What is in this picture?",
    "Give a caption for this image.",
)
_LISTS = (
    "List the objects from left to right.",
    "What is there, from left to right?",
    "Name the things from the left to the right.",
)
_COLOUR = ("What colour is {r}?", "Which colour does {r} have?", "Tell me the colour of {r}.")
_WHAT = ("What is {r}?", "What kind of thing is {r}?", "What do you call {r}?")
_WHERE = ("Where is {r}?", "Where in the picture is {r}?", "In which part of the picture is {r}?")
_COUNT = ("How many {ns} are there?", "How many {ns} can you see?", "Count the {ns}.")
_THERE = ("Is there a(n) {n1}?", "Can you see a(n) {n1}?", "Is there a(n) {n1} in the picture?")
_SIDE_ASK = ("Is {r} {d} {q}?", "Would you say that {r} is {d} {q}?")
_SIDE_WORDS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}
_LARGER = ("Which is larger, {r} or {q}?", "Which of the two is bigger: {r} or {q}?")
_CAN = ("Is there something {c}?", "Is there anything here {c}?")
_BEHIND = ("What is the background?", "What is behind the objects?", "Where was this picture taken?")
_FAMILIAR = [kind for kind in KINDS if kind not in HELD_OUT_KINDS]
_FAMILIAR_FACTS = [name for name, fact in FACTS.items() if not fact.yes <= HELD_OUT_KINDS]
_RANKS = ("largest", "smallest", "leftmost", "rightmost", "topmost", "lowest", "tallest", "widest")


def describe(scene: Scene, rng: np.random.Generator) -> list[Pair]:
    """Pairs (question, answer) that are true of the scene, some tens of them, captions first."""
    context = Context(scene, rng, held_out=False)
    speaker = Speaker(rng)
    pairs = _captions(context, speaker)
    for make in (_of_references, _of_ranks, _of_uses, _counts, _existence, _sides, _sizes, _pattern):
        pairs += make(context, Speaker(rng))
    pairs.append((speaker.choose(_BEHIND), scene.background))
    return list(dict.fromkeys(pairs))


def place_word(scene: Scene, thing: SceneObject) -> str | None:
    """In which ninth of the picture its middle is ("top left", "centre"); None near a border of two."""
    words = []
    for value, extent, names in (
        (thing.centre[1], scene.height, ("top", "", "bottom")),
        (thing.centre[0], scene.width, ("left", "", "right")),
    ):
        part = value / extent
        if 0.34 < part < 0.4 or 0.6 < part < 0.66:
            return None
        words.append(names[0 if part <= 0.34 else 1 if part <= 0.6 else 2])
    return " ".join(word for word in words if word) or "centre"


def _noun(thing: SceneObject, speaker: Speaker) -> str:
    """ "red ball", "striped blue cup"."""
    pattern = f"{thing.texture} " if thing.texture in NAMED_TEXTURES else ""
    return f"{pattern}{thing.colour} {kind_words(thing.kind)(speaker, False)}"


def _listing(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _captions(context: Context, speaker: Speaker) -> list[Pair]:
    scene = context.scene
    things = [thing for thing in scene.objects if context.may_use(thing.pairs)]
    if len(things) < len(scene.objects):
        return []
    by_size = sorted(things, key=lambda thing: -thing.area)
    pairs = [
        (speaker.choose(_CAPTIONS), f"{_sentence(_grouped(by_size, speaker))} before {scene.background}.")
    ]
    columns = sorted(things, key=lambda thing: thing.centre[0])
    gaps = [(b.centre[0] - a.centre[0]) / scene.width for a, b in pairwise(columns)]
    if min(gaps) > 0.04:
        pairs.append(
            (speaker.choose(_LISTS), _listing([article(_noun(thing, speaker)) for thing in columns]))
        )
    placed = [(thing, place_word(scene, thing)) for thing in by_size[:4]]
    words = [f"{article(_noun(thing, speaker))} {_at(place)}" for thing, place in placed if place]
    if words:
        pairs.append(("Describe where the largest things are.", f"{_sentence(_listing(words))}."))
    return pairs


def _grouped(things: list[SceneObject], speaker: Speaker) -> str:
    counts = Counter((thing.colour, thing.kind) for thing in things)
    names = []
    for (colour, kind), count in counts.items():
        singular, plural = speaker.word(kind, KINDS[kind].names)
        names.append(
            article(f"{colour} {singular}") if count == 1 else f"{number_word(count)} {colour} {plural}"
        )
    return _listing(names)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _at(place: str) -> str:
    return "in the centre" if place == "centre" else f"at the {place}"


def _ask(speaker: Speaker, templates: tuple[str, ...], **slots: object) -> str:
    return speaker.fill(speaker.choose(templates), slots, False)  # type: ignore[arg-type]


def _about(context: Context, speaker: Speaker, reference: Reference, *, named: bool) -> list[Pair]:
    """Colour, kind and place of one object; the kind only when its name was not given away."""
    thing = context.scene.objects[reference.index]
    words = reference.words(speaker, False)
    pairs = []
    if thing.colour not in words.split() and context.may_use({(thing.colour, thing.kind)}):
        pairs.append((_ask(speaker, _COLOUR, r=words), thing.colour))
    if not named:
        pairs.append((_ask(speaker, _WHAT, r=words), article(KINDS[thing.kind].name)))
    place = place_word(context.scene, thing)
    if place:
        pairs.append((_ask(speaker, _WHERE, r=words), place))
    return pairs


def _of_references(context: Context, speaker: Speaker) -> list[Pair]:
    pairs: list[Pair] = []
    for group in context.groups:
        if len(group.members) == 1 and group.label != "any":
            named = group.kind is not None
            pairs += _about(
                context, speaker, Reference(group.members[0], the(group), group.pairs), named=named
            )
    return pairs


def _of_ranks(context: Context, speaker: Speaker) -> list[Pair]:
    pairs: list[Pair] = []
    for rank in _RANKS:
        group = context.any if context.rng.random() < 0.6 else context.pick_group("kind", "colour", least=2)
        index = extreme(context.scene, group.members, rank) if group and len(group.members) > 1 else None
        if index is None or group is None or not context.may_use(context.pairs_of(rank, group)):
            continue
        reference = Reference(index, _ranked(rank, group), group.pairs)
        pairs += _about(context, speaker, reference, named=group.kind is not None)
    return pairs


def _ranked(rank: str, group: Group) -> Callable[[Speaker, bool], str]:
    return lambda speaker, plural: (
        f"the {'highest' if rank == 'topmost' else rank} {group.noun(speaker, False)}"
    )


def _of_uses(context: Context, speaker: Speaker) -> list[Pair]:
    pairs: list[Pair] = []
    for _ in range(4):
        reference = context.reference_by_use()
        if reference is not None:
            pairs += _about(context, speaker, reference, named=False)
    for name in context.rng.choice(_FAMILIAR_FACTS, 8, replace=False):
        verdicts = [has_fact(thing, str(name)) for thing in context.scene.objects]
        if True in verdicts or None not in verdicts:
            clause = speaker.pick([text for text in FACTS[str(name)].wordings if text.startswith("that ")])
            question = _ask(speaker, _CAN, c=speaker.fill(clause, {}, False))
            pairs.append((question, "yes" if True in verdicts else "no"))
    return pairs


def _counts(context: Context, speaker: Speaker) -> list[Pair]:
    groups = [group for group in context.groups if group.label != "texture kind"]
    return [(_ask(speaker, _COUNT, **noun_slots(group)), number_word(len(group.members))) for group in groups]


def _existence(context: Context, speaker: Speaker) -> list[Pair]:
    pairs = []
    things = context.scene.objects
    for kind in context.rng.choice(_FAMILIAR, 3, replace=False):
        name = KINDS[str(kind)].name
        verdicts = [is_kind(thing, name) for thing in things]
        if None not in verdicts:
            pairs.append((_ask(speaker, _THERE, n1=name), "yes" if True in verdicts else "no"))
    for _ in range(3):
        kind = things[int(context.rng.integers(len(things)))].kind
        colour = things[int(context.rng.integers(len(things)))].colour
        own = [thing for thing in things if is_kind(thing, kind) is not False]
        verdicts = [None if is_kind(thing, kind) is None else has_colour(thing, colour) for thing in own]
        if None not in verdicts and context.may_use({(colour, kind)}):
            question = _ask(speaker, _THERE, n1=f"{colour} {KINDS[kind].name}")
            pairs.append((question, "yes" if True in verdicts else "no"))
    return pairs


def _sides(context: Context, speaker: Speaker) -> list[Pair]:
    pairs = []
    for _ in range(5):
        first, second = context.reference(), context.reference()
        if first is None or second is None or first.index == second.index:
            continue
        side = tuple(SIDES)[int(context.rng.integers(4))]
        a, b = (context.scene.objects[reference.index] for reference in (first, second))
        verdict = on_side(context.scene, a, b, side)
        if verdict is None or not context.may_use({(side, b.kind)}):
            continue
        words = (first.words(speaker, False), second.words(speaker, False))
        pairs.append(
            (
                _ask(speaker, _SIDE_ASK, r=words[0], q=words[1], d=_SIDE_WORDS[side]),
                "yes" if verdict else "no",
            )
        )
    return pairs


def _sizes(context: Context, speaker: Speaker) -> list[Pair]:
    pairs = []
    for _ in range(3):
        first, second = context.reference(), context.reference()
        if first is None or second is None or first.index == second.index:
            continue
        verdict = larger(context.scene.objects[first.index], context.scene.objects[second.index])
        words = (first.words(speaker, False), second.words(speaker, False))
        if verdict is not None:
            pairs.append((_ask(speaker, _LARGER, r=words[0], q=words[1]), words[0] if verdict else words[1]))
    return pairs


def _pattern(context: Context, speaker: Speaker) -> list[Pair]:
    pairs = []
    for group in context.groups:
        if group.label not in ("kind", "colour kind") or len(group.members) != 1:
            continue
        thing = context.scene.objects[group.members[0]]
        if thing.texture in NAMED_TEXTURES and context.may_use({(thing.texture, thing.kind)}):
            words = the(group)(speaker, False)
            pairs.append(
                (
                    _ask(speaker, ("What pattern does {r} have?", "What is the pattern on {r}?"), r=words),
                    thing.texture,
                )
            )
    return pairs
