"""Builders of queries about how objects stand to each other: relations, two steps, several targets."""

from modified_lisa.data.scenes.builders_one import noun_slots, templates_about
from modified_lisa.data.scenes.drafts import Context, Draft, Reference
from modified_lisa.data.scenes.groups import Group, Words
from modified_lisa.data.scenes.judge import (
    SIDES,
    between,
    covers,
    extreme,
    is_kind,
    nearest,
    on_side,
    ordered,
    same_colour,
)
from modified_lisa.data.scenes.speaker import number_word
from modified_lisa.data.scenes.wordings import BANKS

__all__ = ["relation", "several", "two_step"]

_RELATIONS = (*SIDES, "next to", "nearest to", "farthest from", "in front of", "behind", "same colour as")
_SIDE_WORDS = {"left": "to the left of", "right": "to the right of", "above": "above", "below": "below"}


def relation(context: Context) -> Draft | None:
    """What stands in some relation to a plainly named object."""
    roll = context.rng.random()
    if roll < 0.12:
        return _between(context)
    if roll < 0.2:
        return _same_kind(context)
    reference = context.reference()
    return _related(context, reference, _RELATIONS) if reference else None


def two_step(context: Context) -> Draft | None:
    """The other object is itself to be found first, or the answer to be ranked after a relation."""
    roll = context.rng.random()
    if roll < 0.3:
        return _rank_on_side(context)
    reference = context.reference_by_use() if roll < 0.75 else context.reference_by_rank()
    return _related(context, reference, _RELATIONS) if reference else None


def _related(context: Context, reference: Reference, relations: tuple[str, ...]) -> Draft | None:
    scene, things = context.scene, context.scene.objects
    concept = relations[int(context.rng.integers(len(relations)))]
    if context.rng.random() < 0.35:  # rare relations are tried first where they hold
        if things[reference.index].hidden_by:
            concept = "in front of"
        elif any(reference.index in thing.hidden_by for thing in things):
            concept = "behind"
    group = context.noun_group(2)
    if group is None or (concept == "same colour as" and group.label == "colour"):
        return None
    others = [index for index in group.members if index != reference.index]
    target = things[reference.index]
    if concept in ("next to", "nearest to", "farthest from"):
        found = nearest(
            scene, others, reference.index, close=concept == "next to", far=concept == "farthest from"
        )
        targets: tuple[int, ...] = () if found is None else (found,)
    else:
        verdicts = [_holds(context, concept, index, reference.index) for index in others]
        if None in verdicts or len(others) < 2:
            return None
        targets = tuple(index for index, verdict in zip(others, verdicts, strict=True) if verdict)
    pairs = reference.pairs | group.pairs | {(concept, target.kind)}
    templates = templates_about(concept, group)
    if reference.index not in group.members:  # "the other cup" only when the one it is measured from is a cup
        templates = tuple(text for text in templates if "other {n}" not in text)
    return Draft(concept, templates, {**noun_slots(group), "r": reference.words}, targets, pairs)


def _holds(context: Context, concept: str, index: int, reference: int) -> bool | None:
    things = context.scene.objects
    a, b = things[index], things[reference]
    if concept in SIDES:
        return on_side(context.scene, a, b, concept)
    if concept == "in front of":
        return covers(a, b, index)
    if concept == "behind":
        return covers(b, a, reference)
    return same_colour(a, b)


def _between(context: Context) -> Draft | None:
    first, second = context.reference(), context.reference()
    if first is None or second is None or first.index == second.index:
        return None
    things, group = context.scene.objects, context.any
    others = [index for index in group.members if index not in (first.index, second.index)]
    verdicts = [between(things[first.index], things[second.index], things[index]) for index in others]
    if None in verdicts or len(others) < 2:
        return None
    targets = tuple(index for index, verdict in zip(others, verdicts, strict=True) if verdict)
    pairs = first.pairs | second.pairs | {("between", things[first.index].kind)}
    slots = {**noun_slots(group), "r": first.words, "q": second.words}
    return Draft("between", BANKS["between"], slots, targets, pairs)


def _same_kind(context: Context) -> Draft | None:
    named = [
        group for group in context.groups if len(group.members) == 1 and group.label in ("colour", "texture")
    ]
    group = context.some(named)
    if group is None:
        return None
    things, index = context.scene.objects, group.members[0]
    others = [other for other in range(len(things)) if other != index]
    verdicts = [is_kind(things[other], things[index].kind) for other in others]
    if None in verdicts or len(others) < 2:
        return None
    targets = tuple(other for other, verdict in zip(others, verdicts, strict=True) if verdict)
    slots = {**noun_slots(context.any), "r": lambda speaker, plural: f"the {group.noun(speaker, False)}"}
    return Draft("same kind as", BANKS["same kind as"], slots, targets, group.pairs)


