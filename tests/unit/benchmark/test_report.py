"""Tables and plot from fixed results; the script that puts them into the pages."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from modified_lisa.benchmark.markdown import markdown
from modified_lisa.benchmark.plot import plot_stages
from modified_lisa.benchmark.report import ablation, latency, tables, with_shares
from modified_lisa.benchmark.summary import session_summary, summary, training_summary

MEMORY = {"peak_gib": 4.5, "card_gib": 5.5}


def latency_row(arm, mode, total, precision="nf4"):
    return {
        "what": "latency", "precision": precision, "arm": arm, "mode": mode, "total_ms": total,
        "model_ms": total / 2, "first_call_s": 2.0, "tokens": 636, **MEMORY,
    }  # fmt: skip


def results():
    rows = [
        latency_row("original", "eager", 240.0),
        latency_row("original, answer given", "eager", 120.0),
        latency_row("vlm", "eager", 60.0),
        latency_row("original", "fast", 80.0),
        latency_row("vlm", "fast", 20.0),
        {**latency_row("vlm", "fast", 30.0), "what": "ablation", "off": "own 4-bit kernels"},
        {**latency_row("vlm", "fast", 40.0), "what": "ablation", "off": "fused elementwise work"},
        {
            "what": "flops", "precision": "nf4", "arm": "vlm", "mode": "eager",
            "flops": {"encode": 10**12, "prefill": 9 * 10**12}, "parameters": {"language model": 6_500_000_000},
        },
        {
            "what": "session", "precision": "nf4", "arm": "vlm", "mode": "fast", "tokens": 16, "queries": 1,
            "model_ms": 4.0, "total_ms": 5.0, "session_gib": 0.3, "bytes": 4 * 10**9,
        },
        {
            "what": "training", "precision": "nf4", "arm": "vlm", "mode": "eager", "way": "full", "ms": 180.0, **MEMORY,
        },
        {
            "what": "training", "precision": "nf4", "arm": "vlm", "mode": "fast", "way": "captured", "ms": 45.0, **MEMORY,
        },
        *(
            {"what": "stages", "precision": "nf4", "arm": arm, "mode": mode, "stages_ms": {"encode": 5.0, "prefill": 12.0}}
            for arm in ("original", "vlm")
            for mode in ("eager", "fast")
        ),
    ]  # fmt: skip
    rates = {"matrix_flops_per_s": 8e14, "copy_bytes_per_s": 4e12}
    return {
        "machine": "GPU X", "date": "2026-01-02T03:04:05+00:00", "versions": {"torch": "2.11"}, "rates": rates,
        "settings": {"dtype": "bf16"}, "notes": ["a note"],
        "errors": [{"step": "nf4 sam", "type": "RuntimeError", "message": "broken", "traceback": ""}],
        "rows": with_shares(rows, rates),
    }  # fmt: skip


def cells(lines, *starts):
    """The first row whose cells begin with these."""
    for line in lines:
        row = [cell.strip() for cell in line.strip("|").split("|")]
        if row[: len(starts)] == list(starts):
            return row
    raise AssertionError(f"no row {starts}")


def test_factors_are_against_the_original_of_the_same_precision():
    row = cells(latency(results()), "nf4", "vlm", "fast")
    assert row[3:6] == ["20.0", "12.00", "4.00"]


def test_shares_of_the_measured_rates():
    rows = results()["rows"]
    (fast,) = (r for r in rows if r["what"] == "latency" and (r["arm"], r["mode"]) == ("vlm", "fast"))
    assert fast["matrix_share"] == pytest.approx(10**13 / 0.010 / 8e14, rel=1e-3)
    (session,) = (r for r in rows if r["what"] == "session")
    assert session["bandwidth_share"] == pytest.approx(4e9 / 0.004 / 4e12, rel=1e-3)


def test_gains_are_switched_off_one_after_another_down_to_the_original():
    table = ablation(results())
    assert [line.split("|")[3].strip() for line in table[2:]] == [
        "20.0", "30.0", "40.0", "60.0", "120.0", "240.0",
    ]  # fmt: skip
    assert [line.split("|")[4].strip() for line in table[2:]] == ["", "1.50", "1.33", "1.50", "2.00", "2.00"]


def test_all_tables_say_what_failed():
    text = "\n".join(tables(results()))
    assert "Failed: nf4 sam: RuntimeError: broken" in text
    assert "Note: a note." in text
    assert "800.0 TFLOP/s" in text
    assert cells(tables(results()), "nf4", "vlm", "bitsandbytes", "full")[4:6] == ["180.0", "4.00"]


def test_no_rows_no_table():
    assert markdown(("a",), []) == []
    empty = {**results(), "rows": [], "rates": {}, "notes": [], "errors": []}
    assert [line for line in tables(empty) if line] == ["## GPU X, 2026-01-02 03:04 UTC"]


def test_the_plot_is_a_picture(tmp_path):
    with Image.open(plot_stages(tmp_path / "plot.png", results())) as picture:
        assert picture.size[0] > 500


def test_the_script_fills_the_pages(tmp_path, repository):
    folder = tmp_path / "benchmarks" / "results"
    folder.mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    page = "above\n<!-- benchmark:begin -->\nold\n<!-- benchmark:end -->\nbelow\n"
    others = tmp_path / "docs" / "benchmark-runs.md"
    for path in (tmp_path / "README.md", tmp_path / "docs" / "performance.md", others):
        path.write_text(page, encoding="utf-8")
    bf16 = {
        **results(),
        "date": "2025-12-01T00:00:00+00:00",
        "rows": [latency_row("vlm", "fast", 17.0, "bf16")],
    }
    newer = {**bf16, "date": "2026-02-01T00:00:00+00:00"}
    for number, run in enumerate((results(), bf16, newer)):
        (folder / f"run_{number}.json").write_text(json.dumps(run), encoding="utf-8")
    command = [sys.executable, repository / "scripts" / "update_performance.py"]
    command += ["--results", folder, "--root", tmp_path]
    subprocess.run(command, check=True, timeout=120)
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("above\n<!-- benchmark:begin -->\n*GPU X")
    assert readme.endswith("<!-- benchmark:end -->\nbelow\n")
    assert "old" not in readme
    assert "17.0" not in readme  # that run has no original to compare with
    assert cells(readme.splitlines(), "nf4", "ours (`vlm`)")[3:6] == ["20.0", "12.00", "4.00"]
    assert cells(readme.splitlines(), "nf4", "vlm", "own", "captured")
    page = (tmp_path / "docs" / "performance.md").read_text(encoding="utf-8")
    assert page.count("## GPU X, 2026-01-02") == page.count("## GPU X") == 1
    assert others.read_text(encoding="utf-8").count("## GPU X") == 2
    assert (tmp_path / "docs" / "images" / "benchmark.png").is_file()
    once = readme
    subprocess.run(command, check=True, timeout=120)
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == once


@pytest.mark.skipif(torch.cuda.is_available(), reason="is for machines without a GPU")
def test_kernels_are_not_timed_without_a_gpu(repository, tmp_path):
    command = [sys.executable, repository / "scripts" / "time_kernels.py", "--out", tmp_path / "kernels.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
    assert not list(tmp_path.iterdir())


def test_the_summary_names_the_machine():
    assert summary(results())[0].startswith("*GPU X, 2026-01-02 ")
    assert training_summary(results())[2:]


def test_the_summary_of_further_queries():
    rows = [
        {"what": "session", "precision": precision, "arm": arm, "mode": mode, "tokens": tokens, "queries": queries, "total_ms": ms}
        for precision, arm, mode, tokens, queries, ms in (
            ("bf16", "vlm", "fast", 16, 1, 8.0), ("nf4", "vlm", "fast", 16, 1, 6.0), ("nf4", "vlm", "fast", 16, 4, 9.0),
            ("nf4", "vlm", "eager", 16, 1, 70.0), ("nf4", "sam", "fast", 16, 1, 80.0),
        )
    ]  # fmt: skip
    table = session_summary({**results(), "rows": rows})
    assert [part.strip() for part in table[0].strip("|").split("|")][1:] == ["16 tokens", "4 of 16 at once"]
    assert cells(table, "nf4")[1:] == ["6.00", "9.00"]
    assert cells(table, "bf16")[1] == "8.00"
    assert not any("70" in line or "80" in line for line in table)
