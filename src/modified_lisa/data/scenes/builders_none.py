"""Builders of queries that nothing in the scene answers, in the words of those that something does.

Most ask for what is nearly there: the kind in another colour, the colour on another kind, the far side of
the outermost object. Only what is beyond doubt absent is asked for (`judge.py`).
"""

from collections.abc import Iterable

from modified_lisa.data.scenes.builders_one import noun_slots, templates_about, texture_slots, use_templates
from modified_lisa.data.scenes.colours import COLOURS
from modified_lisa.data.scenes.drafts import Context, Draft, the
from modified_lisa.data.scenes.facts import FACTS
from modified_lisa.data.scenes.groups import Group, kind_words
from modified_lisa.data.scenes.held_out import HELD_OUT_KINDS
from modified_lisa.data.scenes.judge import (
    SIDES,
    covers,
    has_colour,
    has_fact,
    has_texture,
    is_kind,
    larger,
    on_side,
)
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.data.scenes.speaker import Slot
from modified_lisa.data.scenes.textures import NAMED_TEXTURES
from modified_lisa.data.scenes.wordings import BANKS

__all__ = ["nothing"]

_SEVERAL = 0.2  # of the queries speak of several things, as those with answers do


def nothing(context: Context) -> Draft | None:
    """A query without an answer; its ``concept`` starts with "none: "."""
    roll = context.rng.random()
    for share, build in _BUILDERS:
        roll -= share
        if roll < 0:
            return build(context)
    return _name(context)


def _draft(
    context: Context,
    concept: str,
    templates: tuple[str, ...],
    slots: dict[str, Slot],
    pairs: Iterable[tuple[str, str]] = (),
) -> Draft:
    plural = bool(context.rng.random() < _SEVERAL)
    return Draft(f"none: {concept}", templates, slots, (), frozenset(pairs), plural)


def _absent_kind(context: Context) -> Group | None:
    """A kind that no object is, or could be taken for."""
    kinds = [kind for kind in KINDS if context.held_out or kind not in HELD_OUT_KINDS]
    kind = kinds[int(context.rng.integers(len(kinds)))]
    if any(is_kind(thing, kind) is not False for thing in context.scene.objects):
        return None
    return Group("kind", (), kind_words(kind), kind=kind)


def _name(context: Context) -> Draft | None:
    group = _absent_kind(context)
    return _draft(context, "name", BANKS["name"], noun_slots(group)) if group else None


def _colour(context: Context) -> Draft | None:
    colour = tuple(COLOURS)[int(context.rng.integers(len(COLOURS)))]
    if any(has_colour(thing, colour) is not False for thing in context.scene.objects):
        return None
    return _draft(context, "colour", BANKS["colour"], {**noun_slots(context.any), "c": colour})


def _kind_and_colour(context: Context) -> Draft | None:
    """A kind that is there, in a colour that it is not; mostly one that another object has."""
    things, rng = context.scene.objects, context.rng
    group = context.pick_group("kind")
    if group is None or group.kind is None:
        return None
    colours = [thing.colour for thing in things] if rng.random() < 0.75 else list(COLOURS)
    colour = colours[int(rng.integers(len(colours)))]
    if any(has_colour(things[index], colour) is not False for index in group.members):
        return None
    slots = {**noun_slots(group), "c": colour}
    return _draft(context, "kind and colour", BANKS["kind and colour"], slots, {(colour, group.kind)})


def _texture(context: Context) -> Draft | None:
    things, rng = context.scene.objects, context.rng
    texture = NAMED_TEXTURES[int(rng.integers(len(NAMED_TEXTURES)))]
    group = context.pick_group("kind") if rng.random() < 0.5 else context.any
    if group is None or any(has_texture(things[index], texture) is not False for index in group.members):
        return None
    concept = "kind and texture" if group.kind else "texture"
    slots = {**noun_slots(group), **texture_slots(context, texture)}
    return _draft(context, concept, BANKS[concept], slots, {(texture, group.kind)} if group.kind else ())


def _use(context: Context) -> Draft | None:
    names = list(FACTS) if context.held_out else _FAMILIAR_FACTS
    name = names[int(context.rng.integers(len(names)))]
    if any(has_fact(thing, name) is not False for thing in context.scene.objects):
        return None
    several = bool(context.rng.random() < _SEVERAL)
    return Draft(
        f"none: use: {name}",
        use_templates(name, several, training=not context.held_out),
        noun_slots(context.any),
        (),
        plural=several,
    )


def _relation(context: Context) -> Draft | None:
    """Nothing stands there, or nothing is that large."""
    things, scene = context.scene.objects, context.scene
    reference, group = context.reference(), context.noun_group(2)
    if reference is None or group is None:
        return None
    concepts = (*SIDES, *SIDES, "in front of", "behind", "larger than", "smaller than")
    concept = concepts[int(context.rng.integers(len(concepts)))]
    target = things[reference.index]
    verdicts: list[bool | None] = []
    for index in group.members:
        thing = things[index]
        if index == reference.index:
            continue
        if concept in SIDES:
            verdicts.append(on_side(scene, thing, target, concept))
        elif concept == "in front of":
            verdicts.append(covers(thing, target, index))
        elif concept == "behind":
            verdicts.append(covers(target, thing, reference.index))
        else:
            verdict = larger(thing, target)
            verdicts.append(verdict if verdict is None else verdict is (concept == "larger than"))
    if not verdicts or any(verdict is not False for verdict in verdicts):
        return None
    pairs = reference.pairs | group.pairs | {(concept, target.kind)}
    templates = templates_about(concept, group)
    return _draft(context, concept, templates, {**noun_slots(group), "r": reference.words}, pairs)


def _next_to_nothing(context: Context) -> Draft | None:
    """A relation to an object that is not there."""
    group = _absent_kind(context)
    if group is None or group.kind is None:
        return None
    concepts = (*SIDES, "next to", "nearest to")
    concept = concepts[int(context.rng.integers(len(concepts)))]
    slots = {**noun_slots(context.any), "r": the(group)}
    draft = _draft(context, concept, BANKS[concept], slots, {(concept, group.kind)})
    if concept in SIDES:
        return draft
    return Draft(draft.concept, draft.templates, draft.slots, (), draft.pairs, False)


_FAMILIAR_FACTS = [name for name, fact in FACTS.items() if not fact.yes <= HELD_OUT_KINDS]
_BUILDERS = (
    (0.2, _name),
    (0.08, _colour),
    (0.3, _kind_and_colour),
    (0.06, _texture),
    (0.16, _use),
    (0.14, _relation),
    (0.06, _next_to_nothing),
)
"""Shares, and what is asked for."""
