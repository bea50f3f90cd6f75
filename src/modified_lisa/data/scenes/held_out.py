"""What training never sees.

Three things are kept for the val and test splits:

- wordings: the lines marked with ``!`` in the files of ``words/``;
- combinations: pairs of words (a colour and a kind, a texture and a kind, a relation and the kind it is
  measured from), one in nine, chosen by a checksum of the two words and so the same for ever. A train scene
  has no object of a held-out colour or texture for its kind, and no train query uses a held-out pair;
- kinds of object: those of `HELD_OUT_KINDS`. No train scene shows one and no train query names one, so that
  val and test can be asked for things that only their colour, size, place or number gives away.

Scenes of val and test have the familiar and the held-out, and say so in their JSON.
"""

import zlib

from modified_lisa.errors import ConfigError

__all__ = ["HELD_OUT_KINDS", "SPLITS", "allows_held_out", "is_held_out"]

SPLITS = ("train", "val", "test")
HELD_OUT_KINDS = frozenset(("saw", "bell", "kite", "cactus", "butterfly", "bucket"))
"""Kinds of object that training neither sees nor reads of."""


def is_held_out(first: str, second: str) -> bool:
    """Whether this combination is kept out of training; the order of the words does not matter."""
    a, b = sorted((first, second))
    return zlib.crc32(f"{a}|{b}".encode()) % 9 == 0


def allows_held_out(split: str) -> bool:
    """False for train, True for val and test."""
    if split not in SPLITS:
        raise ConfigError(f"the split is {split!r}; it must be one of {', '.join(SPLITS)}")
    return split != "train"
