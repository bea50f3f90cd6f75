"""Ways to speak of the objects of a scene: by kind, colour, pattern, or what they are."""

from collections.abc import Callable
from dataclasses import dataclass, field

from modified_lisa.data.scenes.facts import FACTS
from modified_lisa.data.scenes.judge import has_colour, has_fact, has_texture, is_kind
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.data.scenes.scene import Scene, SceneObject
from modified_lisa.data.scenes.speaker import Speaker
from modified_lisa.data.scenes.textures import NAMED_TEXTURES

__all__ = ["Group", "Words", "groups_of", "kind_words"]

Words = Callable[[Speaker, bool], str]
"""The words, given who speaks and whether for several."""


@dataclass(frozen=True)
class Group:
    """All objects of a scene that a noun covers, none of them in doubt. Indices into `Scene.objects`."""

    label: str
    """any, kind, colour, texture, colour kind, texture kind, fact."""
    members: tuple[int, ...]
    noun: Words = field(repr=False, compare=False)
    pairs: frozenset[tuple[str, str]] = frozenset()
    """Combinations that the noun itself makes."""
    colour: str | None = None
    kind: str | None = None
    texture: str | None = None
    fact: str | None = None


def kind_words(kind: str) -> Words:
    """The name of a kind or another name for it, the same all through one text."""
    return lambda speaker, plural: speaker.word(kind, KINDS[kind].names)[int(plural)]


def _with(adjective: str, noun: Words) -> Words:
    return lambda speaker, plural: f"{adjective} {noun(speaker, plural)}"


def _things(speaker: Speaker, plural: bool) -> str:
    return speaker.thing(plural)


def _fact_words(fact: str) -> Words:
    noun = FACTS[fact].noun or ("thing", "things")
    return lambda speaker, plural: noun[int(plural)]


def _members(scene: Scene, *tests: tuple[Callable[[SceneObject, str], bool | None], str]) -> tuple[int, ...]:
    """Objects that pass all tests; none at all when one of them is in doubt."""
    found = []
    for index, thing in enumerate(scene.objects):
        verdicts = [test(thing, word) for test, word in tests]
        if False in verdicts:
            continue
        if None in verdicts:
            return ()
        found.append(index)
    return tuple(found)


def groups_of(scene: Scene) -> list[Group]:
    """Every group with at least one member; the first is the group of all objects."""
    things = scene.objects
    groups = [Group("any", tuple(range(len(things))), _things)]
    for colour in dict.fromkeys(thing.colour for thing in things):
        members = _members(scene, (has_colour, colour))
        groups.append(Group("colour", members, _with(colour, _things), colour=colour))
    for texture in dict.fromkeys(thing.texture for thing in things if thing.texture in NAMED_TEXTURES):
        members = _members(scene, (has_texture, texture))
        groups.append(Group("texture", members, _with(texture, _things), texture=texture))
    for kind in dict.fromkeys(thing.kind for thing in things):
        words = kind_words(kind)
        groups.append(Group("kind", _members(scene, (is_kind, kind)), words, kind=kind))
        own = [thing for thing in things if thing.kind == kind]
        for colour in dict.fromkeys(thing.colour for thing in own):
            members, pairs = (
                _members(scene, (is_kind, kind), (has_colour, colour)),
                frozenset({(colour, kind)}),
            )
            groups.append(
                Group("colour kind", members, _with(colour, words), pairs, colour=colour, kind=kind)
            )
        for texture in dict.fromkeys(thing.texture for thing in own if thing.texture in NAMED_TEXTURES):
            members, pairs = (
                _members(scene, (is_kind, kind), (has_texture, texture)),
                frozenset({(texture, kind)}),
            )
            groups.append(
                Group("texture kind", members, _with(texture, words), pairs, kind=kind, texture=texture)
            )
    for fact, entry in FACTS.items():
        if entry.noun is not None:
            groups.append(Group("fact", _members(scene, (has_fact, fact)), _fact_words(fact), fact=fact))
    return [group for group in groups if group.members]
