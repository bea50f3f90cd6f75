"""The plots of the report page, as SVG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["histogram", "reliability"]

_MEASURED, _PERFECT, _COUNT = "#cc79a7", "#555555", "#0072b2"


def reliability(found: Mapping[str, Any]) -> bytes:
    """Measured over predicted IoU, a bar for each bin of `scoring.calibration.calibration`; SVG."""
    figure = _figure()
    top, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    for row in found["bins"]:
        middle, width = (row["low"] + row["high"]) / 2, row["high"] - row["low"]
        top.bar(middle, row["measured"], width * 0.92, color=_MEASURED, alpha=0.55)
        top.plot([row["predicted"]], [row["measured"]], "o", color=_MEASURED, ms=5)
        below.bar(middle, row["count"], width * 0.92, color=_COUNT, alpha=0.55)
    top.plot((0, 1), (0, 1), "--", color=_PERFECT, lw=1, label="perfect")
    top.set(ylabel="measured IoU (mean)", xlim=(0, 1), ylim=(0, 1))
    top.legend(loc="upper left", frameon=False)
    below.set(xlabel="IoU that the model predicts", ylabel="samples")
    return _svg(figure)


def histogram(values: Sequence[float]) -> bytes:
    """How many samples have which IoU, in 20 bins; SVG."""
    figure = _figure()
    axes = figure.subplots()
    axes.hist(values, bins=20, range=(0, 1), color=_COUNT, alpha=0.55, rwidth=0.92)
    axes.set(xlabel="IoU", ylabel="samples", xlim=(0, 1))
    return _svg(figure)


def _figure() -> Any:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def _svg(figure: Any) -> bytes:
    """The same bytes for the same figure."""
    import matplotlib
    from matplotlib.ticker import MaxNLocator

    for axes in figure.axes:
        if axes.get_ylabel() == "samples":
            axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        axes.grid(alpha=0.3)
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    file = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "modified-lisa", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()
