"""On a CUDA device: the fast path gives what the plain one gives, and the kernels what the definition gives."""

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit

from factory import picture
from modified_lisa import ModifiedLISA, Segmenter
from modified_lisa.inference.runner import PlainRunner
from modified_lisa.model.availability import why_not_fp8
from modified_lisa.model.nf4.linear import NF4Linear, decode_fast, merge_nf4
from modified_lisa.training.captured import capture_frozen_parts, release_frozen_parts

pytestmark = pytest.mark.gpu

QUERIES = ["the one that could roll away", "<SEG> which of <SEG> these is red?", "what would keep me dry?"]


def nf4(rows: int, columns: int, seed: int = 0, dtype=torch.bfloat16) -> tuple[NF4Linear, torch.Tensor]:
    """A layer, and its matrix as bitsandbytes decodes it."""
    layer = Linear4bit(
        columns, rows, bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True
    )
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02
    layer.weight = Params4bit(
        weight, requires_grad=False, quant_type="nf4", compress_statistics=True, blocksize=64
    )
    layer = layer.cuda()
    return NF4Linear.from_bitsandbytes(layer), dequantize_4bit(layer.weight.data, layer.weight.quant_state)


def error(given: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((given.double() - wanted.double()).norm() / wanted.double().norm())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("rows", "columns"), [(256, 512), (200, 384), (1024, 4096), (4096, 1408)])
def test_products_of_any_number_of_tokens(rows, columns, dtype):
    layer, weight = nf4(rows, columns, dtype=dtype)
    assert torch.equal(decode_fast(layer.packed, dtype), weight.to(dtype))
    limit = 0.005 if dtype == torch.bfloat16 else 0.001  # of a 16-bit product with rounded weights
    for tokens in (1, 7, 16, 33, 64, 65, 200):
        x = torch.randn(2, tokens, columns, device="cuda", dtype=dtype)[:1].requires_grad_(True)
        y = layer(x)
        gradient = torch.randn_like(y)
        y.backward(gradient)
        assert error(y, x.double() @ weight.double().T) < limit
        assert error(x.grad, gradient.double() @ weight.double()) < limit
        assert torch.equal(layer(x), y), "the same bits every time"


def test_merged_layers_give_what_each_gives():
    layers = [nf4(rows, 512, seed)[0] for seed, rows in enumerate((256, 512, 128))]
    x = torch.randn(1, 16, 512, device="cuda", dtype=torch.bfloat16)
    before = [layer(x) for layer in layers]
    merged = merge_nf4(layers)
    assert merged is not None
    torch.testing.assert_close(torch.cat(before, dim=-1), merged(x), rtol=1e-2, atol=1e-3)
    for layer, wanted in zip(layers, before, strict=True):
        assert torch.equal(layer(x), wanted)


@pytest.fixture(scope="module", params=["none", "nf4", "fp8"])
def model(request) -> ModifiedLISA:
    if request.param == "fp8" and (obstacle := why_not_fp8(torch.device("cuda"))):
        pytest.skip(obstacle)
    torch.manual_seed(0)
    return ModifiedLISA("tiny", "tiny", quantization=request.param)


def test_graphs_give_the_masks_of_plain_calls(model):
    segmenter, plain = Segmenter(model), PlainRunner(model)
    images = [picture(40 + 30 * row, 90, seed=row) for row in range(3)]
    with torch.inference_mode():
        for count in (1, 2, 3):
            inputs = model.processor(images[:count], QUERIES[:count])
            for _ in range(2):
                (fast, fast_iou), (wanted, wanted_iou) = segmenter.runner.masks(inputs), plain.masks(inputs)
                assert error(fast, wanted) < 0.05
                assert ((fast > 0) == (wanted > 0)).float().mean() > 0.99
                torch.testing.assert_close(fast_iou, wanted_iou, rtol=0, atol=0.02)


def test_sessions_of_graphs_take_turns(model):
    segmenter, plain = Segmenter(model), Segmenter(model, fast=False)
    pictures = [picture(seed=1), picture(seed=2)]
    sessions = [segmenter.open(image) for image in pictures]
    for turn in (0, 1, 0, 1, 1, 0):
        for query in QUERIES:
            fast = sessions[turn].segment(query).masks
            wanted = plain.segment(pictures[turn], query).masks
            assert (fast == wanted).mean() > 0.99


def test_captured_training_gives_the_gradients_of_the_plain_one(model):
    model.train()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    images = [picture(seed=row) for row in range(2)]

    def gradients(texts: list[str]) -> torch.Tensor:
        model.zero_grad()
        masks = model(images[: len(texts)], texts)["pred_masks"]
        sum(mask.square().mean() for mask in masks).backward()
        return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).double()

    for texts in (
        ["the red one"],
        ["what is <SEG>", "all that could be eaten by somebody"],
        ["the blue one"],
    ):
        wanted = gradients(texts)
        capture_frozen_parts(model)
        first, again = gradients(texts), gradients(texts)
        release_frozen_parts(model)
        assert error(first, wanted) < 0.05  # bf16: one way of rounding against another
        assert error(again, first) < 1e-3
    model.eval()
