"""Seconds and memory of each part of a distillation: each begins with what the one before has left, freed."""

import contextlib
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from modified_lisa.benchmark.measure import card_memory_gb, peak_memory_gb, reset_peak_memory

__all__ = ["Stages", "free"]


class Stages:
    """``with stages("name"):`` around each part.

    ``records``: for each, in order, ``seconds``; ``peak_memory_gb``, what `peak_memory_gb` counts; and
    ``card_memory_gb``, what the card must have for it (None on a CPU). A part that fails is among them.
    """

    def __init__(self, device: torch.device, say: Callable[[str], Any]) -> None:
        self.device, self.say = device, say
        self.records: dict[str, dict[str, float | None]] = {}

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        free()
        reset_peak_memory(self.device)
        start = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - start
            peak, card = peak_memory_gb(self.device), card_memory_gb(self.device)
            self.records[name] = {
                "seconds": round(seconds, 3),
                "peak_memory_gb": round(peak, 4),
                "card_memory_gb": None if card is None else round(card, 4),
            }
            on_card = "" if card is None else f", {card:.2f} GiB of the card"
            self.say(f"{name}: {seconds:.1f} s, at most {peak:.2f} GiB{on_card}")

    @property
    def peak(self) -> float:
        """The highest ``peak_memory_gb``."""
        return max(record["peak_memory_gb"] or 0.0 for record in self.records.values())


def free() -> None:
    """Give back a GPU's memory that nothing holds any more."""
    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()
