"""The vision sources, what trains, and the bridges, under the same data, budget and seeds: one table.

    python scripts/controlled_study.py --out runs/study --seconds 240 --processes 8

1. A fixed pool of training and test scenes is rendered once, by worker processes, and kept in ``--pool``.
2. Each row of the table (see `study/rows.py`) is timed alone on the device: step time, peak memory. Then it is seen how
   much is gained by several runs at a time, to choose the number of steps.
3. Every row is trained with every seed, ``--processes`` runs at a time, for the same number of steps (``--steps``, or
   as many as ``--seconds`` allows), all rows with the first seed before any with the second, and measured on the test scenes.
4. OUT/table.md, OUT/table.json and OUT/study.png say what came out.

Started again, it goes on where it was stopped: a finished run is not repeated. No run is started that would
not end within ``--seconds``, the time of the whole command; the table is made of what is finished.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "study"), str(HERE / "tiny_models")]

from crew import Crew, Job  # noqa: E402
from findings import collect, write_findings  # noqa: E402
from packed import Texts  # noqa: E402
from pool import Renderer, make_pool  # noqa: E402
from rows import Row, all_rows  # noqa: E402
from runs import CROWDED, TIMED, Settings, result_path, timing_path  # noqa: E402

from modified_lisa.config import DTYPES, ModelConfig  # noqa: E402
from modified_lisa.errors import ConfigError, ModifiedLISAError, TrainingError  # noqa: E402
from modified_lisa.files import write_json  # noqa: E402
from modified_lisa.model.building import build_processor  # noqa: E402
from modified_lisa.model.loading import find_device  # noqa: E402

BEGAN = time.monotonic()
RESERVE = 20.0
"""Seconds kept for the table."""
USED = 0.7
"""Share of the time that the planned steps fill: building and measuring take the rest."""
SMOKE = {
    "train": 8,
    "test": 2,
    "seeds": 2,
    "steps": 3,
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
    parser.add_argument(
        "--pretrained_rate",
        type=float,
        default=0.1,
        help="learning rate of what is trained on (tower, projector, mask decoder), as a share of --lr (default: 0.1)",
    )
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
        options.queries, options.lr, options.pretrained_rate, options.timed_steps,
    )  # fmt: skip
    plan = read_plan(options, settings)
    say(f"{len(rows)} rows, {options.seeds} seeds")
    crew = Crew(settings, options.processes, say)  # imports while the scenes are rendered
    try:
        rendering = prepare_pool(options, pool)
        say(f"pool: {rendering}")
        untimed = [row for row in rows if not timing_path(options.out, row).is_file()]
        crew.do([(row, TIMED, 0) for row in untimed], until=BEGAN + options.seconds - RESERVE)
        steps = plan.get("steps") or options.steps or plan_steps(options, rows, crew)
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
        name: getattr(settings, name)
        for name in ("vlm_name", "sam_name", "dtype", "batch", "queries", "lr", "pretrained_rate")
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


def plan_steps(options: argparse.Namespace, rows: list[Row], crew: Crew) -> int:
    """Steps of every run, such that all rows and seeds fit into what is left of the time."""
    timed = [row for row in rows if timing_path(options.out, row).is_file()]
    if not timed:
        errors = "\n".join(crew.errors)
        raise TrainingError(
            f"no row could be timed, so no number of steps can be chosen; give --steps\n{errors}"
        )
    times = [
        json.loads(timing_path(options.out, row).read_text(encoding="utf-8"))["step_seconds"] for row in timed
    ]
    crowd: list[Job] = [(timed[number % len(timed)], CROWDED, 0) for number in range(crew.processes)]
    gain = max(1.0, sum(crew.do(crowd, until=BEGAN + options.seconds - RESERVE)))
    say(f"{crew.processes} runs at a time take as many steps as {gain:.2f} alone")
    left = BEGAN + options.seconds - RESERVE - time.monotonic()
    each = sum(times) / len(times) * len(rows) * options.seeds
    steps = int(left * USED * gain / each)
    return max(10, steps // 10 * 10)


def describe_device() -> str:
    from build import machine

    return machine()


if __name__ == "__main__":
    sys.exit(main())
