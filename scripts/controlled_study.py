"""The vision sources, what trains, and the bridges, under the same data, budget and seeds: one table.

    python scripts/controlled_study.py --out runs/study --seconds 240 --processes 8

1. A fixed pool of training and test scenes is rendered once, by worker processes, and kept in ``--pool``.
2. Each row of the table (see `study/rows.py`) is timed alone on the device: step time, peak memory.
3. Every row is trained with every seed, ``--processes`` runs at a time, for the same number of steps (``--steps``, or
   as many as ``--seconds`` allows), all rows with the first seed before any with the second, and measured on the test scenes.
4. OUT/table.md, OUT/table.json and OUT/study.png say what came out.

Started again, it goes on where it was stopped: a finished run is not repeated. No run is started that would
not end within ``--seconds``, the time of the whole command; the table is made of what is finished.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "study"), str(HERE / "tiny_models")]

from findings import collect, write_findings  # noqa: E402
from packed import Texts  # noqa: E402
from pool import Renderer, make_pool  # noqa: E402
from rows import Row, all_rows  # noqa: E402
from runs import Settings, result_path, timing_path, work  # noqa: E402

from modified_lisa.config import DTYPES, ModelConfig  # noqa: E402
from modified_lisa.errors import ConfigError, ModifiedLISAError, TrainingError  # noqa: E402
from modified_lisa.files import write_json  # noqa: E402
from modified_lisa.model.loading import find_device  # noqa: E402
from modified_lisa.model.processor import build_processor  # noqa: E402

BEGAN = time.monotonic()
RESERVE = 20.0
"""Seconds kept for the table."""
USED = 0.85
"""Share of the time that the planned steps fill: building and measuring take the rest."""
OVERLAP = 1.2
"""How many times faster than one after another several runs are expected to be that share one GPU."""
Job = tuple[Row, int | None, int]
SMOKE = {
    "train": 8,
    "test": 2,
    "seeds": 2,
    "steps": 2,
    "batch": 2,
    "queries": 2,
    "test_queries": 2,
    "timed_steps": 1,
    "seconds": 600.0,
}


def main() -> int:
    """The command; its exit status."""
    options = parse()
    try:
        study(options)
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    parser.add_argument("--pool", type=Path, help="folder of the scenes, 1.2 MB each (default: OUT/pool)")
    parser.add_argument("--vlm_name", default="tiny")
    parser.add_argument("--sam_name", default="tiny")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of what is frozen (default: bf16 on a GPU, else fp32)"
    )
    parser.add_argument("--seconds", type=float, default=240, help="time of the whole command (default: 240)")
    parser.add_argument("--steps", type=int, help="of every run (default: as many as the time allows)")
    for name, value, text in (
        ("seeds", 3, "seeds of every row: 0, 1, ..."),
        ("train", 4000, "scenes to train on"),
        ("test", 300, "scenes to measure on"),
        ("test_queries", 4, "queries of a test scene"),
        ("batch", 12, "scenes in a step"),
        ("queries", 4, "queries of each scene in a step"),
        ("timed_steps", 12, "steps that are timed"),
        ("processes", 8, "runs at a time, on one device"),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"{text} (default: {value})")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2), help="that render")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--scene_seed", type=int, default=500)
    parser.add_argument("--rows", nargs="+", help="only rows whose names contain one of these texts")
    parser.add_argument("--smoke", action="store_true", help="the smallest settings, to try the code")
    options = parser.parse_args()
    if options.smoke:
        vars(options).update(SMOKE)
    return options


def study(options: argparse.Namespace) -> None:
    """All of it."""
    rows = [
        row
        for row in all_rows(options.vlm_name, options.sam_name)
        if not options.rows or any(text in row.name for text in options.rows)
    ]
    if not rows:
        raise ConfigError(
            f"--rows {' '.join(options.rows)}: no row of the table has a name with one of these in it"
        )
    pool = options.pool or options.out / "pool"
    dtype = options.dtype or ("bf16" if find_device().type == "cuda" else "fp32")
    settings = Settings(
        options.out, pool, options.vlm_name, options.sam_name, dtype, options.batch,
        options.queries, options.lr, options.timed_steps,
    )  # fmt: skip
    plan = read_plan(options, settings)
    say(f"{len(rows)} rows, {options.seeds} seeds")
    crew = Crew(settings, options.processes)  # imports while the scenes are rendered
    try:
        rendering = prepare_pool(options, pool)
        say(f"pool: {rendering}")
        untimed = [row for row in rows if not timing_path(options.out, row).is_file()]
        crew.do([(row, None, 0) for row in untimed], until=BEGAN + options.seconds - RESERVE)
        if untimed:
            say(f"timed {len(untimed)} rows")
        steps = plan.get("steps") or options.steps or plan_steps(options, rows)
        if plan.get("steps") != steps:
            write_json(options.out / "plan.json", {**plan, "steps": steps})
        jobs: list[Job] = [
            (row, seed, steps)
            for seed in range(options.seeds)
            for row in rows
            if not result_path(options.out, row, seed).is_file()
        ]
        say(f"{len(jobs)} runs of {steps} steps, {options.processes} at a time")
        crew.do(jobs, until=BEGAN + options.seconds - RESERVE)
    finally:
        crew.close()
    found = collect(options.out, pool, rows, range(options.seeds))
    finished = sum(row["merged"]["seeds"] for row in found)
    device = describe_device()
    about = {
        "finished": finished, "wanted": len(rows) * options.seeds, "steps": steps, "device": device,
        "rendering": rendering, **plan,
    }  # fmt: skip
    print(write_findings(options.out, found, about))
    say(f"{finished} of {about['wanted']} runs; see {options.out / 'table.md'}")
    if crew.errors:
        raise TrainingError("\n".join(["some runs failed; the others are kept", *crew.errors]))


def say(text: str) -> None:
    print(f"{time.monotonic() - BEGAN:5.0f} s  {text}", flush=True)


def read_plan(options: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """What all runs of this folder share, from plan.json or new; ConfigError if it was started with something else."""
    path = options.out / "plan.json"
    asked = {
        name: getattr(settings, name) for name in ("vlm_name", "sam_name", "dtype", "batch", "queries", "lr")
    } | {name: getattr(options, name) for name in ("train", "test", "test_queries", "scene_seed")}
    if not path.is_file():
        return asked
    plan: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    wanted = asked | ({"steps": options.steps} if options.steps else {})
    if differing := [name for name, value in wanted.items() if plan.get(name) != value]:
        name = differing[0]
        raise ConfigError(
            f"{path} says {name} {plan.get(name)!r} and {wanted[name]!r} is asked for; its runs would not be "
            "comparable: name another --out, or ask for the same"
        )
    return plan


def prepare_pool(options: argparse.Namespace, pool: Path) -> dict[str, Any]:
    """Render the scenes. The renderers are forked: this process must not use the GPU before."""
    config = ModelConfig(
        vlm_name=options.vlm_name, sam_name=options.sam_name, quantize=False, vision_source="dual"
    )
    processor = build_processor(config)
    assert processor.vlm_image is not None
    assert processor.sam_image is not None
    render = Renderer(
        pool,
        Texts(processor),
        {"vlm": processor.vlm_image, "sam": processor.sam_image},
        {"train": 12, "test": options.test_queries},
        options.scene_seed,
    )
    return make_pool(render, {"train": options.train, "test": options.test}, options.workers)


def plan_steps(options: argparse.Namespace, rows: list[Row]) -> int:
    """Steps of every run, such that all rows and seeds fit into what is left of the time."""
    times = [
        json.loads(path.read_text(encoding="utf-8"))["step_seconds"]
        for row in rows
        if (path := timing_path(options.out, row)).is_file()
    ]
    if not times:
        raise TrainingError(
            "no row could be timed, so no number of steps can be chosen; see above, or give --steps"
        )
    left = BEGAN + options.seconds - RESERVE - time.monotonic()
    each = sum(times) / len(times) * len(rows) * options.seeds
    steps = int(left * USED * OVERLAP / each)
    return max(10, steps // 10 * 10)


def describe_device() -> str:
    from build import machine

    return machine()


@dataclass
class Crew:
    """Worker processes that stay, so that importing and starting the GPU are paid once."""

    settings: Settings
    processes: int
    errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        # New interpreters: a forked one could not use the GPU after its parent has.
        context = multiprocessing.get_context("spawn")
        self.alone = context.Lock()  # kept: a lock that nobody holds on to is gone
        self.members: dict[Connection, Any] = {}
        self.idle: list[Connection] = []
        for _ in range(self.processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=work, args=(self.settings, theirs, self.alone), daemon=True)
            process.start()
            theirs.close()
            self.members[ours] = process

    def do(self, jobs: list[Job], until: float) -> None:
        """Hand the jobs out in their order; none that would not end before ``until`` (`time.monotonic`)."""
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
                self._tell(row, seed, answer)
        if waiting or running:
            say(f"the time is over: {len(waiting)} not started, {len(running)} not finished")

    def _tell(self, row: Row, seed: int | None, answer: dict[str, Any]) -> None:
        what = "timed" if seed is None else f"seed {seed}"
        if answer["error"]:
            self.errors.append(f"{row.name}, {what}:\n{answer['error'][-1500:]}")
            say(f"{row.name}, {what}: failed")
        elif seed is None:
            cost = json.loads(timing_path(self.settings.out, row).read_text(encoding="utf-8"))
            say(
                f"{row.name}: {cost['step_seconds'] * 1000:.1f} ms a step alone, {cost['peak_gb'] or 0:.2f} GB"
            )
        else:
            result = json.loads(result_path(self.settings.out, row, seed).read_text(encoding="utf-8"))
            say(
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


if __name__ == "__main__":
    sys.exit(main())
