"""On a CUDA device: the kernels between a language model's products give what their definitions give."""

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from transformers.models.llama.modeling_llama import LlamaRMSNorm

from modified_lisa.model import fused_llama
from modified_lisa.model.fused_kernels import add_and_norm
from modified_lisa.model.kept_attention import attend

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("tokens", "heads", "groups", "width"), [(1, 4, 4, 64), (37, 6, 2, 32), (640, 32, 32, 128)]
)
def test_own_elementwise_kernels_give_what_the_definitions_give(dtype, tokens, heads, groups, width):
    torch.manual_seed(0)
    rows = torch.randn(2, tokens, (heads + 2 * groups) * width, device="cuda", dtype=dtype)
    query, key, _ = rows.split([heads * width, groups * width, groups * width], dim=-1)
    query, key = (x.unflatten(-1, (-1, width)).transpose(1, 2) for x in (query, key))
    for shared in (1, 2):
        angles = torch.randn(shared, tokens, width, device="cuda")
        cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
        exact = fused_llama._rotate(*(x.double() for x in (query, key, cos, sin)))
        for given, wanted in zip(fused_llama.rotary(query, key, cos, sin), exact, strict=True):
            torch.testing.assert_close(given, wanted.to(dtype))
    gate, up = rows[..., : 2 * 100].split(100, dim=-1)
    exact = fused_llama._silu_times(gate.double(), up.double()).to(dtype)
    torch.testing.assert_close(fused_llama._gated(gate, up), exact)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [64, 100, 4096])
def test_a_sum_and_its_norm(dtype, width):
    torch.manual_seed(0)
    x, more = torch.randn(2, 2, 7, width, device="cuda", dtype=dtype)
    norm = LlamaRMSNorm(width).to("cuda", dtype)
    torch.nn.init.normal_(norm.weight)
    with torch.no_grad():
        total, normed = add_and_norm(x, more, norm.weight, norm.variance_epsilon)
        assert torch.equal(total, x + more)
        torch.testing.assert_close(normed, norm(x + more))
        torch.testing.assert_close(add_and_norm(x, None, norm.weight, norm.variance_epsilon)[1], norm(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("rows", "kept", "tokens", "prefix", "heads", "groups", "width"),
    [
        (1, 1, 1, 70, 2, 2, 32),
        (1, 1, 48, 590, 32, 32, 128),
        (4, 1, 33, 129, 4, 2, 64),
        (2, 2, 200, 64, 2, 1, 256),
    ],
)
def test_attention_behind_a_kept_prefix(dtype, rows, kept, tokens, prefix, heads, groups, width):
    torch.manual_seed(0)
    new = torch.randn(rows, tokens, (heads + 2 * groups) * width, device="cuda", dtype=dtype)
    parts = new.split([heads * width, groups * width, groups * width], dim=-1)
    query, key, value = (part.unflatten(-1, (-1, width)) for part in parts)
    room = torch.randn(2, kept, groups, prefix + 9, width, device="cuda", dtype=dtype)
    keys, values = room[:, :, :, :prefix]
    angles = torch.randn(1, tokens, width, device="cuda")
    cos, sin = angles.cos().to(dtype), angles.sin().to(dtype)
    seen = torch.rand(rows, 1, tokens, tokens, device="cuda") < 0.8
    seen.logical_and_(torch.ones_like(seen).tril()).logical_or_(torch.eye(tokens, device="cuda") > 0)
    bias = torch.zeros(seen.shape, device="cuda", dtype=dtype).masked_fill_(~seen, torch.finfo(dtype).min)
    given = attend(query, key, value, keys, values, cos, sin, bias, width**-0.5)
    seen = torch.cat((seen.new_ones(rows, 1, tokens, prefix), seen), dim=-1)

    turned = fused_llama._rotate(
        *(x.double() for x in (query.transpose(1, 2), key.transpose(1, 2), cos, sin))
    )
    all_keys, all_values = (
        torch.cat((old.double().expand(rows, -1, -1, -1), added), dim=2).repeat_interleave(
            heads // groups, dim=1
        )
        for old, added in ((keys, turned[1]), (values, value.transpose(1, 2).double()))
    )
    exact = torch.nn.functional.scaled_dot_product_attention(turned[0], all_keys, all_values, attn_mask=seen)
    error = (given.double() - exact.transpose(1, 2)).norm() / exact.norm()
    assert error < (5e-3 if dtype == torch.bfloat16 else 7e-4)
