"""More ways to ask for each kind of thing in the street photos, for training only (`wordings.txt`)."""

from pathlib import Path

import numpy as np

__all__ = ["read_wordings", "shortened"]

FILE = Path(__file__).with_name("wordings.txt")


def read_wordings(path: Path = FILE) -> dict[str, tuple[str, ...]]:
    """{kind: its wordings}; SystemExit for a line that is not a kind, a tab and words."""
    found: dict[str, list[str]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        kind, tab, text = line.partition("\t")
        if not (kind and tab and text.strip()):
            raise SystemExit(f"error: {path}:{number}: {line!r} is not a kind, a tab and a wording")
        found.setdefault(kind, []).append(text.strip())
    return {kind: tuple(texts) for kind, texts in found.items()}


def shortened(text: str, share: float, dice_roll: np.random.Generator) -> str:
    """``text`` without about ``share`` of its words, at least one left: what is asked for is to be read from all of them,
    not from the one that gives it away."""
    words = text.split()
    kept = [word for word in words if dice_roll.random() >= share]
    return " ".join(kept or words)
