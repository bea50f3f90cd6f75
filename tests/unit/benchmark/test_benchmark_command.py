"""The whole command on the tests' tiny models, on a CPU; errors; arguments."""

import json

import pytest
import torch

from factory import folders
from modified_lisa.apps.cli import main
from modified_lisa.benchmark.agreement import compare
from modified_lisa.benchmark.arguments import BenchmarkConfig
from modified_lisa.benchmark.parts import Parts
from modified_lisa.benchmark.plan import Bench
from modified_lisa.errors import ConfigError, ModelLoadError


def arguments(out, *more):
    vlm, sam = folders()
    names = ["--vlm_name", vlm, "--sam_name", sam, "--original_sam", sam]
    return [
        "benchmark",
        *names,
        "--device",
        "cpu",
        "--quick",
        "--quantization",
        "none",
        "--out",
        str(out),
        *more,
    ]


def test_everything_that_a_cpu_can(tmp_path, capsys):
    out = tmp_path / "results.json"
    assert main(arguments(out)) == 0
    results = json.loads(out.read_text(encoding="utf-8"))
    assert results["errors"] == []
    found = {(row["what"], row.get("arm"), row.get("way")) for row in results["rows"]}
    for arm in ("original", "original, answer given", "vlm", "sam"):
        assert {("latency", arm, None), ("stages", arm, None), ("flops", arm, None)} <= found
    for arm in ("original", "vlm"):
        assert {("training", arm, way) for way in ("full", "checkpointed")} <= found
    assert ("training", "vlm", "split") in found
    assert {("throughput", "original", None), ("throughput", "sam", None), ("session", "vlm", None)} <= found
    assert any("no CUDA device" in note for note in results["notes"])
    assert all(row["precision"] == "fp32" for row in results["rows"])
    assert (tmp_path / "results.png").is_file()
    printed = capsys.readouterr().out
    assert "Training step, batch 1" in printed
    assert "decode" in printed


def test_one_failure_does_not_lose_the_others(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("modified_lisa.benchmark.plan.measure_stages", broken)
    out = tmp_path / "results.json"
    with pytest.raises(SystemExit) as end:
        main(arguments(out, "--what", "latency", "--sources", "vlm"))
    assert end.value.code == 1
    results = json.loads(out.read_text(encoding="utf-8"))
    (error,) = results["errors"]
    assert (error["type"], error["message"]) == ("RuntimeError", "out of luck")
    assert "stages" in error["step"]
    assert "/" not in error["traceback"].split(" ")[0]
    assert [row["what"] for row in results["rows"]] == ["load", "latency"]


def test_what_needs_a_model_that_is_not_there_is_skipped(tmp_path, monkeypatch):
    def broken(*_):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(Parts, "arm", broken)
    out = tmp_path / "results.json"
    with pytest.raises(SystemExit):
        main(arguments(out, "--what", "latency", "--sources", "vlm"))
    results = json.loads(out.read_text(encoding="utf-8"))
    assert [error["step"] for error in results["errors"]] == ["build fp32 vlm"]
    assert len(results["skipped"]) == 4


def test_a_model_that_is_not_there_is_one_message(tmp_path, capsys):
    missing = str(tmp_path / "missing")
    command = ["benchmark", "--vlm_name", missing, "--sam_name", "tiny", "--device", "cpu"]
    assert main([*command, "--out", str(tmp_path / "r.json")]) == 2
    assert missing in capsys.readouterr().err


def test_the_plan_of_a_gpu_has_each_gain():
    bench = Bench(BenchmarkConfig(ablate=True), torch.device("cuda"))
    steps = [step.keys for step in bench.steps()]
    off = [(keys["precision"], keys["off"]) for keys in steps if keys["what"] == "ablation"]
    assert off == [
        ("nf4", "own 4-bit kernels"),
        ("nf4", "fused elementwise work"),
        ("bf16", "fused elementwise work"),
    ]
    ways = {(k["precision"], k["mode"], k["way"]) for k in steps if k["what"] == "training"}
    assert ("nf4", "fast", "captured") in ways
    assert ("bf16", "fast", "full") not in ways  # nothing but 4-bit kernels would differ
    for precision in ("nf4", "bf16"):
        here = [k for k in steps if k.get("precision") == precision]
        kernels = [k["what"] for k in here].index("kernels")
        assert all(k.get("mode") != "fast" for k in here[:kernels])
        assert all(k.get("mode") != "eager" for k in here[kernels:])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quantization": ("int4",)}, "--quantization is 'int4'"),
        ({"what": ()}, "--what is ''"),
        ({"sources": ("vlm",), "ablate": True}, "--ablate goes from vlm to original"),
        ({"repeats": 0}, "--repeats is 0"),
        ({"out": "results.txt"}, "must be .json"),
        ({"plot": "plot.svg"}, "must be .png"),
        ({"dtype": "int8"}, "--dtype is 'int8'"),
    ],
)
def test_arguments_that_cannot_work(values, message):
    with pytest.raises(ConfigError, match=message):
        BenchmarkConfig(**values)


