#!/usr/bin/env python3
"""Put the benchmarks into README.md, docs/performance.md, docs/benchmark-runs.md and docs/images/benchmark.png.

Reads benchmarks/results/*.json, which ``modified-lisa benchmark --out`` wrote, and rewrites what stands between the
markers ``<!-- benchmark:begin -->`` and ``<!-- benchmark:end -->``. Of the machine that was measured last: the performance page gets
all tables of the newest run that has ours and the original, eager and sped up; the README its latencies and further queries, and
the training steps of the newest run that has them. The page of runs gets the tables of all others. Numbers of two runs are never divided by each other.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from modified_lisa.benchmark.plot import plot_stages
from modified_lisa.benchmark.report import tables
from modified_lisa.benchmark.summary import session_summary, summary, training_summary
from modified_lisa.files import write_text

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- benchmark:begin -->", "<!-- benchmark:end -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--results", default=ROOT / "benchmarks" / "results", type=Path, metavar="DIR")
    parser.add_argument("--root", default=ROOT, type=Path, metavar="DIR", help="the repository")
    arguments = parser.parse_args()
    runs = read(arguments.results)
    if not runs:
        print(f"no results in {arguments.results}; run modified-lisa benchmark --out there", file=sys.stderr)
        return 2
    root = arguments.root
    here = [run for run in runs if run["machine"] == runs[0]["machine"]]
    whole = next((run for run in here if compares(run)), here[0])
    plot = plot_stages(root / "docs" / "images" / "benchmark.png", whole)
    trained = next((run for run in here if any(row["what"] == "training" for row in run["rows"])), None)
    blocks = {
        root / "README.md": [
            *summary(whole),
            "",
            *session_summary(whole),
            *(["", *training_summary(trained)] if trained else []),
            "",
            f"![Latency by stage]({plot.relative_to(root).as_posix()})",
        ],
        root / "docs" / "performance.md": [
            "![Latency by stage](images/benchmark.png)",
            "",
            *tables(whole),
        ],
        root / "docs" / "benchmark-runs.md": [
            line for run in runs if run is not whole for line in [*tables(run), ""]
        ],
    }
    status = 0
    for page, lines in blocks.items():
        text = page.read_text(encoding="utf-8")
        if text.count(BEGIN) != 1 or text.count(END) != 1:
            print(f"{page}: put the lines {BEGIN} and {END} where the table belongs", file=sys.stderr)
            status = 1
            continue
        write_text(page, replaced(text, lines))
        print(f"wrote {page}")
    return status


def read(folder: Path) -> list[dict[str, Any]]:
    """All runs, the newest first."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]
    return sorted(runs, key=lambda run: run["date"], reverse=True)


def compares(run: dict[str, Any]) -> bool:
    """Whether it has latencies of the original, by plain calls and sped up, and of ours."""
    timed = {(row["arm"], row["mode"]) for row in run["rows"] if row["what"] == "latency"}
    return {("original", "eager"), ("original", "fast"), ("vlm", "fast")} <= timed


def replaced(text: str, lines: list[str]) -> str:
    """``text`` with ``lines`` between the markers."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n" + "\n".join(lines).strip("\n") + f"\n{END}{after}"


if __name__ == "__main__":
    sys.exit(main())
