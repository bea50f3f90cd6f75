"""Turns on one device: processes that build models, side by side, and one that is timed, with nobody else at work."""

import contextlib
from collections.abc import Iterator
from typing import Any


class Quiet:
    """Shared by ``processes`` workers; ``context`` is the `multiprocessing` context that starts them."""

    def __init__(self, context: Any, processes: int) -> None:
        self._processes = processes
        self._turn, self._busy = context.Lock(), context.Semaphore(processes)

    @contextlib.contextmanager
    def building(self) -> Iterator[None]:
        """While others build too, but nobody is timed."""
        with self._busy:
            yield

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody builds and nobody else is timed."""
        with self._turn, contextlib.ExitStack() as held:
            for _ in range(self._processes):
                held.enter_context(self._busy)
            yield
