"""How queries are put into words: what the text files of ``words/`` say (`speaker.py` explains their signs).

A file has sections, ``[name]``, of one wording a line; lines that start with ``#`` are remarks.
"""

import importlib.resources
import re
from collections.abc import Mapping

__all__ = ["BANKS", "COMMANDS", "QUESTIONS", "TEXTURE_WORDS", "read_sections"]

_SECTION = re.compile(r"\[([^|\]]+)\]")


def read_sections(name: str) -> dict[str, tuple[str, ...]]:
    """The lines of each section of ``words/NAME.txt``."""
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
