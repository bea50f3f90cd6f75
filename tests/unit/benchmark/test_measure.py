"""Measuring: what is counted and where; never how fast this machine is."""

import time
from importlib.metadata import version

import pytest
import torch

from modified_lisa.benchmark.measure import (
    GIB,
    Timing,
    beside_torch_gb,
    card_memory_gb,
    describe_device,
    memory_source,
    peak_memory_gb,
    reset_peak_memory,
    time_calls,
    versions,
)
from modified_lisa.errors import ConfigError


def test_each_call_is_timed_once_after_the_warm_up() -> None:
    calls: list[str] = []
    timing = time_calls([lambda: calls.append("a"), lambda: calls.append("b")], warmup=2)
    assert calls == ["a", "a", "a", "b"]
    assert len(timing.seconds) == 2


def test_a_call_takes_at_least_as_long_as_it_sleeps() -> None:
    assert time_calls([lambda: time.sleep(0.02)]).mean >= 0.02


def test_mean_and_median() -> None:
    timing = Timing((1.0, 2.0, 6.0))
    assert (timing.mean, timing.median) == (3.0, 2.0)


def test_nothing_to_time() -> None:
    with pytest.raises(ConfigError, match="nothing to time"):
        time_calls([])


def test_peak_memory_of_the_process_grows_with_it() -> None:
    before = peak_memory_gb("cpu")
    size = int((before + 0.25) * 2**30 / 4)
    block = torch.ones(size)  # ones are written, so they are resident
    assert peak_memory_gb("cpu") >= before + 0.2
    assert block[-1] == 1


def test_names() -> None:
    reset_peak_memory("cpu")
    assert "resident" in memory_source("cpu")
    assert f"{torch.get_num_threads()} threads" in describe_device(torch.device("cpu"))


def test_versions_of_what_is_there_and_what_is_not() -> None:
    assert versions("torch", "no-such-library") == {"torch": version("torch"), "no-such-library": None}


def test_what_a_card_must_have(monkeypatch: pytest.MonkeyPatch) -> None:
    assert card_memory_gb("cpu") is None
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (10 * GIB, 16 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 5 * GIB)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 7 * GIB)
    assert beside_torch_gb("cuda") == 1
    assert card_memory_gb("cuda") == 8


def test_deterministic_algorithms_are_off_while_timing_and_back_afterwards() -> None:
    during: list[bool] = []
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        time_calls([lambda: during.append(torch.are_deterministic_algorithms_enabled())])
        with pytest.raises(ZeroDivisionError):
            time_calls([lambda: 1 / 0])
        assert during == [False, False]
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.is_deterministic_algorithms_warn_only_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