def test_a_mistyped_name_is_one_message(tmp_path, capsys):
    out = tmp_path / "r.json"
    assert main(["benchmark", "--what", "speed", "--out", str(out)]) == 2
    assert "--what is 'speed'" in capsys.readouterr().err
    assert not out.exists()


def test_precisions_are_held_against_the_unquantised_model(tmp_path, capsys):
    out = tmp_path / "r.json"
    command = arguments(out, "--what", "latency", "--sources", "vlm")
    command[command.index("none")] = "int8,none,nf4"
    assert main(command) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    found = {row["precision"]: row for row in rows if row["what"] == "precision"}
    assert set(found) == {"int8", "nf4"}
    assert all(row["against"] == "fp32" for row in found.values())
    assert 0 < found["int8"]["mean_difference"] < found["nf4"]["mean_difference"]
    assert "Quantised against not" in capsys.readouterr().out


def test_the_plan_of_a_gpu_runs_fp8_both_ways_and_int8_by_plain_calls():
    bench = Bench(BenchmarkConfig(quantization=("fp8", "int8")), torch.device("cuda"))
    modes = {(step.keys.get("precision"), step.keys.get("mode")) for step in bench.steps()}
    assert {("fp8", "eager"), ("fp8", "fast"), ("int8", "eager")} <= modes
    assert ("int8", "fast") not in modes


def test_architectures_share_a_language_model_and_are_the_same_at_each_building():
    vlm, sam = folders()
    config = BenchmarkConfig(vlm_name=vlm, sam_name=sam, original_sam=sam, dtype="fp32")
    parts = Parts(config, "none", torch.device("cpu"))
    first, second = parts.arm("vlm"), parts.arm("vlm")
    assert first.language_model is second.language_model is parts.arm("original").language_model
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_agreement():
    mask = torch.tensor([[2.0, -1.0], [1.0, -2.0]])
    assert compare([mask], [mask])["min_iou"] == 1.0
    other = torch.tensor([[2.0, -1.0], [-1.0, -2.0]])
    found = compare([mask, other], [mask, mask])
    assert found["max_difference"] == pytest.approx(1.0)
    assert (found["min_iou"], found["mean_iou"]) == (0.5, 0.75)
    assert found["max_changed"] == 0.25  # one cell of four
    with pytest.raises(ModelLoadError, match="not finite"):
        compare([mask * float("nan")], [mask])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_everything_that_a_gpu_can(tmp_path):
    out = tmp_path / "results.json"
    names = ["--vlm_name", "tiny", "--sam_name", "tiny", "--quick", "--ablate"]
    assert main(["benchmark", *names, "--out", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    agreement = [row for row in rows if row["what"] == "agreement"]
    assert {row["arm"] for row in agreement} == {"original", "original, answer given", "vlm", "sam"}
    assert all(row["max_difference"] < 0.2 for row in agreement)
