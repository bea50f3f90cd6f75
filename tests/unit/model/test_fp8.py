"""fp8: the arithmetic, the layer, loading with its report, and who may ask for it. On a CPU, by the definition."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from factory import SAM, TEXTS, VLM, folders, picture, tiny_model
from modified_lisa import ModifiedLISA
from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError, QuantizationError
from modified_lisa.model import availability, loading
from modified_lisa.model.fp8.arithmetic import FLOOR, LARGEST, SMALLEST, decode, quantise_rows
from modified_lisa.model.fp8.linear import FP8Linear, merge_fp8
from modified_lisa.model.fused import fused
from modified_lisa.model.merged import merge_projections
from modified_lisa.model.quantization import inspect_quantization, quantized_linear


@pytest.fixture
def allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The definition on this CPU, where users are refused."""
    monkeypatch.setattr(availability, "why_not_fp8", lambda _device: None)


numbers = st.floats(-(2.0**127), 2.0**127, width=32)
rows = st.lists(st.lists(numbers, min_size=8, max_size=8), min_size=1, max_size=4)


@given(rows)
def test_each_number_is_within_its_rounding(values: list[list[float]]) -> None:
    x = torch.tensor(values, dtype=torch.float32)
    codes, scale = quantise_rows(x)
    back = decode(codes, scale, torch.float32).double()
    assert back.isfinite().all()
    assert (scale > 0).all()
    # Half a step: 3 bits of fraction, or the even spacing below the smallest normal number of the row.
    bound = torch.maximum(x.double().abs() / 16, scale.double()[:, None] * SMALLEST / 16)
    assert ((back - x.double()).abs() <= bound * (1 + 1e-5)).all()
    largest = x.abs().amax(dim=1) >= FLOOR
    assert torch.equal((codes & 127).amax(dim=1)[largest] == 0x7E, torch.ones(int(largest.sum()), dtype=bool))


def test_zeros_stay_zeros_and_huge_numbers_finite() -> None:
    top = torch.finfo(torch.bfloat16).max
    x = torch.tensor([[0.0] * 16, [top] * 16, [-top] + [0.0] * 15, [1e-38] * 16], dtype=torch.bfloat16)
    codes, scale = quantise_rows(x)
    back = decode(codes, scale, torch.float32)
    assert torch.equal(codes[0], torch.zeros(16, dtype=torch.uint8))
    assert back.isfinite().all()
    assert torch.allclose(back[1:3], x[1:3].float(), rtol=1e-6)
    assert scale[1] == torch.tensor(top) * (1 / LARGEST)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(bad: float) -> None:
    layer = quantized_linear(nn.Linear(16, 16, bias=False), "fp8", torch.float32)
    x = torch.ones(2, 16)
    x[1, 3] = bad
    out = layer(x)
    assert out[0].isfinite().all()
    assert not out[1].isfinite().any()


def test_a_product_is_that_of_the_decoded_matrices() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(64, 48)
    layer: Any = quantized_linear(copy.deepcopy(plain), "fp8", torch.float32)
    x = torch.randn(2, 5, 64, requires_grad=True)
    weight = decode(layer.weight, layer.scale, torch.float64)
    rounded = decode(*quantise_rows(x.detach().reshape(-1, 64)), torch.float64).reshape(2, 5, 64)
    wanted = rounded @ weight.T + plain.bias.double()
    found = layer(x)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5)
    assert 0 < (found - plain(x)).std() < 0.06 * plain(x).std()
    # The way back: the decoded weight, as if the input had not been rounded.
    gradient = torch.randn_like(found)
    (given_,) = torch.autograd.grad(found, x, gradient)
    torch.testing.assert_close(given_.double(), gradient.double() @ weight, rtol=1e-5, atol=1e-5)
    assert layer(x[:0]).shape == (0, 5, 48)


