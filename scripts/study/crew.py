"""The processes that do a study's work, several runs at a time on one device."""

import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any

from quiet import Quiet
from rows import Row
from runs import CROWDED, TIMED, Settings, result_path, timing_path, work

Job = tuple[Row, int, int]
"""A row; a seed, `runs.TIMED` or `runs.CROWDED`; steps."""


@dataclass
class Crew:
    """Worker processes that stay, so that importing and starting the GPU are paid once."""

    settings: Settings
    processes: int
    say: Callable[[str], None]
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # New interpreters: a forked one could not use the GPU after its parent has.
        context = multiprocessing.get_context("spawn")
        # Kept: a lock that nobody holds on to is gone.
        self.quiet, self.together = Quiet(context, self.processes), context.Barrier(self.processes)
        self.members: dict[Connection, Any] = {}
        self.idle: list[Connection] = []
        for _ in range(self.processes):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=work, args=(self.settings, theirs, self.quiet, self.together), daemon=True
            )
            process.start()
            theirs.close()
            self.members[ours] = process

    def do(self, jobs: list[Job], until: float) -> list[float]:
        """Hand the jobs out in their order; none that would not end before ``until`` (`time.monotonic`).

        Returns what `runs.crowded` gave for those among them.
        """
        gains: list[float] = []
        waiting, running = list(jobs), dict[Connection, Job]()
        longest = 0.0
        while self.members:
            # A first guess is a late one: what a job takes is known when one has ended.
            while waiting and self.idle and time.monotonic() + 1.1 * longest < until:
                connection = self.idle.pop()
                running[connection] = waiting.pop(0)
                connection.send(running[connection])
            late = waiting and time.monotonic() + 1.1 * longest >= until
            if not running and (not waiting or late):
                break
            if time.monotonic() >= until:
                break
            starting = [member for member in self.members if member not in self.idle]
            spoke = wait(starting, timeout=min(1.0, max(0.01, until - time.monotonic())))
            for connection in (member for member in starting if member in spoke):
                try:
                    answer = connection.recv()
                except EOFError:
                    del self.members[connection]
                    job = running.pop(connection, None)
                    self.errors.append(
                        f"{job[0].name if job else 'before its first job'}: the process has died"
                    )
                    continue
                self.idle.append(connection)
                if answer is None:
                    continue
                row, seed, _ = running.pop(connection)
                longest = max(longest, answer["seconds"])
                gains.append(answer["gain"])
                self._tell(row, seed, answer)
        if waiting or running:
            self.say(f"the time is over: {len(waiting)} not started, {len(running)} not finished")
        return gains

    def _tell(self, row: Row, seed: int, answer: dict[str, Any]) -> None:
        what = {TIMED: "timed", CROWDED: "in a crowd"}.get(seed, f"seed {seed}")
        if answer["error"]:
            self.errors.append(f"{row.name}, {what}:\n{answer['error'][-4000:]}")
            self.say(f"{row.name}, {what}: failed")
        elif seed == TIMED:
            cost = json.loads(timing_path(self.settings.out, row).read_text(encoding="utf-8"))
            self.say(
                f"{row.name}: {cost['step_seconds'] * 1000:.1f} ms a step alone, {cost['peak_gb'] or 0:.2f} GB"
            )
        elif seed != CROWDED:
            result = json.loads(result_path(self.settings.out, row, seed).read_text(encoding="utf-8"))
            self.say(
                f"{row.name}, {what}: {result['seconds']}, loss {result['losses'][0]} -> {result['losses'][-1]}"
            )

    def close(self) -> None:
        """End all processes; what they have not finished is not kept."""
        for connection, process in self.members.items():
            if connection in self.idle:
                connection.send(None)
            else:
                process.terminate()
        for process in self.members.values():
            process.join()
