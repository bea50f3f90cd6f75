"""The controlled study, run as a user runs it, with the smallest settings and models."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from factory import folders

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "controlled_study.py"


def study(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    vlm, sam = folders()
    command = [
        sys.executable,
        str(SCRIPT),
        "--smoke",
        "--out",
        str(out),
        "--processes",
        "1",
        "--workers",
        "1",
    ]
    command += [
        "--vlm_name",
        vlm,
        "--sam_name",
        sam,
        "--rows",
        "vlm, specification",
        "dual, spec",
        "distilled",
    ]
    return subprocess.run([*command, *more], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_it_trains_measures_and_goes_on_where_it_was_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = study(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    said = json.loads((tmp_path / "table.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in said["rows"]] == [
        "vlm, specification",
        "dual, specification",
        "vlm, pyramid, distilled first",
    ]
    assert said["about"]["finished"] == said["about"]["wanted"] == 6
    for row in said["rows"]:
        metrics = row["merged"]["metrics"]
        assert row["merged"]["seeds"] == 2
        assert {"mIoU", "cIoU", "gIoU", "boundary_IoU"} <= set(metrics)
        assert metrics["mIoU"]["low"] <= metrics["mIoU"]["mean"] <= metrics["mIoU"]["high"]
        assert row["cost"]["trainable"] > 0
    assert said["rows"][0]["against"] == "dual, specification"
    assert "points of mIoU" in said["findings"][0]
    assert Image.open(tmp_path / "study.png").width > 500

    results = sorted((tmp_path / "runs").rglob("seed_*.json"))
    assert len(results) == 6
    kept = [path.read_bytes() for path in results[1:]]
    first = json.loads(results[0].read_text(encoding="utf-8"))
    results[0].unlink()
    done = study(tmp_path)
    assert "1 runs of 3 steps" in done.stdout
    assert [path.read_bytes() for path in results[1:]] == kept
    again = json.loads(results[0].read_text(encoding="utf-8"))
    assert again["scores"] == first["scores"]  # the seed decides

    refused = study(tmp_path, "--lr", "0.5")
    assert refused.returncode == 2
    assert "lr 0.001 and 0.5 is asked for" in refused.stderr

    for folder in ("tiny_models", "study"):
        monkeypatch.syspath_prepend(str(SCRIPT.parent / folder))
    from findings import collect
    from rows import all_rows

    next(path for path in results if path.parts[-2:] == ("dual--specification", "seed_1.json")).unlink()
    found = {
        row["name"]: row for row in collect(tmp_path, tmp_path / "pool", all_rows("tiny", "tiny"), range(2))
    }
    ours, theirs = (found[f"{source}, specification"]["merged"] for source in ("vlm", "dual"))
    assert (ours["seeds"], theirs["seeds"], ours["paired_seeds"]) == (2, 1, 1)
    expected = ours["metrics"]["mIoU"]["values"][0] - theirs["metrics"]["mIoU"]["values"][0]
    assert ours["difference"]["mIoU"]["mean"] == pytest.approx(expected)
