"""On a CUDA device: the fast path gives what the plain one gives, and the kernels what the definition gives."""

from functools import partial

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from torch import nn

from factory import picture
from modified_lisa import ModifiedLISA, Segmenter
from modified_lisa.geometry import Frame
from modified_lisa.inference.runner import PlainRunner
from modified_lisa.model.availability import why_not_fp8
from modified_lisa.model.fp8.arithmetic import decode
from modified_lisa.model.fp8.linear import FP8Linear
from modified_lisa.model.graphs import Graphs
from modified_lisa.model.nf4 import few_tokens, linear
from modified_lisa.model.nf4.decoding import decode_fast
from modified_lisa.model.nf4.linear import NF4Linear, merge_nf4
from modified_lisa.model.original_lisa.protocol import CropSpec
from modified_lisa.training.captured import capture_parts, release_parts

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
@pytest.mark.parametrize(
    ("rows", "columns"), [(256, 512), (200, 384), (272, 128), (1024, 4096), (4096, 1408)]
)
@pytest.mark.parametrize("clusters", [True, False])
def test_products_of_any_number_of_tokens(rows, columns, dtype, clusters, monkeypatch):
    if clusters and (obstacle := linear.why_not_clusters(torch.device("cuda"))):
        pytest.skip(obstacle)
    if not clusters:
        monkeypatch.setattr(linear, "why_not_clusters", lambda device: "switched off")
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


@pytest.mark.parametrize("parts", [*few_tokens.PARTS, 3, 8])
def test_a_product_cut_into_any_number_of_parts(parts):
    if obstacle := linear.why_not_clusters(torch.device("cuda")):
        pytest.skip(obstacle)
    layer, weight = nf4(
        528, 1408
    )  # eleven groups of columns: the parts are not alike, and rows of the last tile are none
    x = torch.randn(37, 1408, device="cuda", dtype=torch.bfloat16)
    out = torch.full((40, 528), 7.0, device="cuda", dtype=torch.bfloat16)
    few_tokens.multiply(x, layer.packed, out[:37], parts)
    assert error(out[:37], x.double() @ weight.double().T) < 0.005
    assert (out[37:] == 7).all(), "nothing is written behind the last token"


def test_matrices_decoded_one_product_early_are_the_same():
    layers = [
        nf4(rows, columns, seed)[0] for seed, (rows, columns) in enumerate([(512, 256), (256, 512)] * 3)
    ]
    order = [*layers, layers[0], layers[1]]  # each a second time is as good

    def run(x: torch.Tensor) -> torch.Tensor:
        for layer in order:
            x = layer(x)
        return x

    graphs = Graphs(run, nn.ModuleList([nn.Linear(1, 1).cuda(), *layers]))
    for seed in range(3):
        x = torch.randn(
            200, 256, device="cuda", generator=torch.Generator("cuda").manual_seed(seed)
        ).bfloat16()
        assert torch.equal(graphs(x), run(x))


def test_merged_layers_give_what_each_gives():
    layers = [nf4(rows, 512, seed)[0] for seed, rows in enumerate((256, 512, 128))]
    x = torch.randn(1, 16, 512, device="cuda", dtype=torch.bfloat16)
    before = [layer(x) for layer in layers]
    merged = merge_nf4(layers)
    assert merged is not None
    torch.testing.assert_close(torch.cat(before, dim=-1), merged(x), rtol=1e-2, atol=1e-3)
    for layer, wanted in zip(layers, before, strict=True):
        assert torch.equal(layer(x), wanted)


def test_pixels_made_on_the_gpu_are_those_made_elsewhere():
    statistics = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
    makers = [partial(CropSpec(resize=56, side=56, **statistics).pixels, picture(90, 150))]
    for height, width in ((90, 150), (150, 90), (480, 640), (336, 200), (1, 700), (30, 20)):
        noise = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
        for side, interpolation in ((64, "bicubic"), (336, "bicubic"), (512, "bilinear")):
            makers.append(
                partial(
                    Frame(height, width).to_square, noise, side, interpolation=interpolation, **statistics
                )
            )
    for make in makers:
        there = make(device=torch.device("cuda"))
        assert there.is_cuda
        torch.testing.assert_close(there.cpu(), make(device=None), rtol=0, atol=1e-6)


@pytest.fixture(scope="module", params=["none", "nf4", "fp8"])
def model(request) -> ModifiedLISA:
    if request.param == "fp8" and (obstacle := why_not_fp8(torch.device("cuda"))):
        pytest.skip(obstacle)
    torch.manual_seed(0)
    return ModifiedLISA("tiny", "tiny", quantization=request.param)


@pytest.fixture(scope="module")
def sixteen(model) -> ModifiedLISA:
    """The same weights in 16 bits."""
    if model.config.quantization != "fp8":
        return model
    torch.manual_seed(0)
    return ModifiedLISA("tiny", "tiny", quantization="none")


def check_masks(model, triples) -> None:
    """(fast, plain, in 16 bits) of each mask. With fp8, one last bit decides how a number is rounded to the 3 bits that
    are left, and then it is another by a tenth; so neither way is nearer to the truth, and that is what is held."""
    if model.config.quantization != "fp8":
        assert max(float((fast != plain).mean()) for fast, plain, _ in triples) < 0.01
        return
    ours, theirs = (float(np.mean([(three[way] != three[2]).mean() for three in triples])) for way in (0, 1))
    assert theirs < 0.05, "fp8 itself changes the masks too much for this to say anything"
    assert ours < 1.5 * theirs


