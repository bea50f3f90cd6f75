"""Builders of queries about the objects themselves: attributes, superlatives, counts, negation, use."""

from collections import Counter

from modified_lisa.data.scenes.drafts import Context, Draft, agree
from modified_lisa.data.scenes.facts import FACTS
from modified_lisa.data.scenes.groups import Group
from modified_lisa.data.scenes.judge import (
    extreme,
    has_colour,
    has_fact,
    has_texture,
    is_kind,
    larger,
    ordered,
)
from modified_lisa.data.scenes.speaker import Slot, Speaker, is_sentence, number_word
from modified_lisa.data.scenes.textures import NAMED_TEXTURES
from modified_lisa.data.scenes.wordings import BANKS, TEXTURE_WORDS, TRAINING_ONLY

__all__ = [
    "attribute",
    "comparison",
    "counting",
    "negation",
    "noun_slots",
    "superlative",
    "templates_about",
    "texture_slots",
    "use",
    "use_templates",
]

_RANKS = ("largest", "smallest", "tallest", "widest", "leftmost", "rightmost", "topmost", "lowest", "central")
_CORNERS = ("top left", "top right", "bottom left", "bottom right")
_HEADS = ("what", "something", "anything")
_ENDS = {"left": "leftmost", "right": "rightmost", "top": "topmost", "bottom": "lowest"}


def noun_slots(group: Group) -> dict[str, Slot]:
    """The slots that speak of a group: {n}, {n1}, {ns}, {t}, {ts}."""
    return {
        "n": group.noun,
        "n1": lambda speaker, plural: group.noun(speaker, False),
        "ns": lambda speaker, plural: group.noun(speaker, True),
        "t": Speaker.thing,
        "t1": lambda speaker, plural: speaker.thing(False),
        "ts": lambda speaker, plural: speaker.thing(True),
    }


def templates_about(concept: str, group: Group) -> tuple[str, ...]:
    """The wordings of a concept; unless all objects are meant, those that say which ("{n}")."""
    return tuple(text for text in BANKS[concept] if group.label == "any" or "{n" in text)


def texture_slots(context: Context, texture: str) -> dict[str, Slot]:
    """The slots that speak of a pattern: {c}, {d}, {e}."""
    words = TEXTURE_WORDS[texture]
    return {"c": words[int(context.rng.integers(len(words)))], "d": texture, "e": words[0]}


def attribute(context: Context) -> Draft | None:
    """By colour, pattern, kind, or two of these."""
    labels = ("colour", "texture", "kind", "colour kind", "colour kind", "texture kind", "fact")
    group = context.pick_group(labels[int(context.rng.integers(len(labels)))])
    if group is None:
        return None
    slots = noun_slots(group)
    if group.label == "colour":
        return Draft("colour", BANKS["colour"], {**slots, "c": group.colour or ""}, group.members)
    if group.label == "texture":
        extra = texture_slots(context, group.texture or "")
        return Draft("texture", BANKS["texture"], {**slots, **extra}, group.members)
    if group.label in ("kind", "fact"):
        return Draft("name", BANKS["name"], slots, group.members)
    base = next(
        (other for other in context.groups if other.label == "kind" and other.kind == group.kind), None
    )
    if base is None or len(base.members) == len(group.members):
        return Draft("name", BANKS["name"], slots, group.members, group.pairs)
    slots = noun_slots(base)
    if group.label == "colour kind":
        slots |= {"c": group.colour or ""}
        return Draft("kind and colour", BANKS["kind and colour"], slots, group.members, group.pairs)
    slots |= texture_slots(context, group.texture or "")
    return Draft("kind and texture", BANKS["kind and texture"], slots, group.members, group.pairs)


def superlative(context: Context) -> Draft | None:
    """The largest, the leftmost, the second from the left."""
    scene, rng = context.scene, context.rng
    group = context.noun_group(2)
    if group is None:
        return None
    slots, roll = noun_slots(group), rng.random()
    if roll < 0.66:
        concept = _RANKS[int(rng.integers(len(_RANKS)))]
        found = extreme(scene, group.members, concept)
    elif roll < 0.78:
        corner = _CORNERS[int(rng.integers(4))]
        concept, found = "corner", extreme(scene, group.members, corner)
        slots |= {"c": corner}
    elif roll < 0.93 and len(group.members) >= 3:
        end = tuple(_ENDS)[int(rng.integers(4))]
        place = int(rng.integers(2, min(len(group.members), 4)))
        order = ordered(scene, group.members, _ENDS[end], place)
        concept, found = "nth", order[place - 1] if order else None
        slots |= {"c": ("", "first", "second", "third")[place], "d": end, "m": number_word(place)}
    else:
        order = ordered(scene, group.members, "largest", 2) if len(group.members) >= 3 else None
        concept, found = "second largest", order[1] if order else None
    if found is None:
        return None
    return Draft(concept, templates_about(concept, group), slots, (found,), context.pairs_of(concept, group))


