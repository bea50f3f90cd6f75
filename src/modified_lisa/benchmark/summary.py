"""The README's tables: what a reader compares before anything else."""

from modified_lisa.benchmark.markdown import factor, markdown, number
from modified_lisa.benchmark.report import totals, training
from modified_lisa.benchmark.rows import Row, in_order, rows_of

__all__ = ["session_summary", "summary", "training_summary"]


def summary(results: Row) -> list[str]:
    """The table for the README: what users wait for, beside what LISA's users do."""
    arms = {"original": "LISA's (two encoders)", "vlm": "ours (`vlm`)"}
    modes = {"eager": "plain calls", "fast": "graphs, fused, compiled"}
    rows = [row for row in sorted(rows_of(results, "latency"), key=in_order) if row["arm"] in arms]
    against = [totals(rows, "original", mode) for mode in modes]
    table = markdown(
        ("language model", "architecture", "run as", "image and query to mask, ms", "× faster than LISA's", "× faster than LISA's, sped up", "peak GiB"),
        (
            (
                row["precision"], arms[row["arm"]], modes[row["mode"]], number(row["total_ms"]),
                *(factor(totals.get(row["precision"]), row["total_ms"]) for totals in against),
                number(row["peak_gib"], 2),
            )
            for row in rows
            if not (row["arm"] == "vlm" and row["mode"] == "eager")
        ),
    )  # fmt: skip
    return [_heading(results), "", *table]


def session_summary(results: Row) -> list[str]:
    """The README's table of further queries about an image: milliseconds from the words to the masks."""
    rows = [row for row in rows_of(results, "session") if (row["arm"], row["mode"]) == ("vlm", "fast")]
    cases = list(dict.fromkeys((row["tokens"], row["queries"]) for row in rows))
    times = {(row["precision"], row["tokens"], row["queries"]): row["total_ms"] for row in rows}
    return markdown(
        (
            "further queries about the same image, ms",
            *(
                f"{tokens} tokens" if queries == 1 else f"{queries} of {tokens} at once"
                for tokens, queries in cases
            ),
        ),
        (
            (precision, *(number(times.get((precision, *case))) for case in cases))
            for precision in dict.fromkeys(row["precision"] for row in rows)
        ),
    )


def training_summary(results: Row) -> list[str]:
    """The README's table of training steps of the shared model."""
    rows = [row for row in rows_of(results, "training") if row["arm"] == "vlm"]
    return [_heading(results), "", *training({**results, "rows": rows})]


def _heading(results: Row) -> str:
    return f"*{results['machine']}, {results['date'][:16].replace('T', ' ')} UTC, torch {results['versions']['torch']}*"
