"""Results of a benchmark as tables (markdown, readable as they are), from what its JSON holds."""

from collections.abc import Sequence

from modified_lisa.benchmark.markdown import factor, markdown, number, percent
from modified_lisa.benchmark.memory_report import alone, load
from modified_lisa.benchmark.rows import ARMS, Row, in_order, rows_of

__all__ = ["ablation", "latency", "tables", "totals", "training", "with_shares"]


def with_shares(rows: Sequence[Row], rates: dict[str, float]) -> list[Row]:
    """The rows, with the shares of the device's measured rates that were reached.

    ``matrix_share`` (latency without pre- and post-processing, throughput) from the operations of a run, padding
    not counted; ``bandwidth_share`` (session) from the bytes that one answer has to read.
    """
    flops = {
        (row["precision"], row["arm"]): sum(row["flops"].values()) for row in rows if row["what"] == "flops"
    }
    matrix, copy = rates.get("matrix_flops_per_s"), rates.get("copy_bytes_per_s")
    found = []
    for row in rows:
        new, work = dict(row), flops.get((row.get("precision"), row.get("arm")))
        if matrix and work and row["what"] in ("latency", "throughput"):
            seconds = (row["model_ms"] if row["what"] == "latency" else row["ms"]) / 1000
            new["matrix_share"] = round(work * row.get("batch", 1) / seconds / matrix, 4)
        if copy and row["what"] == "session":
            new["bandwidth_share"] = round(row["bytes"] / (row["model_ms"] / 1000) / copy, 4)
        found.append(new)
    return found


def tables(results: Row) -> list[str]:
    """Lines of all tables that there are results for."""
    rates = results["rates"]
    lines = [f"## {results['machine']}, {results['date'][:16].replace('T', ' ')} UTC", ""]
    if rates:
        lines += [
            f"Measured on it: {rates['matrix_flops_per_s'] / 1e12:.1f} TFLOP/s in products of matrices "
            f"({results['settings']['dtype']}), {rates['copy_bytes_per_s'] / 1e9:.0f} GB/s in copies.",
            "",
        ]
    parts = [
        ("Image and query to mask, batch 1", latency(results)),
        ("Stages (ms)", _stages(results)),
        ("Throughput, prepared images to logits", _throughput(results)),
        ("Further queries on the same image", _sessions(results)),
        ("Training step, batch 1", training(results)),
        ("Operations of one image and query (GFLOP)", _flops(results)),
        ("Weights (million)", _parameters(results)),
        ("Fast against eager: the same masks", _agreement(results)),
        ("Quantised against not: how far the masks move", _precision(results)),
        ("Gains switched off one after another", ablation(results)),
        ("On the card, in a process of its own (GiB)", alone(results)),
        ("Load", load(results)),
    ]
    for title, table in parts:
        if table:
            lines += [f"### {title}", "", *table, ""]
    lines += [f"Note: {note}." for note in results["notes"]]
    lines += [
        f"Failed: {error['step']}: {error['type']}: {error['message'][:200]}" for error in results["errors"]
    ]
    return lines


def totals(rows: Sequence[Row], arm: str, mode: str) -> dict[str, float]:
    """Milliseconds by precision, of one architecture run one way."""
    return {row["precision"]: row["total_ms"] for row in rows if (row["arm"], row["mode"]) == (arm, mode)}


def latency(results: Row) -> list[str]:
    """Totals with the factor against the eager original of the same precision, and memory."""
    rows = rows_of(results, "latency")
    base, sped = (totals(rows, "original", mode) for mode in ("eager", "fast"))
    return markdown(
        (
            "language model",
            "architecture",
            "run as",
            "ms",
            "× original eager",
            "× original fast",
            "model alone, ms",
            "of matrix rate",
            "peak GiB",
            "card GiB",
            "first call, s",
        ),
        (
            (
                row["precision"],
                row["arm"],
                row["mode"],
                number(row["total_ms"]),
                factor(base.get(row["precision"]), row["total_ms"]),
                factor(sped.get(row["precision"]), row["total_ms"]),
                number(row["model_ms"]),
                percent(row.get("matrix_share")),
                number(row["peak_gib"], 2),
                number(row["card_gib"], 2),
                number(row["first_call_s"]),
            )
            for row in sorted(rows, key=in_order)
        ),
    )


def ablation(results: Row) -> list[str]:
    """From everything on, down to the original as LISA runs it; each row has everything above it off too."""
    found = []
    totals = {(row["precision"], row["arm"], row["mode"]): row for row in rows_of(results, "latency")}
    extra = {(row["precision"], row["off"]): row for row in rows_of(results, "ablation")}
    for precision in dict.fromkeys(row["precision"] for row in rows_of(results, "ablation")):
        chain = [
            ("nothing: everything on", totals.get((precision, "vlm", "fast"))),
            ("own 4-bit kernels", extra.get((precision, "own 4-bit kernels"))),
            ("fused elementwise work", extra.get((precision, "fused elementwise work"))),
            ("CUDA graphs", totals.get((precision, "vlm", "eager"))),
            ("the shared encoder (now CLIP and SAM's)", totals.get((precision, ARMS[1], "eager"))),
            ("<SEG> in the prompt (now 6 tokens are generated)", totals.get((precision, ARMS[0], "eager"))),
        ]
        there = [(off, row) for off, row in chain if row is not None]
        before = None
        for off, row in there:
            found.append(
                (
                    precision,
                    off,
                    number(row["total_ms"]),
                    "" if before is None else factor(row["total_ms"], before),
                    number(row["peak_gib"], 2),
                )
            )
            before = row["total_ms"]
    return markdown(("language model", "switched off", "ms", "× slower than before", "peak GiB"), found)


