"""How queries are put into words: what the text files of ``words/`` say (`speaker.py` explains their signs).

A file has sections, ``[name]``, of one wording a line; lines that start with ``#`` are remarks. Those of ``words/training/`` are
used by training alone: scenes of val and test stay what they were, however many are added there.
"""

import functools
import importlib.resources
import re
from collections.abc import Mapping

__all__ = ["BANKS", "COMMANDS", "QUESTIONS", "TEXTURE_WORDS", "TRAINING_ONLY", "read_sections"]

_SECTION = re.compile(r"\[([^|\]]+)\]")


def read_sections(name: str) -> dict[str, tuple[str, ...]]:
    """The lines of each section of ``words/NAME.txt``, and behind them those of ``words/training/NAME.txt``."""
    more = _sections_of(f"training/{name}")
    sections = _sections_of(name)
    if unknown := set(more) - set(sections):
        raise ValueError(
            f"words/training/{name}.txt has sections that words/{name}.txt does not: {sorted(unknown)}"
        )
    return {section: lines + more.get(section, ()) for section, lines in sections.items()}


@functools.cache
def _sections_of(name: str) -> dict[str, tuple[str, ...]]:
    folder = importlib.resources.files("modified_lisa.data.scenes") / "words"
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        if section := _SECTION.fullmatch(line):
            lines = sections[section[1]] = []
        elif line and not line.startswith("#"):
            lines.append(line)
    return {name: tuple(found) for name, found in sections.items()}


BANKS: Mapping[str, tuple[str, ...]] = read_sections("concepts")
"""Templates by what is asked for."""
_SENTENCES = read_sections("sentences")
COMMANDS = _SENTENCES["commands"]
"""Sentences around any phrase."""
QUESTIONS = _SENTENCES["questions"]
"""Sentences around a phrase that starts with "the" or a number."""
TEXTURE_WORDS = {
    "striped": ("stripes", "a striped pattern"),
    "spotted": ("spots", "dots all over"),
    "checked": ("checks", "a checked pattern"),
}
_FILES = ("concepts", "facts", "sentences")
TRAINING_ONLY = frozenset(
    line for name in _FILES for lines in _sections_of(f"training/{name}").values() for line in lines
) - {line for name in _FILES for lines in _sections_of(name).values() for line in lines}
"""Templates that val and test do not use."""