def test_the_gradient_in_sixteen_bits_is_near_that_in_float64() -> None:
    torch.manual_seed(0)
    layer: Any = quantized_linear(nn.Linear(128, 64, bias=False), "fp8", torch.bfloat16)
    x = torch.randn(7, 128, dtype=torch.bfloat16, requires_grad=True)
    gradient = torch.randn(7, 64, dtype=torch.bfloat16)
    (found,) = torch.autograd.grad(layer(x), x, gradient)
    wanted = gradient.double() @ decode(layer.weight, layer.scale, torch.float64)
    assert found.dtype == torch.bfloat16
    assert (found.double() - wanted).norm() < 0.006 * wanted.norm()


def test_quantising_in_parts_is_quantising_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = nn.Linear(32, 48, bias=False)
    weight = plain.weight.data.clone()
    monkeypatch.setattr("modified_lisa.model.fp8.linear.PART", 20)
    layer = FP8Linear.from_linear(plain)
    codes, scale = quantise_rows(weight)
    assert torch.equal(layer.weight, codes)
    assert torch.equal(layer.scale, scale)
    assert plain.weight.numel() == 0


def test_merged_layers_are_views_of_one() -> None:
    layers = [FP8Linear.from_linear(nn.Linear(32, size, bias=False)) for size in (16, 48, 32)]
    x = torch.randn(3, 32)
    before = [layer(x) for layer in layers]
    merged = merge_fp8(layers)
    assert merged is not None
    assert torch.equal(merged(x), torch.cat(before, dim=1))
    for layer, wanted in zip(layers, before, strict=True):
        assert layer.weight.untyped_storage().data_ptr() == merged.weight.untyped_storage().data_ptr()
        assert torch.equal(layer(x), wanted)
    assert merge_fp8([layers[0], FP8Linear.from_linear(nn.Linear(16, 16, bias=False))]) is None
    assert merge_fp8([layers[0], FP8Linear.from_linear(nn.Linear(32, 16))]) is None


def test_a_cast_leaves_the_scales() -> None:
    layer = FP8Linear.from_linear(nn.Linear(32, 16))
    scale = layer.scale.clone()
    layer.to(torch.bfloat16)
    assert layer.bias is not None
    assert (layer.weight.dtype, layer.bias.dtype) == (torch.uint8, torch.bfloat16)
    assert layer.scale.dtype == torch.float32
    assert torch.equal(layer.scale, scale)


def _load(vlm: str | None = None, dtype: str = "bf16") -> Any:
    config = ModelConfig(vlm_name=vlm or folders()[0], sam_name=folders()[1], dtype=dtype, quantization="fp8")
    return loading.load_vlm(config, torch.device("cpu"))


@pytest.mark.usefixtures("allowed")
def test_a_loaded_model_has_the_files_weights_rounded() -> None:
    vlm, report = _load()
    plain = tiny_model(dtype="bf16").language_model
    assert (report.asked, len(report.quantized), report.kept) == ("fp8", 14, ())
    for layer in report.quantized:
        module, path = vlm.get_submodule(layer.name), layer.name.removeprefix("model.language_model.")
        codes, scale = quantise_rows(plain.get_submodule(path).weight.data)
        assert torch.equal(module.weight, codes)
        assert torch.equal(module.scale, scale)
        assert (layer.kind, layer.bits) == ("fp8", 8)
        assert layer.bytes_after == layer.count + 4 * module.out_features
    assert "quantised to fp8: 14 linear layers" in str(report)
    assert vlm.lm_head is None
    others = [name for name, p in vlm.named_parameters() if p.dtype not in (torch.bfloat16, torch.uint8)]
    assert all(name.endswith(".scale") for name in others)
    with pytest.raises(QuantizationError, match="14 are of another kind"):
        inspect_quantization(vlm, "int8").check()