def test_graphs_give_the_masks_of_plain_calls(model, sixteen):
    segmenter, plain, exact = Segmenter(model), PlainRunner(model), PlainRunner(sixteen)
    images = [picture(40 + 30 * row, 90, seed=row) for row in range(3)]
    masks = []
    with torch.inference_mode():
        for count in (1, 2, 3):
            inputs = model.processor(images[:count], QUERIES[:count])
            truth = exact.masks(inputs)[0]
            for _ in range(2):
                (fast, fast_iou), (wanted, wanted_iou) = segmenter.runner.masks(inputs), plain.masks(inputs)
                assert error(fast, wanted) < (0.15 if model.config.quantization == "fp8" else 0.05)
                masks.append([(each > 0).cpu().numpy() for each in (fast, wanted, truth)])
                torch.testing.assert_close(fast_iou, wanted_iou, rtol=0, atol=0.02)
                # The same graphs, the first of them before the words are read.
                given = images[:count], QUERIES[:count]
                parts = (each.split(inputs.seg_counts) for each in (fast, fast_iou))
                ready = segmenter.results(*given, inputs.frames, *parts, 0.0)
                for one, other in zip(segmenter.segment_batch(*given), ready, strict=True):
                    assert (one.masks != other.masks).mean() < 0.001
    check_masks(model, masks)


@pytest.mark.parametrize("source", ["sam", "dual"])
def test_graphs_of_sams_encoder_are_no_farther_from_float32_than_plain_calls(source):
    torch.manual_seed(0)
    model = ModifiedLISA("tiny", "tiny", vision_source=source, quantization="none")
    segmenter, plain, exact = Segmenter(model), PlainRunner(model), PlainRunner(in_float32(model))
    errors = []
    with torch.inference_mode():
        # Many: of six batches the mean of one way is 0.6 to 1.7 times that of the other, by chance.
        for number, count in enumerate((1, 2, 3) * 16):
            inputs = model.processor(
                [picture(seed=3 * number + row) for row in range(count)], QUERIES[:count]
            )
            truth = exact.masks(inputs)[0]
            errors.append([error(way.masks(inputs)[0], truth) for way in (segmenter.runner, plain)])
    ours, theirs = np.mean(errors, axis=0)
    assert theirs < 0.05
    assert ours < 1.25 * theirs


def test_sessions_of_graphs_take_turns(model, sixteen):
    segmenter, plain, exact = Segmenter(model), Segmenter(model, fast=False), Segmenter(sixteen, fast=False)
    pictures = [picture(seed=1), picture(seed=2)]
    sessions = [segmenter.open(image) for image in pictures]
    masks = []
    for turn in (0, 1, 0, 1, 1, 0):
        for query in QUERIES:
            slow = (each.segment(pictures[turn], query) for each in (plain, exact))
            masks.append([found.masks for found in (sessions[turn].segment(query), *slow)])
    check_masks(model, masks)


def in_float32(model: ModifiedLISA) -> ModifiedLISA:
    """Another model of the same weights, as they were quantised, that rounds nothing but float32."""
    torch.manual_seed(0)
    exact = ModifiedLISA(
        "tiny", "tiny", quantization=model.config.quantization, vision_source=model.config.vision_source
    )
    for name, layer in list(exact.named_modules()):
        if isinstance(layer, NF4Linear | FP8Linear):
            plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False, device="cuda")
            if isinstance(layer, NF4Linear):
                plain.weight.data = decode_fast(layer.packed, torch.bfloat16).float()
            else:
                plain.weight.data = decode(layer.weight, layer.scale, torch.float32)
            exact.set_submodule(name, plain.requires_grad_(False))
    exact.float()
    own = dict(exact.named_parameters())
    with torch.no_grad():
        for name, trained in model.named_parameters():
            if trained.requires_grad:
                own[name].copy_(trained)
    return exact


def test_captured_training_is_no_farther_from_float32_than_plain_training(model):
    exact = in_float32(model)
    images = [picture(seed=row) for row in range(2)]

    def gradients(of: ModifiedLISA, *batches: list[str]) -> torch.Tensor:
        of.train()
        of.zero_grad()
        for texts in batches:
            found = of(images[: len(texts)], texts)
            both = zip(found["pred_masks"], found["iou_predictions"], strict=True)
            sum(mask.square().mean() + iou.square().sum() for mask, iou in both).backward()
        weights = [weight for weight in of.parameters() if weight.requires_grad]
        grads = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None]).double()
        of.eval()
        return grads

    batches = [
        ["the red one"],
        ["what is <SEG>", "all that could be eaten by somebody"],
        *(
            [text]
            for text in ("the blue one", "what could roll away", "the largest thing", "something to sit on")
        ),
        ["the smallest green thing", "what keeps me dry?"],
        *([text] for text in ("not the red one", "what is left of the tree", "two of them", "what flies")),
    ]
    plain, captured = [], []
    for texts in batches:
        reference, ordinary = gradients(exact, texts), gradients(model, texts)
        capture_parts(model)
        first, again = gradients(model, texts), gradients(model, texts)
        assert error(gradients(model, texts, texts), 2 * first) < 1e-3, "a step of two batches sums"
        release_parts(model)
        plain.append(error(ordinary, reference))
        captured.append(error(first, reference))
        assert error(again, first) < 1e-3
    assert max(plain) < 0.5, "the reference is another model"
    # Of one batch either may be nearer by chance, several times so: both round to 16 bit, each in its own way.
    mean = [float(torch.tensor(errors).square().mean().sqrt()) for errors in (plain, captured)]
    assert mean[1] < 1.5 * mean[0], f"root mean squares {mean}, of {plain} and {captured}"
