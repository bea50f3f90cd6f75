"""Tables in markdown that can be read as they are, and how their numbers are written."""

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["factor", "markdown", "number", "percent"]


def markdown(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    """Lines of a table with aligned columns; none without rows."""
    cells = [[str(cell) for cell in row] for row in rows]
    if not cells:
        return []
    widths = [max(len(row[column]) for row in [list(head), *cells]) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"

    return [line(head), "| " + " | ".join("-" * width for width in widths) + " |", *map(line, cells)]


def number(value: float | None, digits: int = 1) -> str:
    """With ``digits`` decimals, two at least below 10; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if abs(value) >= 10 else f"{value:.{max(digits, 2)}f}"


def factor(reference: float | None, value: float | None) -> str:
    return "–" if not reference or not value else f"{reference / value:.2f}"


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"