@pytest.mark.usefixtures("allowed")
def test_sizes_that_fp8_cannot_take_stay_and_the_report_says_so(tmp_path: Any) -> None:
    from dataclasses import replace

    from modified_lisa.model.tiny import build_sam, build_tokenizer, build_vlm, save_sam, save_vlm

    tokenizer = build_tokenizer(TEXTS, 400)
    save_vlm(tmp_path / "vlm", build_vlm(tokenizer, replace(VLM, mlp=120)), tokenizer)
    save_sam(tmp_path / "sam", build_sam(SAM))
    vlm, report = _load(str(tmp_path / "vlm"))
    assert (len(report.quantized), len(report.kept)) == (8, 6)
    assert all(".mlp." in name for name in report.kept)
    assert "6 of the language model's stay unquantised" in str(report)
    assert type(vlm.model.language_model.layers[0].mlp.up_proj) is nn.Linear
    drawn = ModifiedLISA.from_random(
        str(tmp_path / "vlm"), str(tmp_path / "sam"), quantization="fp8", device="cpu"
    )
    assert drawn.quantization_report.kept == report.kept
    # A layer that could be quantised and was not is still an error.
    vlm.model.language_model.layers[0].self_attn.q_proj = nn.Linear(64, 64)
    with pytest.raises(QuantizationError, match=r"1 of the language model's are not .*q_proj"):
        inspect_quantization(vlm, "fp8").check()


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("source", ["vlm", "sam", "dual"])
def test_masks_are_near_those_of_the_plain_model(source: str) -> None:
    plain = tiny_model(vision_source=source)
    model = tiny_model(vision_source=source, quantize=None, quantization="fp8")
    wanted = plain([picture()], ["the round one"])["pred_masks"][0]
    found = model([picture()], ["the round one"])["pred_masks"][0]
    assert 0 < (found - wanted).norm() < 0.3 * wanted.norm()
    assert model.describe_parameters()["total"] == plain.describe_parameters()["total"]


@pytest.mark.usefixtures("allowed", "uncompiled")
def test_merged_and_fused_it_computes_the_same() -> None:
    model = tiny_model(quantize=None, quantization="fp8")
    inputs = model.processor([picture()], ["which one could roll away?"])
    with torch.no_grad():
        before = model.compute(inputs)[1]
        assert merge_projections(model.language_model) == 2 * len(model.language_model.layers)
        assert torch.equal(model.compute(inputs)[1], before)
        with fused(model):
            torch.testing.assert_close(model.compute(inputs)[1], before, rtol=2e-2, atol=2e-2)


@pytest.mark.usefixtures("allowed")
@pytest.mark.parametrize("lora_r", [0, 2])
def test_training_gives_every_trained_weight_a_gradient(lora_r: int) -> None:
    model = tiny_model(quantize=None, quantization="fp8", lora_r=lora_r).train()
    out = model([picture()], ["the round one"])
    (out["pred_masks"][0].mean() + out["iou_predictions"][0].mean()).backward()
    assert not [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert model.seg_embedding.row.grad.abs().sum() > 0
    for name, parameter in model.named_parameters():
        if "lora_A" in name:
            assert len(parameter.unique()) > parameter.numel() // 2, "drawn in fp32, not rounded to fp8"


@pytest.mark.usefixtures("allowed")
def test_a_checkpoint_goes_out_and_comes_back(tmp_path: Any) -> None:
    model = tiny_model(quantize=None, quantization="fp8")
    nn.init.normal_(model.seg_embedding.row)
    model.save_pretrained(tmp_path)
    again = ModifiedLISA.from_pretrained(tmp_path, device="cpu")
    assert again.config.quantization == "fp8"
    for one, other in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    # All weights, too, frozen ones included.
    assert again.load_state_dict(model.state_dict()).unexpected_keys == []


def test_a_cpu_and_an_old_gpu_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"--quantization fp8 needs a GPU .*'cpu'.*int8 or nf4"):
        tiny_model(quantize=None, quantization="fp8")
    with pytest.raises(ConfigError, match="needs a GPU that multiplies fp8"):
        ModifiedLISA.from_random(*folders(), quantization="fp8", device="cpu")
    monkeypatch.setattr(availability, "why_not", lambda _device: None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "A100")
    for capability, refused in (((8, 0), True), ((8, 9), False), ((9, 0), False), ((10, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, c=capability: c)
        assert bool(availability.why_not_fp8(torch.device("cuda"))) == refused
