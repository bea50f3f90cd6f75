"""Operations and weights against numbers worked out by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaModel

from factory import picture, tiny_model
from modified_lisa.benchmark.flops import (
    count_flops,
    language_model_flops,
    linear_weights,
    parameters_by_module,
    stored_bytes,
)
from modified_lisa.benchmark.original import ANSWER, OriginalPipeline
from modified_lisa.benchmark.pipelines import StagedPipeline
from modified_lisa.model.sizes import known_config
from modified_lisa.model.skipping import unread

# LLaVA-1.5-7B: 32 layers of four 4096 x 4096 and three 4096 x 11008 matrices.
SEVEN_B = 32 * (4 * 4096 * 4096 + 3 * 4096 * 11008)


@pytest.fixture(name="seven_b", scope="module")
def _seven_b():
    with torch.device("meta"):
        return LlamaModel(known_config("llava-hf/llava-1.5-7b-hf", "llava").text_config)


def test_llava_7b(seven_b):
    assert linear_weights(seven_b) == SEVEN_B
    assert pytest.approx(6.5e9, rel=0.01) == SEVEN_B
    flops = language_model_flops(seven_b, 640)
    assert flops == 2 * SEVEN_B * 640 + 4 * 32 * 4096 * (640 * 641 // 2)
    assert flops == pytest.approx(2 * 6.5e9 * 640, rel=0.02)


def test_a_prompt_in_two_parts_costs_what_it_costs_in_one(seven_b):
    parts = language_model_flops(seven_b, 600) + language_model_flops(seven_b, 40, past=600)
    assert parts == language_model_flops(seven_b, 640)


@pytest.mark.parametrize("left_out", [0, 13])
def test_the_formula_agrees_with_torchs_counter(left_out):
    """Which counts the whole square of the attention, not its causal half."""
    model = tiny_model()
    language_model, tokens = model.language_model, 20
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), unread(language_model, left_out):
        language_model(inputs_embeds=torch.zeros(1, tokens, 64), use_cache=False)
    ours = language_model_flops(language_model, tokens, unread=left_out)
    layers, width = language_model.config.num_hidden_layers, 64
    upper = 4 * layers * width * (tokens * (tokens - 1) // 2)
    seen = 4 * layers * width * (tokens * (tokens + 1) // 2)
    without_attention = ours - seen  # a CPU's may not count
    angles = width // language_model.config.num_attention_heads * tokens  # a product in transformers 5.17
    counted = counter.get_total_flops()
    assert counted in {
        matrices + table for matrices in (ours + upper, without_attention) for table in (0, angles)
    }


def test_stages_of_the_original():
    model = tiny_model(vision_source="dual")
    head = nn.Linear(64, 400, bias=False)
    text = "the one that could roll away"
    generated = count_flops(OriginalPipeline(model, head, fast=False), [picture()], [text])
    shared = count_flops(StagedPipeline(tiny_model(), fast=False), [picture()], [text])
    assert set(generated) == {"encode", "prefill", "decode", "mask head"}
    assert set(shared) == {"encode", "prefill", "mask head"}
    prompt = len(model.processor.encode(text)) - 1
    steps = language_model_flops(model.language_model, ANSWER - 1, prompt)
    assert generated["decode"] == steps + 2 * 64 * 400 * ANSWER
    assert generated["encode"] > 0
    assert generated["mask head"] == shared["mask head"] > 0


def test_parameters_add_up():
    model = tiny_model()
    parts = parameters_by_module(model)
    assert sum(parts.values()) == model.describe_parameters()["total"]
    assert "output matrix (lm_head)" not in parts


def test_bytes_of_the_layers():
    model = tiny_model()  # fp32
    assert stored_bytes(model.language_model) == 4 * linear_weights(model.language_model)
