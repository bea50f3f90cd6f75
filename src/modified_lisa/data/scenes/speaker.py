"""Turning templates into English: number, articles, which wordings may be used.

Templates: ``{slot}`` is filled in; ``[a|b]`` gives the words for one target and for several; a leading ``!``
marks a wording held out from training; one that ends in ``?`` or a full stop is a sentence, the others are
phrases; ``a(n)`` becomes a or an.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from modified_lisa.data.scenes.wordings import TRAINING_ONLY

__all__ = ["NUMBERS", "Speaker", "article", "is_sentence", "number_word"]

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_CHOICE = re.compile(r"\[([^|\]]*)\|([^|\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")
_ARTICLE = re.compile(r"\ba\(n\) (\w)")
_THINGS = (("thing", "things"), ("object", "objects"), ("item", "items"))

Choice = TypeVar("Choice")
Slot = str | Callable[["Speaker", bool], str]


def is_sentence(template: str) -> bool:
    return template.endswith(("?", "."))


def article(noun: str) -> str:
    """ "a ball", "an orange cup"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def number_word(number: int) -> str:
    return NUMBERS[number] if number < len(NUMBERS) else str(number)


class Speaker:
    """Chooses among wordings.

    Args:
        held_out: prefer those kept from training, and note whether one was used.
        training: also use those that are for training alone.
    """

    def __init__(self, rng: np.random.Generator, *, held_out: bool = False, training: bool = True) -> None:
        self.rng = rng
        self.held_out = held_out
        self.training = training
        self.used_held_out = False
        self._words: dict[str, tuple[str, str]] = {}

    def choose(self, options: Sequence[Choice]) -> Choice:
        return options[int(self.rng.integers(len(options)))]

    def word(self, key: str, options: Sequence[tuple[str, str]]) -> tuple[str, str]:
        """One of several (singular, plural) names for ``key``; the same all through one text."""
        if key not in self._words:
            self._words[key] = self.choose(options)
        return self._words[key]

    def thing(self, plural: bool) -> str:
        return self.word("thing", _THINGS)[int(plural)]

    def pick(self, templates: Sequence[str]) -> str:
        """One of the templates that may be used; held-out ones only, and first, when the speaker is to use them."""
        kept = [template[1:] for template in templates if template.startswith("!")]
        if self.held_out and kept:
            self.used_held_out = True
            return self.choose(kept)
        return self.choose([text for text in templates if not text.startswith("!") and self.knows(text)])

    def knows(self, template: str) -> bool:
        """Whether the split may use it."""
        return self.training or template not in TRAINING_ONLY

    def fill(self, template: str, slots: Mapping[str, Slot], plural: bool) -> str:
        """The template in words, for one target or (``plural``) several."""
        text = _CHOICE.sub(lambda match: match[2 if plural else 1], template)

        def words(match: re.Match[str]) -> str:
            slot = slots[match[1]]
            return slot if isinstance(slot, str) else slot(self, plural)

        text = " ".join(_SLOT.sub(words, text).split())
        return _ARTICLE.sub(lambda match: f"{'an' if match[1] in 'aeiou' else 'a'} {match[1]}", text)
