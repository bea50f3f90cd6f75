"""The report of what is quantised, and that it raises when that is not what was asked for."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from factory import folders, tiny_model
from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError, ModelLoadError, QuantizationError
from modified_lisa.model import loading
from modified_lisa.model.quantization import inspect_quantization, quantized_linear


def _load(quantization: str) -> Any:
    vlm, sam = folders()
    config = ModelConfig(vlm_name=vlm, sam_name=sam, dtype="bf16", quantization=quantization)
    return loading.load_vlm(config, torch.device("cpu"))


@pytest.mark.parametrize(("quantization", "bits", "low"), [("nf4", 4, 0.5), ("int8", 8, 1.0)])
def test_the_report_counts_what_is_there(quantization: str, bits: int, low: float) -> None:
    vlm, report = _load(quantization)
    assert report.asked == quantization
    assert len(report.quantized) == 14
    assert not [name for name in report.plain if "language_model" in name]
    for layer in report.quantized:
        assert (layer.kind, layer.bits, layer.bytes_before) == (quantization, bits, 2 * layer.count)
        assert (
            low * layer.count <= layer.bytes_after < layer.bytes_before + 1500
        )  # with a table of 256 numbers
    assert report.bytes_after < report.bytes_before
    plain = sum(
        p.nbytes
        for n, p in vlm.named_parameters()
        if n.rpartition(".")[0] not in {x.name for x in report.quantized}
    )
    assert report.other_bytes == plain
    assert f"quantised to {quantization}: 14 linear layers" in str(report)
    lines = report.table().splitlines()
    assert len(lines) == 15
    assert lines[0].startswith("model.language_model.layers.0.self_attn.q_proj")


def test_without_quantisation_the_report_says_so() -> None:
    _, report = _load("none")
    assert report.quantized == ()
    assert report.bytes_before == report.bytes_after
    assert str(report).startswith("not quantised")


@pytest.mark.parametrize("asked", ["none", "int8"])
def test_another_kind_than_asked_for_is_an_error(asked: str) -> None:
    vlm, _ = _load("nf4")
    with pytest.raises(QuantizationError, match=r"asked for no quant|14 are of another kind"):
        inspect_quantization(vlm, asked).check()


def test_a_layer_that_was_left_out_is_an_error() -> None:
    vlm, _ = _load("nf4")
    vlm.model.language_model.layers[1].mlp.up_proj = nn.Linear(4, 4)
    with pytest.raises(
        QuantizationError, match=r"1 of the language model's are not .*layers\.1\.mlp\.up_proj"
    ):
        inspect_quantization(vlm, "nf4").check()


def test_a_layer_elsewhere_is_an_error() -> None:
    vlm, _ = _load("nf4")
    projector = vlm.model.multi_modal_projector
    projector.linear_1 = quantized_linear(copy.deepcopy(projector.linear_1), "nf4", torch.bfloat16)
    with pytest.raises(QuantizationError, match=r"1 others are .*linear_1"):
        inspect_quantization(vlm, "nf4").check()


def test_single_quantisation_is_not_taken_for_double() -> None:
    import bitsandbytes

    vlm, _ = _load("nf4")
    single = bitsandbytes.nn.Linear4bit(64, 64, bias=False, compress_statistics=False, quant_type="nf4").to(
        "cpu"
    )
    vlm.model.language_model.layers[0].self_attn.q_proj = single
    with pytest.raises(QuantizationError, match="nf4 without double quantisation"):
        inspect_quantization(vlm, "nf4").check()


@pytest.mark.parametrize(("quantization", "tolerance"), [("nf4", 0.25), ("int8", 0.03)])
def test_a_quantised_layer_multiplies_and_has_gradients(quantization: str, tolerance: float) -> None:
    torch.manual_seed(0)
    plain = nn.Linear(128, 64)
    layer = quantized_linear(copy.deepcopy(plain), quantization, torch.float32)
    x = torch.randn(10, 128, requires_grad=True)
    expected, found = plain(x), layer(x)
    assert (found - expected).std() < tolerance * expected.std()
    (gradient,) = torch.autograd.grad(found.sum(), x)
    wanted = plain.weight.sum(dim=0)
    assert (gradient[0] - wanted).std() < tolerance * wanted.std()
    assert not layer.weight.requires_grad


@pytest.mark.parametrize(("source", "lora_r"), [("vlm", 0), ("sam", 0), ("vlm", 2)])
def test_training_through_eight_bits_gives_every_trained_weight_a_gradient(source: str, lora_r: int) -> None:
    from factory import picture

    model = tiny_model(quantize=None, quantization="int8", vision_source=source, lora_r=lora_r).train()
    out = model([picture()], ["the round one"])
    (out["pred_masks"][0].mean() + out["iou_predictions"][0].mean()).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert model.seg_embedding.row.grad is not None
    assert model.seg_embedding.row.grad.abs().sum() > 0


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelLoadError, match="pip install bitsandbytes"):
        quantized_linear(nn.Linear(4, 4), "nf4", torch.float32)


def test_the_two_settings_agree_or_are_refused() -> None:
    cases = [({}, "nf4"), ({"quantize": True}, "nf4"), ({"quantize": False}, "none")]
    cases += [({"quantization": name}, name) for name in ("nf4", "int8", "none")]
    cases += [
        ({"quantize": True, "quantization": "int8"}, "int8"),
        ({"quantize": False, "quantization": "none"}, "none"),
    ]
    for given, expected in cases:
        config = ModelConfig(**given)  # type: ignore[arg-type]
        assert (config.quantization, config.quantize) == (expected, expected != "none")
        assert ModelConfig.from_dict(config.to_dict()) == config
    for given in ({"quantize": False, "quantization": "nf4"}, {"quantize": True, "quantization": "none"}):
        with pytest.raises(ConfigError, match="give one of the two"):
            ModelConfig(**given)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="must be one of nf4, int8, fp8, none"):
        ModelConfig(quantization="fp4")


def test_either_setting_replaces_both() -> None:
    config = ModelConfig(lora_r=2)
    assert config.replaced(quantize=False).quantization == "none"
    assert config.replaced(quantization="none").quantize is False
    assert config.replaced(quantization="int8").lora_r == 2
    assert ModelConfig(quantize=False).replaced(dtype="fp32").quantize is False
    assert ModelConfig(quantization="int8").replaced(dtype="fp32").quantization == "int8"