def _rank_on_side(context: Context) -> Draft | None:
    scene, rng = context.scene, context.rng
    reference = context.reference_by_use() if rng.random() < 0.4 else context.reference()
    group = context.noun_group(3)
    if reference is None or group is None:
        return None
    side = tuple(SIDES)[int(rng.integers(4))]
    others = [index for index in group.members if index != reference.index]
    verdicts = [
        on_side(scene, scene.objects[index], scene.objects[reference.index], side) for index in others
    ]
    if None in verdicts:
        return None
    there = [index for index, verdict in zip(others, verdicts, strict=True) if verdict]
    rank = "largest" if rng.random() < 0.5 else "smallest"
    found = extreme(scene, there, rank) if len(there) >= 2 else None
    if found is None:
        return None
    concept = f"{rank} on side"
    slots = {**noun_slots(group), "r": reference.words, "d": _SIDE_WORDS[side]}
    pairs = reference.pairs | group.pairs | {(side, scene.objects[reference.index].kind)}
    return Draft(concept, BANKS[concept], slots, (found,), pairs)


def several(context: Context) -> Draft | None:
    """All of a group, two objects, two groups, the first few, half of the picture."""
    roll = context.rng.random()
    if roll < 0.2:
        group = context.pick_group(
            "kind", "colour", "fact", "fact", "colour kind", "texture", "texture kind", least=2
        )
        if group is None:
            return None
        slots = {**noun_slots(group), "m": number_word(len(group.members))}
        return Draft("all", BANKS["all"], slots, group.members, group.pairs)
    if roll < 0.38:
        return _both(context)
    if roll < 0.48:
        return _two_groups(context)
    if roll < 0.82:
        return _first_few(context)
    return _half(context)


def _both(context: Context) -> Draft | None:
    """Two objects, of which at least one must be found out."""
    first = context.reference()
    second = (context.reference, context.reference_by_use, context.reference_by_rank)[
        int(context.rng.integers(3))
    ]()
    if first is None or second is None or first.index == second.index:
        return None
    slots = {**noun_slots(context.any), "r": first.words, "q": second.words}
    return Draft("both", BANKS["both"], slots, (first.index, second.index), first.pairs | second.pairs)


def _two_groups(context: Context) -> Draft | None:
    first, second = (context.pick_group("kind", "colour", least=2) for _ in range(2))
    if (
        first is None
        or second is None
        or first.label != second.label
        or set(first.members) & set(second.members)
    ):
        return None
    slots = noun_slots(first)
    slots |= {"ns1": slots["n1"], "ms": _always(second, True), "ms1": _always(second, False)}
    targets = tuple(sorted(first.members + second.members))
    return Draft("two groups", BANKS["two groups"], slots, targets, first.pairs | second.pairs)


def _always(group: Group, plural: bool) -> Words:
    return lambda speaker, _: group.noun(speaker, plural)


def _first_few(context: Context) -> Draft | None:
    group = context.noun_group(3)
    if group is None:
        return None
    rank = ("largest", "smallest", "leftmost", "rightmost", "lowest", "topmost")[int(context.rng.integers(6))]
    number = int(context.rng.integers(2, min(len(group.members), 4)))
    found = ordered(context.scene, group.members, rank, number)
    if found is None:
        return None
    slots = {**noun_slots(group), "m": number_word(number), "c": "highest" if rank == "topmost" else rank}
    pairs = context.pairs_of(rank, group)
    return Draft("first few", BANKS["first few"], slots, tuple(sorted(found)), pairs)


def _half(context: Context) -> Draft | None:
    scene, axis = context.scene, int(context.rng.integers(2))
    low, middle = bool(context.rng.random() < 0.5), (scene.width, scene.height)[axis] / 2
    verdicts = [
        True if thing.box[axis + 2] <= middle else False if thing.box[axis] >= middle else None
        for thing in scene.objects
    ]
    if None in verdicts:
        return None
    word = (("right", "left"), ("lower", "upper"))[axis][low]
    targets = tuple(index for index, verdict in enumerate(verdicts) if verdict is low)
    return Draft("half", BANKS["half"], {**noun_slots(context.any), "c": word}, targets)
