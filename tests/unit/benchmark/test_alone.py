"""Memory of an architecture in a process of its own. The card is played: each look at it finds less that is free."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from factory import folders
from modified_lisa.benchmark import alone
from modified_lisa.benchmark.arguments import BenchmarkConfig
from modified_lisa.benchmark.measure import GIB
from modified_lisa.benchmark.original import OriginalPipeline
from modified_lisa.benchmark.pipelines import RunnerPipeline
from modified_lisa.errors import ModelLoadError

CPU = torch.device("cpu")


@pytest.fixture(name="config")
def _config(monkeypatch, capsys) -> BenchmarkConfig:
    free = iter(range(100, 0, -1))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (next(free) * GIB, 100 * GIB))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device=None: None)
    for kind in (OriginalPipeline, RunnerPipeline):
        monkeypatch.setattr(alone, kind.__name__, lambda *given, kind=kind, fast: kind(*given, fast=False))

    def run(command: list[str], **how: object) -> SimpleNamespace:
        assert command[:3] == [sys.executable, "-m", "modified_lisa.benchmark.alone"]
        status = alone.main(command[3:])
        said = capsys.readouterr()
        return SimpleNamespace(returncode=status, stdout=said.out, stderr=said.err)

    monkeypatch.setattr(subprocess, "run", run)
    vlm, sam = folders()
    return BenchmarkConfig(
        vlm_name=vlm, sam_name=sam, original_sam=sam, dtype="fp32", device="cpu", ablate=True
    )


@pytest.mark.parametrize("source", ["vlm", "sam", "original"])
def test_what_is_gone_from_the_card_since_before_the_process(config, source):
    found = alone.measure_alone(config, "none", source, CPU)
    assert found.pop("peak_gib") > 0
    assert found == {"loaded_gib": 1, "answered_gib": 2} | (
        {} if source == "original" else {"session_gib": 3}
    )


def test_a_process_that_fails_says_why(config, tmp_path):
    config = BenchmarkConfig(**{**vars(config), "vlm_name": str(tmp_path / "nowhere")})
    with pytest.raises(ModelLoadError, match=r"vlm in none ended with status 2: error: .*nowhere"):
        alone.measure_alone(config, "none", "vlm", CPU)


def test_a_process_that_breaks_does_not_stop_the_benchmark(config, monkeypatch):
    broken = SimpleNamespace(returncode=1, stdout="", stderr="Traceback ...\nCUDA out of memory")
    monkeypatch.setattr(subprocess, "run", lambda command, **how: broken)
    with pytest.raises(
        RuntimeError, match=r"(?s)vlm in none ended with status 1: .*CUDA out of memory"
    ) as found:
        alone.measure_alone(config, "none", "vlm", CPU)
    assert not isinstance(found.value, ModelLoadError)