def comparison(context: Context) -> Draft | None:
    """All that is larger, or smaller, than a named object."""
    reference, group = context.reference(), context.noun_group(2)
    if reference is None or group is None:
        return None
    concept = "larger than" if context.rng.random() < 0.5 else "smaller than"
    things = context.scene.objects
    others = [index for index in group.members if index != reference.index]
    verdicts = [larger(things[index], things[reference.index]) for index in others]
    if None in verdicts or len(others) < 2:
        return None
    wanted = concept == "larger than"
    targets = tuple(index for index, verdict in zip(others, verdicts, strict=True) if verdict is wanted)
    slots = {**noun_slots(group), "r": reference.words}
    pairs = reference.pairs | context.pairs_of(concept, group) | {(concept, things[reference.index].kind)}
    return Draft(concept, templates_about(concept, group), slots, targets, pairs)


def counting(context: Context) -> Draft | None:
    """By how many there are of a kind or a colour."""
    things = context.scene.objects
    by_kind = context.rng.random() < 0.5
    names = [thing.kind if by_kind else thing.colour for thing in things]
    test = is_kind if by_kind else has_colour
    if len(things) < 3 or any(test(thing, name) is None for thing in things for name in set(names)):
        return None
    counts = Counter(names)
    word, slots = ("kind" if by_kind else "colour"), noun_slots(context.any)
    options: list[tuple[str, str, int]] = []
    for number in (2, 3, 4):
        found = [name for name, count in counts.items() if count == number]
        if len(found) == 1:
            options.append((f"{word} count", found[0], number))
    ranked = counts.most_common()
    if len(ranked) > 1 and ranked[0][1] > ranked[1][1]:
        options.append((f"most common {word}", ranked[0][0], ranked[0][1]))
    single = [name for name, count in counts.items() if count == 1]
    if len(single) == 1 and len(things) > 2:
        options.append((f"only one of its {word}", single[0], 1))
    if not options:
        return None
    concept, name, number = options[int(context.rng.integers(len(options)))]
    targets = tuple(index for index, own in enumerate(names) if own == name)
    templates = BANKS[concept]
    if number == 2:  # "twice" is what people say
        templates = tuple(text.replace("{m} times", "twice") for text in templates)
    return Draft(concept, templates, slots | {"m": number_word(number)}, targets)


def negation(context: Context) -> Draft | None:
    """All but those of a colour, a kind, a class or a pattern."""
    rng, things = context.rng, context.scene.objects
    slots = noun_slots(context.any)
    roll = rng.random()
    if roll < 0.12:
        reference = context.reference()
        if reference is None:
            return None
        targets = tuple(index for index in range(len(things)) if index != reference.index)
        return Draft("all but", BANKS["all but"], slots | {"r": reference.words}, targets, reference.pairs)
    if roll < 0.45:
        group = context.pick_group("kind", "fact", "fact")
        if group is None:
            return None
        test = is_kind if group.kind else has_fact
        slots |= noun_slots(group)
        verdicts = [test(thing, group.kind or group.fact or "") for thing in things]
        concept = "not kind"
    elif roll < 0.6:
        texture = NAMED_TEXTURES[int(rng.integers(3))]
        slots |= texture_slots(context, texture)
        verdicts, concept = [has_texture(thing, texture) for thing in things], "without texture"
    elif roll < 0.85:
        group = context.pick_group("kind", least=2) if rng.random() < 0.6 else context.any
        if group is None:
            return None
        own = [things[index].colour for index in group.members]
        colour = own[int(rng.integers(len(own)))]
        verdicts = [has_colour(thing, colour) for thing in things]
        if group.label == "kind":
            verdicts = [verdict if index in group.members else True for index, verdict in enumerate(verdicts)]
        slots |= noun_slots(group) | {"c": colour}
        concept = "kind not colour" if group.label == "kind" else "not colour"
    else:
        colours = list(dict.fromkeys(thing.colour for thing in things))
        if len(colours) < 3:
            return None
        first, second = (colours[int(index)] for index in rng.choice(len(colours), 2, replace=False))
        first_is, second_is = ([has_colour(thing, colour) for thing in things] for colour in (first, second))
        verdicts = [None if None in both else any(both) for both in zip(first_is, second_is, strict=True)]
        slots |= {"c": first, "d": second}
        concept = "neither"
    if None in verdicts or not any(verdicts):
        return None
    targets = tuple(index for index, verdict in enumerate(verdicts) if verdict is False)
    return Draft(concept, BANKS[concept], slots, targets)


def use(context: Context) -> Draft | None:
    """By what it is for or what it can do, never by name."""
    name = context.some_fact(single=context.rng.random() < 0.4)
    if name is None:
        return None
    targets = context.with_fact(name) or ()
    return Draft(
        f"use: {name}",
        use_templates(name, len(targets) > 1, training=not context.held_out),
        noun_slots(context.any),
        targets,
    )


def use_templates(name: str, several: bool, *, training: bool) -> tuple[str, ...]:
    """The wordings of a fact, for one target or several; with those that are for ``training`` alone."""
    templates = []
    for wording in FACTS[name].wordings:
        if wording in TRAINING_ONLY and not training:
            continue
        mark = "!" if wording.startswith("!") else ""
        text = wording.lstrip("!")
        if text.startswith("that "):
            templates.append(f"{mark}the {{t}} {agree(text, several)}")
            if not several:
                templates += [
                    f"{mark}{head} {text.removeprefix('that ') if head == 'what' else text}"
                    for head in _HEADS
                ]
        elif not several or is_sentence(text) or "[" in text or text.startswith("what "):
            templates.append(mark + agree(text, several))
    return tuple(templates)
