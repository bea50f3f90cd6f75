"""The results of a study as a table, as JSON, as a picture and as sentences."""

import io
import json
from pathlib import Path
from typing import Any

from pool import Split
from rows import BASE, SPECIFICATION, Row
from runs import result_path, timing_path

from modified_lisa.files import write_atomically, write_json, write_text
from modified_lisa.scoring.merging import merge_results

Found = dict[str, Any]
SHOWN = {"mIoU": "mIoU", "cIoU": "cIoU", "gIoU": "gIoU", "boundary_IoU": "boundary IoU"}
TITLES = {
    "sources": "Where the image is seen, and what trains",
    "bridges": f"Bridges (`{BASE}` is the pyramid of four layers; each row differs from it in one thing)",
}
COLOURS = {"dual": "#000000", "vlm": "#0072B2", "sam": "#D55E00"}
POINT = 0.01
"""One point of a metric."""


def collect(out: Path, pool: Path, rows: list[Row], seeds: range) -> list[Found]:
    """What is known of each row that has at least one finished run."""
    samples = list(Split(pool, "test").samples())
    runs: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for row in rows:
        files = {seed: path for seed in seeds if (path := result_path(out, row, seed)).is_file()}
        runs[row.name] = {
            seed: _records(samples, json.loads(path.read_text(encoding="utf-8")))
            for seed, path in files.items()
        }
    found = []
    for row in rows:
        if not runs[row.name]:
            continue
        other = f"dual, {row.trained}" if row.part == "sources" else BASE
        mine, theirs = runs[row.name], runs.get(other, {}) if other != row.name else {}
        merged = merge_results(list(mine.values()))
        # Of the seeds that both have: one row's luck with a seed is not the other's.
        if shared := sorted(mine.keys() & theirs.keys()):
            paired = merge_results([mine[seed] for seed in shared], [theirs[seed] for seed in shared])
            merged |= {key: paired[key] for key in ("against", "difference")} | {"paired_seeds": len(shared)}
            for grouping, groups in paired["groups"].items():
                for group, values in groups.items():
                    merged["groups"][grouping][group]["difference"] = values["difference"]
        dual = runs.get(f"dual, {row.trained}", {}) if row.part == "bridges" else {}
        if both := sorted(mine.keys() & dual.keys()):
            compared = merge_results([mine[seed] for seed in both], [dual[seed] for seed in both])
            merged["from_dual"] = compared["difference"]["mIoU"]
        timing = timing_path(out, row)
        found.append(
            {
                "name": row.name,
                "part": row.part,
                "source": row.source,
                "trained": row.trained,
                "against": other if shared else None,
                "merged": merged,
                "cost": json.loads(timing.read_text(encoding="utf-8")) if timing.is_file() else None,
            }
        )
    return found


def _records(samples: list[dict[str, Any]], result: Found) -> list[dict[str, Any]]:
    columns = result["scores"]
    records = []
    for index, sample in enumerate(samples):
        score = {name: values[index] for name, values in columns.items()}
        iou = score["intersection"] / score["union"] if score["union"] else 1.0
        records.append({**sample, **score, "iou": iou, "predicted_empty": bool(score["predicted_empty"])})
    return records


def table(found: list[Found], part: str) -> str:
    """The rows of a part as Markdown."""
    other = "difference from `dual`" if part == "sources" else "difference from the pyramid"
    heads = ["row", *SHOWN.values(), "familiar", "held out", f"mIoU: {other}", "trained weights"]
    heads += ["step, ms", "peak, GB", "seeds"]
    lines = [f"| {' | '.join(heads)} |", f"| {' | '.join('---' for _ in heads)} |"]
    for row in found:
        if row["part"] != part and not (part == "bridges" and row["name"] == BASE):
            continue
        merged, cost = row["merged"], row["cost"]
        cells = [f"`{row['name']}`", *(_with_interval(merged["metrics"][name]) for name in SHOWN)]
        groups = merged["groups"].get("held_out", {})
        cells += [
            f"{groups[group]['metrics']['mIoU']['mean']:.3f}" if group in groups else ""
            for group in ("familiar", "held out")
        ]
        compared = row["part"] == part and "difference" in merged
        apart = (
            f" ({merged['paired_seeds']} shared)"
            if compared and merged["paired_seeds"] < merged["seeds"]
            else ""
        )
        cells.append(_with_interval(merged["difference"]["mIoU"], "+.3f") + apart if compared else "")
        if cost is None:
            cells += ["", "", ""]
        else:
            peak = "" if cost["peak_gb"] is None else f"{cost['peak_gb']:.2f}"
            cells += [f"{cost['trainable']:,}", f"{cost['step_seconds'] * 1000:.1f}", peak]
        lines.append(f"| {' | '.join([*cells, str(merged['seeds'])])} |")
    return "\n".join(lines) + "\n"


