"""The latency of each architecture as stacked bars, one colour for a stage."""

import io
import os
from pathlib import Path
from typing import Any

from modified_lisa.files import write_atomically

__all__ = ["plot_stages"]

# Okabe and Ito's palette, which colour-blind people can tell apart.
COLOURS = {
    "preprocess": "#bbbbbb",
    "encode": "#0072b2",
    "prefill": "#e69f00",
    "decode": "#d55e00",
    "mask head": "#009e73",
    "post-processing": "#cc79a7",
}
ARMS = ("original", "original, answer given", "sam", "vlm")
NAMES = {
    "original": "original",
    "original, answer given": "original, answer given",
    "sam": "ours, SAM's encoder shared",
    "vlm": "ours, VLM's encoder shared",
}


def plot_stages(path: str | os.PathLike[str], results: dict[str, Any]) -> Path:
    """Write a PNG: a panel for each precision, a bar for each architecture and way of running it.

    A bar's parts are its stages, timed one by one; the number beside it is the time of the whole, measured
    without waiting in between. Needs rows of ``stages``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for row in results["rows"] if row["what"] == "stages"]
    totals = {_key(row): row["total_ms"] for row in results["rows"] if row["what"] == "latency"}
    precisions = list(dict.fromkeys(row["precision"] for row in rows))
    bars = max(sum(row["precision"] == name for row in rows) for name in precisions)
    figure = Figure(figsize=(10, len(precisions) * (0.42 * bars + 1.1) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(precisions), 1, squeeze=False, sharex=True)[:, 0]
    for number, (axes, precision) in enumerate(zip(panels, precisions, strict=True)):
        mine = [row for row in rows if row["precision"] == precision]
        mine.sort(key=lambda row: (ARMS.index(row["arm"]), row["mode"]), reverse=True)
        for place, row in enumerate(mine):
            left = 0.0
            for stage, colour in COLOURS.items():
                value = row["stages_ms"].get(stage, 0.0)
                axes.barh(
                    place, value, left=left, color=colour, height=0.72, edgecolor="white", linewidth=0.4
                )
                left += value
            total = totals.get(_key(row))
            if total is not None:
                axes.annotate(
                    f"{total:.1f} ms", (left, place), xytext=(5, 0), va="center",
                    textcoords="offset points", fontsize=9,
                )  # fmt: skip
        axes.set_yticks(range(len(mine)), [f"{NAMES[row['arm']]}, {row['mode']}" for row in mine], fontsize=9)
        machine = "" if number else f" – {results['machine']}"
        axes.set_title(f"language model in {precision}{machine}", loc="left", fontsize=10)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    panels[-1].set_xlim(0, 1.1 * max(sum(row["stages_ms"].values()) for row in rows))  # room for the numbers
    panels[-1].set_xlabel("milliseconds from a decoded image and a query to its mask, batch 1")
    shown = [name for name in COLOURS if any(name in row["stages_ms"] for row in rows)]
    handles = [_patch(COLOURS[name]) for name in shown]
    figure.legend(handles, shown, loc="outside upper center", ncols=len(shown), frameon=False, fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return write_atomically(path, lambda file: file.write(buffer.getvalue()))


def _patch(colour: str) -> Any:
    from matplotlib.patches import Patch

    return Patch(color=colour)


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return row["precision"], row["arm"], row["mode"]