def _stages(results: Row) -> list[str]:
    rows = sorted(rows_of(results, "stages"), key=in_order)
    names = list(dict.fromkeys(name for row in rows for name in row["stages_ms"]))
    names.sort(key=["preprocess", "encode", "prefill", "decode", "mask head", "post-processing"].index)
    return markdown(
        ("language model", "architecture", "run as", *names),
        (
            (
                row["precision"],
                row["arm"],
                row["mode"],
                *(number(row["stages_ms"].get(name)) for name in names),
            )
            for row in rows
        ),
    )


def _throughput(results: Row) -> list[str]:
    return markdown(
        (
            "language model",
            "architecture",
            "run as",
            "batch",
            "images/s",
            "ms an image",
            "of matrix rate",
            "peak GiB",
        ),
        (
            (
                row["precision"],
                row["arm"],
                row["mode"],
                row["batch"],
                number(row["images_per_s"]),
                number(row["ms"] / row["batch"]),
                percent(row.get("matrix_share")),
                number(row["peak_gib"], 2),
            )
            for row in sorted(rows_of(results, "throughput"), key=lambda row: (*in_order(row), row["batch"]))
        ),
    )


def _sessions(results: Row) -> list[str]:
    return markdown(
        (
            "language model",
            "architecture",
            "run as",
            "tokens of a query",
            "queries at once",
            "model ms",
            "to masks ms",
            "of bandwidth",
            "session GiB",
        ),
        (
            (
                row["precision"],
                row["arm"],
                row["mode"],
                row["tokens"],
                row["queries"],
                number(row["model_ms"]),
                number(row["total_ms"]),
                percent(row.get("bandwidth_share")),
                number(row["session_gib"], 2),
            )
            for row in sorted(rows_of(results, "session"), key=in_order)
        ),
    )


def training(results: Row) -> list[str]:
    """Each way of a training step, with the factor by which the captured one of the same precision is faster."""
    kernels = {"eager": "bitsandbytes", "fast": "own"}
    rows = rows_of(results, "training")
    fast = {row["precision"]: row["ms"] for row in rows if (row["arm"], row["way"]) == ("vlm", "captured")}
    return markdown(
        (
            "language model",
            "architecture",
            "4-bit kernels",
            "way",
            "ms a step",
            "captured is × faster",
            "peak GiB",
            "card GiB",
        ),
        (
            (
                row["precision"],
                row["arm"],
                kernels[row["mode"]] if row["precision"] == "nf4" else "",
                row["way"],
                number(row["ms"]),
                factor(row["ms"], fast.get(row["precision"])),
                number(row["peak_gib"], 2),
                number(row["card_gib"], 2),
            )
            for row in sorted(rows, key=in_order)
        ),
    )


def _flops(results: Row) -> list[str]:
    rows = list({row["arm"]: row for row in rows_of(results, "flops")}.values())
    names = list(dict.fromkeys(name for row in rows for name in row["flops"]))
    return markdown(
        ("architecture", *names, "sum"),
        (
            (
                row["arm"],
                *(number(row["flops"].get(name, 0) / 1e9) for name in names),
                number(sum(row["flops"].values()) / 1e9),
            )
            for row in rows
        ),
    )


def _parameters(results: Row) -> list[str]:
    rows = list({row["arm"]: row for row in rows_of(results, "flops")}.values())
    names = list(dict.fromkeys(name for row in rows for name in row["parameters"]))
    return markdown(
        ("part", *(row["arm"] for row in rows)),
        ((name, *(number(row["parameters"].get(name, 0) / 1e6, 3) for row in rows)) for name in names),
    )


def _agreement(results: Row) -> list[str]:
    return markdown(
        (
            "language model",
            "architecture",
            "samples",
            "largest / largest logit",
            "mean / mean logit",
            "lowest IoU",
            "most cells changed",
        ),
        (
            (
                row["precision"],
                row["arm"],
                row["samples"],
                f"{row['max_difference']:.2e}",
                f"{row['mean_difference']:.2e}",
                f"{row['min_iou']:.4f}",
                _changed(row),
            )
            for row in rows_of(results, "agreement")
        ),
    )


def _precision(results: Row) -> list[str]:
    return markdown(
        (
            "language model",
            "against",
            "architecture",
            "mean / mean logit",
            "lowest IoU",
            "mean IoU",
            "most cells changed",
        ),
        (
            (
                row["precision"],
                row["against"],
                row["arm"],
                f"{row['mean_difference']:.2e}",
                f"{row['min_iou']:.4f}",
                f"{row['mean_iou']:.4f}",
                _changed(row),
            )
            for row in rows_of(results, "precision")
        ),
    )


def _changed(row: Row) -> str:
    share = row.get("max_changed")  # runs of before it was measured have none
    return "–" if share is None else f"{100 * share:.3f} %"