def _with_interval(metric: dict[str, Any], form: str = ".3f") -> str:
    if metric["low"] is None:
        return format(metric["mean"], form)
    return f"{metric['mean']:{form}} [{metric['low']:{form}}, {metric['high']:{form}}]"


def sentences(found: list[Found]) -> list[str]:
    """What the numbers say: `vlm` against `dual`, and the cheapest row that is as good as the best."""
    said = []
    for row in found:
        if row["source"] == "vlm" and row["part"] == "sources" and row["against"]:
            difference = row["merged"]["difference"]["mIoU"]
            verdict = (
                "within 1 point of it, or above"
                if difference["mean"] >= -POINT
                else "more than 1 point below"
            )
            said.append(f"`{row['name']}` is {_points(difference)} from `{row['against']}`: {verdict}.")
    costed = [row for row in found if row["cost"] is not None]
    for what, chosen in (
        (
            "with the specification's trainable set",
            [row for row in costed if row["trained"] == SPECIFICATION],
        ),
        ("of all rows", costed),
    ):
        if not chosen:
            continue
        best = max(chosen, key=_miou)
        near = [row for row in chosen if _miou(row) >= _miou(best) - POINT]
        cheap = min(near, key=lambda row: row["cost"]["step_seconds"])
        text = f"The best {what} is `{best['name']}` ({_miou(best):.3f})"
        if "from_dual" in best["merged"]:
            text += f", {_points(best['merged']['from_dual'])} from `dual, {best['trained']}`"
        if cheap is not best:
            saved = 1 - cheap["cost"]["step_seconds"] / best["cost"]["step_seconds"]
            text += f"; within a point of it, `{cheap['name']}` ({_miou(cheap):.3f}) takes {saved:.0%} less time a step"
        said.append(f"{text}.")
    return said


def _points(difference: dict[str, float]) -> str:
    mean, low, high = (100 * difference[key] for key in ("mean", "low", "high"))
    return f"{mean:+.1f} points of mIoU [{low:+.1f}, {high:+.1f}]"


def _miou(row: Found) -> float:
    return float(row["merged"]["metrics"]["mIoU"]["mean"])


def write_findings(out: Path, found: list[Found], about: dict[str, Any]) -> str:
    """table.md, table.json and study.png in ``out``; returns the text of the first."""
    parts = [f"## {TITLES[part]}\n\n{table(found, part)}" for part in TITLES]
    interval = found[0]["merged"]["interval"] if found else {}
    notes = [
        f"- {about['finished']} of {about['wanted']} runs are finished; {about['steps']} steps of {about['batch']} scenes "
        f"with {about['queries']} queries each, learning rate {about['lr']:g}, on {about['device']}.",
        f"- Brackets: {interval.get('level', 0):.0%} interval ({interval.get('method', '')}). Masks are compared on the "
        "256 x 256 grid of the square, within the image.",
        "- Differences are of the seeds that both rows have, on the same images.",
        "- Step time and memory: of one model at a time, alone on the device.",
    ]
    text = "\n".join([*parts, *(f"- {sentence}" for sentence in sentences(found)), *notes]) + "\n"
    write_text(out / "table.md", text)
    write_json(out / "table.json", {"about": about, "rows": found, "findings": sentences(found)})
    draw(out / "study.png", found)
    return text


def draw(path: Path, found: list[Found]) -> None:
    """A dot for each row, with its interval and, small, its seeds; mIoU on the left, boundary IoU on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    ordered = sorted(found, key=lambda row: (row["part"] == "bridges", row["trained"] != SPECIFICATION))
    figure, axes = pyplot.subplots(
        1, 2, figsize=(11, 1.4 + 0.32 * max(1, len(ordered))), sharey=True, layout="constrained"
    )
    for axis, name in zip(axes, ("mIoU", "boundary_IoU"), strict=True):
        for place, row in enumerate(ordered):
            metric, colour = row["merged"]["metrics"][name], COLOURS[row["source"]]
            if metric["low"] is not None:
                axis.plot([metric["low"], metric["high"]], [place, place], color=colour, linewidth=1.5)
            axis.plot(metric["values"], [place] * len(metric["values"]), "|", color=colour, markersize=9)
            axis.plot(metric["mean"], place, "o", color=colour, markersize=6)
        for base, style in ((BASE, ":"), (f"dual, {SPECIFICATION}", "--")):
            for row in ordered:
                if row["name"] == base:
                    axis.axvline(
                        row["merged"]["metrics"][name]["mean"], color=COLOURS[row["source"]], lw=0.8, ls=style
                    )
        axis.set_xlabel(
            f"{SHOWN[name]} (dot: mean of the seeds, ticks: seeds, line: 95 % interval)", fontsize=8
        )
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(ordered)), [row["name"] for row in ordered], fontsize=8)
    axes[0].invert_yaxis()
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    pyplot.close(figure)
    write_atomically(path, lambda file: file.write(data.getvalue()))
