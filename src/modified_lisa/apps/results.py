"""Results of evaluations as tables on the terminal."""

from collections.abc import Iterator, Mapping
from typing import Any

from modified_lisa.scoring.ratios import METRICS

__all__ = ["evaluation_lines", "merged_lines", "side_by_side"]


def evaluation_lines(result: Mapping[str, Any]) -> Iterator[str]:
    """The table of what `EvaluationResult.to_dict` gives: name, value, interval, meaning; then the groups."""
    for name, row in result["estimates"].items():
        yield f"  {name:<15}{row['value']:>8.4f}  {_interval(row):<18}  {METRICS[name].meaning}"
    found = result["calibration"]
    if found["ECE"] is not None:  # None: no mask was predicted
        meaning = f"expected calibration error of the predicted IoU; bias {found['bias']:+.4f}"
        yield f"  {'ECE':<15}{found['ECE']:>8.4f}  {'':<18}  {meaning}"
    for name, value in result["losses"].items():
        yield f"  {name:<15}{value:>8.4f}"
    for grouping, groups in result["groups"].items():
        yield f"by {grouping}:"
        for group, row in groups.items():
            found = row["estimates"]
            numbers = "  ".join(f"{name} {one['value']:.4f}" for name, one in found.items())
            yield f"  {group:<15}{row['samples']:>6}  {numbers}  mIoU in {_interval(found['mIoU'])}"


def side_by_side(results: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The metrics of several results of the same samples in columns: {heading: `EvaluationResult.to_dict`}."""
    yield f"  {'':<15}" + "".join(f"{heading:>16}" for heading in results)
    for name in METRICS:
        found = [result["estimates"].get(name) for result in results.values()]
        if any(found):
            cells = ("–" if one is None else f"{one['value']:.4f}" for one in found)
            yield f"  {name:<15}" + "".join(f"{cell:>16}" for cell in cells)


def merged_lines(merged: Mapping[str, Any]) -> Iterator[str]:
    """The table of what `scoring.merging.merge_results` gives."""
    yield f"{_seeds(merged['seeds'])}, {merged['samples']} samples: mean, standard deviation, 95 % interval"
    yield from _rows(merged["metrics"])
    if "against" in merged:
        yield f"against {_seeds(merged['against']['seeds'])} of the other:"
        yield from _rows(merged["against"]["metrics"])
        yield "difference, first minus other, on the same samples:"
        yield from _differences(merged["difference"])
    for grouping, groups in merged["groups"].items():
        yield f"by {grouping}:"
        for group, row in groups.items():
            yield f" {group} ({row['samples']})"
            yield from _rows(row["metrics"])
            if "difference" in row:
                yield "  difference:"
                yield from _differences(row["difference"])


def _seeds(number: int) -> str:
    return "1 seed" if number == 1 else f"{number} seeds"


def _differences(difference: Mapping[str, Any]) -> Iterator[str]:
    for name, row in difference.items():
        yield f"  {name:<15}{row['mean']:>+8.4f}  {'':<9}{_interval(row)}"


def _rows(metrics: Mapping[str, Any]) -> Iterator[str]:
    for name, row in metrics.items():
        deviation = "" if row["std"] is None else f"± {row['std']:.4f}"
        yield f"  {name:<15}{row['mean']:>8.4f}  {deviation:<9}{_interval(row)}"


def _interval(row: Mapping[str, Any]) -> str:
    return "[no interval]" if row["low"] is None else f"[{row['low']:.4f}, {row['high']:.4f}]"
