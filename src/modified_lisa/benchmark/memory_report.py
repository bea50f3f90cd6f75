"""Tables of memory: what loading takes, and what a process takes on the card."""

from modified_lisa.benchmark.markdown import markdown, number
from modified_lisa.benchmark.rows import Row, in_order, rows_of

__all__ = ["alone", "load"]


def alone(results: Row) -> list[str]:
    """Each architecture as graphs, in a process that does nothing else."""
    names = ("loaded_gib", "answered_gib", "session_gib", "peak_gib")
    return markdown(
        (
            "language model",
            "architecture",
            "loaded",
            "after an image and a query",
            "with an open session",
            "torch's peak without the session",
        ),
        (
            (row["precision"], row["arm"], *(number(row.get(name), 2) for name in names))
            for row in sorted(rows_of(results, "memory"), key=in_order)
        ),
    )


def load(results: Row) -> list[str]:
    return markdown(
        ("language model", "seconds", "peak GiB"),
        (
            (row["precision"], number(row["seconds"]), number(row["peak_gib"], 2))
            for row in rows_of(results, "load")
        ),
    )
