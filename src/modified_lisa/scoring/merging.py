"""Results of several seeds as one, and two models compared on the same samples."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modified_lisa.errors import DataError
from modified_lisa.scoring.ratios import (
    LEVEL,
    METRICS,
    RESAMPLES,
    bootstrap,
    interval,
    ratios,
    sums_of_images,
)
from modified_lisa.scoring.summary import groupings

__all__ = ["merge_results", "read_results"]

Record = Mapping[str, Any]
_METHOD = "percentile bootstrap; images and seeds are both drawn anew, the same images for all seeds"


def read_results(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The records that ``modified-lisa evaluate`` wrote: a JSON-lines file, or the folder that holds one.

    Raises:
        DataError: no such file, several in the folder, or lines that are no records; names the file.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("results_*.jsonl"))
        if len(found) != 1:
            what = f"holds {', '.join(file.name for file in found)}: name one" if found else "has none"
            raise DataError(f"a results_SPLIT.jsonl of modified-lisa evaluate is expected, and {path} {what}")
        path = found[0]
    try:
        # Not splitlines: a query may hold U+2028 and others of its ends of a line, which JSON leaves as they are.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise DataError(
            f"there is no file or folder {path}; name the output of modified-lisa evaluate"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    records = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not valid JSON ({error})") from error
        if not isinstance(record, dict) or not isinstance(record.get("groups"), dict) or "name" not in record:
            raise DataError(f"{path}, line {number}: {line:.60} is no record of modified-lisa evaluate")
        records.append(record)
    if not records:
        raise DataError(f"{path} is empty; run modified-lisa evaluate again")
    names = {record["name"] for record in records}
    if len(names) < len(records):
        raise DataError(
            f"{path} has {len(records) - len(names)} samples twice; give each seed's results apart"
        )
    return records


def merge_results(
    runs: Sequence[Sequence[Record]], against: Sequence[Sequence[Record]] = ()
) -> dict[str, Any]:
    """Merge the records of several seeds (S runs), and compare them with those of another model.

    Returns:
        Plain values: ``seeds``, ``samples``; ``metrics`` {name: {"mean", "std", "low", "high", "values"}}:
        over the seeds, ``std`` with S - 1 in the denominator (None for one seed), and the bounds of the 95 %
        interval for other seeds and images; ``groups`` {grouping: {group: {"samples", "metrics"}}}. With
        ``against`` also ``against`` (its ``seeds`` and ``metrics``) and, overall and in each group,
        ``difference`` {name: {"mean", "low", "high"}}: runs minus against, images drawn together for both
        (a paired bootstrap).

    Raises:
        DataError: no runs, or runs that were not measured on the same samples.
    """
    if not runs:
        raise DataError("there are no results to merge; give at least one")
    _check_same_samples([*runs, *against])
    first = runs[0]
    merged = {
        "seeds": len(runs),
        "samples": len(first),
        "interval": {"level": LEVEL, "resamples": RESAMPLES, "method": _METHOD},
        **_compared(runs, against),
        "groups": {
            grouping: {
                group: {
                    "samples": len(members),
                    **_compared(
                        [_only(run, members) for run in runs], [_only(run, members) for run in against]
                    ),
                }
                for group, members in groups.items()
            }
            for grouping, groups in groupings(first).items()
        },
    }
    if against:
        merged["against"] = {"seeds": len(against), "metrics": _merged(against)}
    return merged


def _compared(runs: Sequence[Sequence[Record]], against: Sequence[Sequence[Record]]) -> dict[str, Any]:
    found = {"metrics": _merged(runs)}
    return {**found, "difference": _difference(runs, against)} if against else found


def _merged(runs: Sequence[Sequence[Record]]) -> dict[str, dict[str, Any]]:
    sums = _sums(runs)
    values = ratios(sums.sum(axis=1))  # (seeds, metrics)
    drawn = _mean_over_drawn_seeds(bootstrap(sums), seed=1)
    found = {}
    for column, name in enumerate(METRICS):
        if not np.isfinite(values[:, column]).all():
            continue
        low, high = interval(drawn[:, column]) if sums.shape[1] > 1 else (None, None)
        found[name] = {
            "mean": float(values[:, column].mean()),
            "std": float(values[:, column].std(ddof=1)) if len(runs) > 1 else None,
            "low": low,
            "high": high,
            "values": values[:, column].tolist(),
        }
    return found


def _difference(runs: Sequence[Sequence[Record]], against: Sequence[Sequence[Record]]) -> dict[str, Any]:
    one, other = _sums(runs), _sums(against)
    drawn = bootstrap(np.concatenate([one, other]))
    drawn_one = _mean_over_drawn_seeds(drawn[:, : len(one)], seed=1)
    drawn_other = _mean_over_drawn_seeds(drawn[:, len(one) :], seed=2)
    means = ratios(one.sum(axis=1)).mean(axis=0) - ratios(other.sum(axis=1)).mean(axis=0)
    found = {}
    for column, name in enumerate(METRICS):
        if np.isfinite(means[column]):
            low, high = (
                interval(drawn_one[:, column] - drawn_other[:, column]) if one.shape[1] > 1 else (None, None)
            )
            found[name] = {"mean": float(means[column]), "low": low, "high": high}
    return found


def _mean_over_drawn_seeds(drawn: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """(resamples, seeds, metrics) -> (resamples, metrics): in each, as many seeds drawn with replacement."""
    resamples, seeds, _ = drawn.shape
    chosen = np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))
    return np.take_along_axis(drawn, chosen[:, :, None], axis=1).mean(axis=1)


def _sums(runs: Sequence[Sequence[Record]]) -> NDArray[np.float64]:
    """(seeds, images, metrics, 2); the images are in the same order for all runs of the same samples."""
    return np.stack([sums_of_images(run)[1] for run in runs])


def _only(run: Sequence[Record], members: Iterable[Record]) -> list[Record]:
    names = {member["name"] for member in members}
    return [record for record in run if record["name"] in names]


def _check_same_samples(runs: Sequence[Sequence[Record]]) -> None:
    first = {record["name"]: record.get("target_area") for record in runs[0]}
    for number, run in enumerate(runs[1:], 2):
        names = {record["name"]: record.get("target_area") for record in run}
        if differing := sorted(str(name) for name, _ in first.items() ^ names.items()):
            raise DataError(
                f"result {number} was not measured on the samples of result 1: they differ in "
                f"{', '.join(dict.fromkeys(differing[:5]))}{' and more' if len(differing) > 5 else ''}; evaluate all "
                "on the same split"
            )
