"""On a CUDA device with fp8 units: the kernel and the product give what the definition gives."""

import pytest
import torch

from factory import picture
from modified_lisa import ModifiedLISA, Segmenter
from modified_lisa.model.availability import why_not_fp8
from modified_lisa.model.fp8.arithmetic import decode, quantise_rows, reference_product
from modified_lisa.model.fp8.linear import FP8Linear, merge_fp8, quantise_fast

if not torch.cuda.is_available() or why_not_fp8(torch.device("cuda")):
    pytest.skip("needs a CUDA device with fp8 units", allow_module_level=True)

pytestmark = pytest.mark.gpu


def layer(rows: int, columns: int, seed: int = 0) -> FP8Linear:
    plain = torch.nn.Linear(columns, rows, bias=False, device="cuda", dtype=torch.bfloat16)
    generator = torch.Generator("cuda").manual_seed(seed)
    plain.weight.data.normal_(std=0.02, generator=generator)
    return FP8Linear.from_linear(plain)


def error(given: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((given.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("shape", [(1, 64), (48, 1408), (640, 4096), (7, 11008)])
def test_the_kernel_quantises_bit_by_bit(shape, dtype):
    x = torch.randn(shape, device="cuda").to(dtype)
    x *= torch.randn(shape[0], 1, device="cuda").exp().to(dtype)
    x[0, ::2] = 0
    if len(x) > 2:
        x[1], x[2] = 0, torch.finfo(dtype).max
    for given in (x, torch.cat([x, x], dim=1)[:, shape[1] :]):
        (codes, scale), (wanted, wanted_scale) = quantise_fast(given), quantise_rows(given)
        assert torch.equal(codes, wanted)
        assert torch.equal(scale, wanted_scale)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(bad):
    x = torch.ones(4, 64, device="cuda", dtype=torch.bfloat16)
    x[2, 5] = bad
    out = layer(32, 64)(x)
    assert not out[2].isfinite().any()
    assert out[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "columns"), [(256, 512), (208, 400), (4096, 4096), (4096, 11008)])
def test_products_of_any_number_of_tokens(rows, columns, dtype):
    one = layer(rows, columns)
    weight = decode(one.weight, one.scale, torch.float64)
    for tokens in (1, 7, 16, 48, 200):
        x = torch.randn(1, tokens, columns, device="cuda", dtype=dtype, requires_grad=True)
        y = one(x)
        assert y.dtype == dtype
        gradient = torch.randn_like(y)
        y.backward(gradient)
        wanted = reference_product(x.detach()[0].float(), one.weight, one.scale)
        assert error(y[0], wanted) < 0.006  # bf16 out, and sums of fewer bits
        assert error(x.grad[0], gradient[0].double() @ weight) < 0.006


def test_merged_layers_give_what_each_gives():
    layers = [layer(rows, 512, seed) for seed, rows in enumerate((256, 512, 128))]
    x = torch.randn(1, 16, 512, device="cuda", dtype=torch.bfloat16)
    before = torch.cat([one(x) for one in layers], dim=-1)
    merged = merge_fp8(layers)
    assert merged is not None
    torch.testing.assert_close(merged(x), before, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(torch.cat([one(x) for one in layers], dim=-1), before, rtol=0, atol=0)


def test_masks_are_near_those_of_sixteen_bits():
    torch.manual_seed(0)
    model = ModifiedLISA("tiny", "tiny", quantization="fp8")
    assert model.quantization_report.kept == ()
    torch.manual_seed(0)
    plain = ModifiedLISA("tiny", "tiny", quantization="none")
    plain.load_state_dict(model.trainable_state_dict())
    for seed in range(3):
        found, wanted = (
            Segmenter(each, fast=False).segment(picture(seed=seed), "the red one").masks
            for each in (model, plain)
        )
        assert (found == wanted).mean() > 0.9
