"""scripts/measure_imported.sh and what it runs, at tiny size."""

import json
import os
import runpy
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from modified_lisa.benchmark.measure import GIB
from modified_lisa.errors import ConfigError


def run(repository: Path, out: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SIZE": "tiny", "PYTHON": sys.executable, "BASE": str(out / "base")}
    return subprocess.run(
        ["bash", "scripts/measure_imported.sh", str(out)],
        cwd=repository,
        env={**environment, "CUDA_VISIBLE_DEVICES": "", **settings},
        capture_output=True,
        encoding="utf-8",
        errors="replace",  # the end of a log may begin within a letter
        check=False,
    )


def test_a_query_and_a_distillation_in_4_bit(repository: Path, tmp_path: Path) -> None:
    done = run(repository, tmp_path, WHAT="nf4 distill", LIMIT="600")
    assert done.returncode == 0, done.stdout + done.stderr
    query = json.loads((tmp_path / "lisa7b-nf4.json").read_text(encoding="utf-8"))
    assert query["nf4"]["plain"]["mask"] == [1, 480, 640]
    found = json.loads((tmp_path / "distill7b-2.json").read_text(encoding="utf-8"))
    assert found["outcome"] == "done"
    assert found["limit"] is None
    assert list(found["stages"])[-2:] == ["embedding_training", "mask_training"]
    assert found["peak_memory_gb"] == found["stages"]["mask_training"]["peak_memory_gb"]
    assert "--batch_size 2" in found["command"]
    assert found["versions"]["torch"] == version("torch")
    assert not list((tmp_path / "base").iterdir()), "16 GB are left behind"


def test_a_step_that_fails_is_the_exit_status(repository: Path, tmp_path: Path) -> None:
    done = run(repository, tmp_path, WHAT="distill", IMAGES="1")
    assert done.returncode == 1
    assert "two are the least" in done.stdout
    assert (
        json.loads((tmp_path / "distill7b-2.json").read_text(encoding="utf-8"))["outcome"] == "exit status 2"
    )


def test_torch_gets_what_a_smaller_card_would_leave_it(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = runpy.run_path(str(repository / "scripts" / "measure_distill.py"))
    limit_memory, shares = script["limit_memory"], []
    assert limit_memory(torch.device("cpu"), 8.0) is None
    monkeypatch.setitem(limit_memory.__globals__, "start_cuda", lambda _: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (79 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: GIB // 2)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, _: shares.append(share))
    found = limit_memory(torch.device("cuda"), 8.0)
    assert found == {"card_gib": 8.0, "beside_torch_gib": 0.5, "allocator_gib": 7.25}
    assert shares == [7.25 / 80]
    for too_little_or_more_than_there_is in (0.5, 90.0):
        with pytest.raises(ConfigError, match="--card_gib"):
            limit_memory(torch.device("cuda"), too_little_or_more_than_there_is)
    assert len(shares) == 1


def test_a_card_that_is_too_small_is_an_outcome(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    main = runpy.run_path(str(repository / "scripts" / "measure_distill.py"))["main"]
    stage = {"seconds": 1.0, "peak_memory_gb": 5.0, "card_memory_gb": 6.5}

    def distill(words: list[str]) -> int:
        assert words == ["distill", "teacher", str(tmp_path), "--images", "photos"]
        history = {"stages": {"prompts": stage, "features": {**stage, "card_memory_gb": 6.0}}}
        (tmp_path / "distillation_history.json").write_text(json.dumps(history), encoding="utf-8")
        raise torch.cuda.OutOfMemoryError("tried to allocate 2 GiB")

    limit = {"card_gib": 8.0, "beside_torch_gib": 0.5, "allocator_gib": 7.25}
    monkeypatch.setitem(main.__globals__, "modified_lisa", distill)
    monkeypatch.setitem(main.__globals__, "limit_memory", lambda *_: limit)
    out = tmp_path / "measured.json"
    assert main(["--out", str(out), "--", "teacher", str(tmp_path), "--images", "photos"]) == 1
    found = json.loads(out.read_text(encoding="utf-8"))
    assert found["outcome"] == "out of memory: tried to allocate 2 GiB"
    assert (found["fits"], found["card_memory_gb"], found["limit"]) == (False, 6.5, limit)
