"""What is true of the kinds of object in everyday life, and how people speak of it: ``words/facts.txt``.

A fact is known for every kind: true (``yes``), false, or open to dispute (``maybe``); a scene with a
disputed object is never asked about that fact. Wordings come in three forms: a clause that follows "the
thing" (starts with "that"), a phrase (starts with "the" or "what"), and a sentence (ends in ? or a full
stop). ``[a|b]`` gives the words for one target and for several; ``!`` marks a wording held out from training.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.data.scenes.wordings import read_sections

__all__ = ["CAPABILITIES", "FACTS", "Fact", "known"]


@dataclass(frozen=True)
class Fact:
    """Something that is true of some kinds (``yes``), may be of others (``maybe``), and of no more."""

    name: str
    yes: frozenset[str]
    maybe: frozenset[str]
    wordings: tuple[str, ...]
    noun: tuple[str, str] | None = None
    """(singular, plural) where there is a word for such things: fruit, animal, vehicle."""


def _read() -> Iterator[Fact]:
    for name, lines in read_sections("facts").items():
        about = dict(line.split(": ", 1) for line in lines if line.startswith(("yes: ", "maybe: ", "noun: ")))
        yes, maybe = (frozenset(about.get(key, "").split(", ")) - {""} for key in ("yes", "maybe"))
        if unknown := (yes | maybe) - set(KINDS):
            raise ValueError(f"fact {name!r} names kinds that are not in the catalogue: {sorted(unknown)}")
        one, _, several = about.get("noun", "").partition(" / ")
        yield Fact(name, yes, maybe, lines[len(about) :], (one, several) if one else None)


FACTS: dict[str, Fact] = {fact.name: fact for fact in _read()}


def known(kind: str, fact: str) -> bool | None:
    """Whether ``fact`` is true of ``kind``; None where people could disagree."""
    entry = FACTS[fact]
    return True if kind in entry.yes else None if kind in entry.maybe else False


CAPABILITIES: dict[str, tuple[str, ...]] = {
    kind: tuple(name for name, fact in FACTS.items() if kind in fact.yes) for kind in KINDS
}
"""For each kind of object the names of the facts that are true of it."""
