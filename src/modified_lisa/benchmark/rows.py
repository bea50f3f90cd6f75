"""The rows of a benchmark's results, and their order."""

from typing import Any

__all__ = ["ARMS", "Row", "in_order", "rows_of"]

ARMS = ("original", "original, answer given", "sam", "vlm")
Row = dict[str, Any]


def rows_of(results: Row, what: str) -> list[Row]:
    """The rows of one kind of measurement."""
    return [row for row in results["rows"] if row["what"] == what]


def in_order(row: Row) -> tuple[Any, ...]:
    """Sorts rows by precision, architecture and way of running."""
    arm = row.get("arm")
    return row["precision"], ARMS.index(arm) if arm in ARMS else len(ARMS), row.get("mode", "")
