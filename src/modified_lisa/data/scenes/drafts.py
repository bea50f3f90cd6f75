"""A query before it is put into words, and what its builders work with."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from modified_lisa.data.scenes.facts import FACTS
from modified_lisa.data.scenes.groups import Group, Words, groups_of
from modified_lisa.data.scenes.held_out import is_held_out
from modified_lisa.data.scenes.judge import extreme, has_fact
from modified_lisa.data.scenes.scene import Scene
from modified_lisa.data.scenes.speaker import Slot, Speaker, is_sentence
from modified_lisa.data.scenes.wordings import BANKS

__all__ = ["Context", "Draft", "Reference", "agree", "the"]

_OPEN_ENDS = tuple(f" {word}" for word in ("in", "on", "from", "of", "to", "at", "by", "as"))
"""Clauses that end so read badly where a sentence goes on behind them: "serve a drink in in the picture"."""
Pairs = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Draft:
    """``templates`` with their ``slots``; ``targets`` are indices of objects; ``pairs`` the combinations used."""

    concept: str
    templates: tuple[str, ...]
    slots: dict[str, Slot]
    targets: tuple[int, ...]
    pairs: Pairs = frozenset()
    plural: bool | None = None
    """Whether it speaks of several; None: as many as there are targets."""


@dataclass(frozen=True)
class Reference:
    """An object that others are measured from, and how it is called."""

    index: int
    words: Words
    pairs: Pairs


def the(group: Group) -> Words:
    return lambda speaker, plural: f"the {group.noun(speaker, False)}"


_MODAL = {"this", "always", "is", "has", "does", "was", "bees", "dishes", "as", "its"}
_BE = {"is": "are", "has": "have", "does": "do", "goes": "go", "carries": "carry", "flies": "fly"}


def agree(wording: str, plural: bool) -> str:
    """Put the verb of "that tells the time" or "Which of these tells the time?" into the plural."""
    for head in ("that ", "Which of these "):
        if plural and wording.startswith(head) and "[" not in wording:
            verb, _, rest = wording[len(head) :].partition(" ")
            if verb in _BE:
                verb = _BE[verb]
            elif verb.endswith("s") and verb not in _MODAL:
                verb = verb[:-1]
            return f"{head}{verb} {rest}".replace(" its ", " their ").rstrip()
    return wording


@dataclass
class Context:
    """One scene as the builders of queries see it."""

    scene: Scene
    rng: np.random.Generator
    held_out: bool
    """Whether held-out combinations may be used."""
    groups: list[Group] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.groups = [group for group in groups_of(self.scene) if self.may_use(group.pairs)]

    def may_use(self, pairs: Iterable[tuple[str, str]]) -> bool:
        return self.held_out or not any(is_held_out(*pair) for pair in pairs)

    @property
    def any(self) -> Group:
        return self.groups[0]

    def some(self, groups: list[Group]) -> Group | None:
        return groups[int(self.rng.integers(len(groups)))] if groups else None

    def pick_group(self, *labels: str, least: int = 1) -> Group | None:
        """A group of one of these labels with at least ``least`` members."""
        return self.some(
            [group for group in self.groups if group.label in labels and len(group.members) >= least]
        )

    def noun_group(self, least: int) -> Group | None:
        """A group to choose among: all objects half of the time, else one kind, colour or class."""
        if self.rng.random() < 0.5 and len(self.any.members) >= least:
            return self.any
        return self.pick_group("kind", "colour", "fact", "kind", least=least)

    def pairs_of(self, concept: str, group: Group) -> Pairs:
        return group.pairs | ({(concept, group.kind)} if group.kind else frozenset())

    @cached_property
    def _named(self) -> list[Group]:
        return [group for group in self.groups if len(group.members) == 1 and group.label != "any"]

    def reference(self) -> Reference | None:
        """A plainly named object: "the blue box", "the kite"."""
        group = self.some(self._named)
        return Reference(group.members[0], the(group), group.pairs) if group else None

    def reference_to(self, index: int) -> Reference | None:
        group = self.some([group for group in self._named if group.members == (index,)])
        return Reference(index, the(group), group.pairs) if group else None

    def reference_by_use(self) -> Reference | None:
        """An object known by what it is for: "the thing that tells the time"."""
        name = self.some_fact(single=True)
        if name is None:
            return None
        clauses = tuple(
            text
            for text in FACTS[name].wordings
            if text.lstrip("!").startswith("that ") and not text.endswith(_OPEN_ENDS)
        )
        index = self.with_fact(name)[0]  # type: ignore[index]

        def words(speaker: Speaker, plural: bool) -> str:
            clause = speaker.fill(speaker.pick(clauses), {}, False)
            return f"the {speaker.thing(False)} {clause}"

        return Reference(index, words, frozenset())

    def reference_by_rank(self) -> Reference | None:
        """An object known by a superlative: "the largest thing"."""
        concept = ("largest", "smallest", "leftmost", "rightmost", "topmost", "lowest")[
            int(self.rng.integers(6))
        ]
        group = (
            self.any if self.rng.random() < 0.6 else self.pick_group("kind", "colour", least=2) or self.any
        )
        index = extreme(self.scene, group.members, concept)
        if index is None:
            return None
        phrases = tuple(
            text
            for text in BANKS[concept]
            if text.lstrip("!").startswith("the ") and not is_sentence(text) and " that " not in text
        )
        slots: dict[str, Slot] = {
            "n": group.noun,
            "n1": lambda speaker, plural: group.noun(speaker, False),
            "ns": lambda speaker, plural: group.noun(speaker, True),
        }

        def words(speaker: Speaker, plural: bool) -> str:
            return speaker.fill(speaker.pick(phrases), slots, False)

        return Reference(index, words, self.pairs_of(concept, group))

    def with_fact(self, name: str) -> tuple[int, ...] | None:
        """Objects of which the fact is true; None when one is in doubt."""
        verdicts = [has_fact(thing, name) for thing in self.scene.objects]
        if None in verdicts:
            return None
        return tuple(index for index, verdict in enumerate(verdicts) if verdict)

    @cached_property
    def _facts(self) -> dict[str, tuple[int, ...]]:
        table = {}
        for name in dict.fromkeys(fact for thing in self.scene.objects for fact in thing.facts):
            members = self.with_fact(name)
            if members:
                table[name] = members
        return table

    def some_fact(self, *, single: bool) -> str | None:
        """A fact that is true of some of the objects, of one alone if ``single``."""
        names = [name for name, found in self._facts.items() if len(found) == 1 or not single]
        return names[int(self.rng.integers(len(names)))] if names else None
