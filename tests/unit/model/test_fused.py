"""What stands in for transformers' functions while graphs are captured gives the same values."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb
from transformers.models.sam import modeling_sam

from factory import picture, tiny_model
from modified_lisa.model import fused, fused_llama
from modified_lisa.model.merged import merge_projections
from modified_lisa.model.reading import answer, read_image


@pytest.mark.parametrize("cells", [1024, 4096, 100, 1000])
@pytest.mark.parametrize("tokens", [1, 7, 100])
def test_attention_over_cells_in_pieces(cells, tokens):
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(2, 3, length, 16, dtype=torch.float64) for length in (tokens, cells, cells)
    )
    wanted, weights = modeling_sam.eager_attention_forward(nn.Identity(), query, key, value, None, 0.25)
    given, same = fused._cells_attention(nn.Identity(), query, key, value, None, 0.25)
    torch.testing.assert_close(given, wanted, rtol=1e-6, atol=1e-9)  # the softmax is float32 in both
    torch.testing.assert_close(same, weights)


def test_attention_of_the_decoder_is_replaced_within_and_not_after():
    model = nn.ModuleList([modeling_sam.SamAttention(modeling_sam.SamMaskDecoderConfig())])
    before = modeling_sam.eager_attention_forward
    with fused.fused(model):
        assert modeling_sam.eager_attention_forward is fused._cells_attention
    assert modeling_sam.eager_attention_forward is before


def test_rotations_are_those_of_transformers():
    torch.manual_seed(0)
    query, key = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
    cos, sin = torch.randn(2, 5, 8), torch.randn(2, 5, 8)
    for given, wanted in zip(
        fused_llama._rotate(query, key, cos, sin), apply_rotary_pos_emb(query, key, cos, sin), strict=True
    ):
        torch.testing.assert_close(given, wanted)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("trained", [False, True])
def test_layers_of_the_language_model_compute_what_they_did(trained):
    model = tiny_model(quantize=None)
    inputs = model.processor([picture()], ["which one could roll away?"])
    layers, norms = (
        model.language_model.layers,
        [module for name, module in model.language_model.named_modules() if name.endswith("norm")],
    )
    wanted = model.compute(inputs)[1]
    with torch.set_grad_enabled(trained), fused.fused(model):
        assert all("forward" in layer.__dict__ for layer in layers)
        torch.testing.assert_close(model.compute(inputs)[1], wanted, rtol=1e-4, atol=1e-4)
    assert not any("forward" in layer.__dict__ for layer in layers)
    assert not any(fused_llama._SUM in norm.__dict__ for norm in norms)


def attend_plainly(query, key, value, kept_keys, kept_values, cos, sin, bias, scale):
    """What `kept_attention.attend` computes, by its definition."""
    query, key, value = (part.transpose(1, 2) for part in (query, key, value))
    query, key = fused_llama._rotate(query, key, cos, sin)
    both = [
        torch.cat((old.expand(len(new), -1, -1, -1), new), dim=2).repeat_interleave(
            query.shape[1] // new.shape[1], 1
        )
        for old, new in ((kept_keys, key), (kept_values, value))
    ]
    seen = nn.functional.pad(bias, (kept_keys.shape[2], 0))
    return nn.functional.scaled_dot_product_attention(query, *both, attn_mask=seen, scale=scale).transpose(
        1, 2
    )


@pytest.mark.usefixtures("uncompiled")
def test_layers_hand_the_kernels_what_they_need(monkeypatch):
    """The kernels are played by their definitions: a session's queries get the masks that they get without them."""
    model = tiny_model(quantize=None)
    calls = {"attend": 0, "add_and_norm": 0}

    def attend(*given):
        calls["attend"] += 1
        return attend_plainly(*given)

    def add_and_norm(x, more, weight, epsilon):
        calls["add_and_norm"] += 1
        total = x if more is None else x + more
        return total, fused_llama._rms_norm(total, weight, epsilon)

    kernels = SimpleNamespace(
        add_and_norm=add_and_norm, silu_times=fused_llama._silu_times, rotate=fused_llama._rotate
    )
    monkeypatch.setitem(sys.modules, "modified_lisa.model.fused_kernels", kernels)
    kept = SimpleNamespace(attend=attend, serves=lambda x, keys: True)
    monkeypatch.setitem(sys.modules, "modified_lisa.model.kept_attention", kept)
    monkeypatch.setattr(fused_llama, "_kernels_serve", lambda *tensors: True)
    processor = model.processor
    queries = processor.queries(["which one could roll away?", "<SEG> the red one, <SEG>"])
    with torch.no_grad():
        state = read_image(model, processor.prefix(picture(), model.device))
        wanted, _ = answer(model, state, queries)
        merge_projections(model.language_model)
        with fused.fused(model):
            given, _ = answer(model, state, queries)
    layers = len(model.language_model.layers)
    assert calls == {"attend": layers, "add_and_norm": 2 * layers + 1}, "each norm once, the first alone"
    torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_attention_stays_causal_whatever_computes_it(attention):
    model = tiny_model()
    model.language_model.set_attn_implementation(attention)
    inputs = model.processor([picture()], ["which one could roll away?"])
    with torch.no_grad():
        _, plain, _ = model.compute(inputs)
        with fused.fused(model):
            _, fast, _ = model.compute(inputs)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
