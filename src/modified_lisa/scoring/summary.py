"""All that is said about a set of records: overall, by group, and how well the model knows itself."""

from collections.abc import Mapping, Sequence
from typing import Any

from modified_lisa.scoring.calibration import calibration
from modified_lisa.scoring.ratios import LEVEL, RESAMPLES, Estimate, estimate

__all__ = ["by_group", "groupings", "summarize"]

Record = Mapping[str, Any]
TARGET = "target"
"""The grouping by whether there is something to find; made here from the masks."""
FIRST = ("type", "length", TARGET)


def groupings(records: Sequence[Record]) -> dict[str, dict[str, list[Record]]]:
    """{grouping: {group: its records}}; a grouping with a single group is left out.

    Groupings come in the order of `FIRST`, then by name; groups by name.

    The groupings are those of the records' ``groups``, and ``target`` (present, absent).
    """
    found: dict[str, dict[str, list[Record]]] = {}
    for record in records:
        own = {**record["groups"], TARGET: "absent" if record["target_empty"] else "present"}
        for grouping, group in own.items():
            found.setdefault(grouping, {}).setdefault(group, []).append(record)
    order = sorted(found, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name))
    return {name: dict(sorted(found[name].items())) for name in order if len(found[name]) > 1}


def by_group(records: Sequence[Record]) -> dict[str, dict[str, tuple[int, dict[str, Estimate]]]]:
    """{grouping: {group: (number of samples, metrics)}}."""
    return {
        grouping: {group: (len(members), estimate(members)) for group, members in groups.items()}
        for grouping, groups in groupings(records).items()
    }


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Plain values for JSON.

    ``estimates`` {metric: {"value", "low", "high", "cases"}}; ``interval`` (what low and high are);
    ``groups`` {grouping: {group: {"samples", "estimates"}}}; ``calibration``.
    """
    return {
        "estimates": _plain(estimate(records)),
        "interval": {"level": LEVEL, "resamples": RESAMPLES, "method": "percentile bootstrap over images"},
        "groups": {
            grouping: {
                group: {"samples": number, "estimates": _plain(found)}
                for group, (number, found) in groups.items()
            }
            for grouping, groups in by_group(records).items()
        },
        "calibration": calibration(records),
    }


def _plain(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: one.to_dict() for name, one in found.items()}
