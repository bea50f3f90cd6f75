"""Arithmetic and weights of a model, by module.

A floating point operation is a multiplication or an addition: a product of a (m, k) and a (k, n) matrix has
2mkn. Norms, activations and sums are left out; they are bound by memory.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from modified_lisa.benchmark.original import ANSWER
from modified_lisa.benchmark.pipelines import Run, StagedPipeline
from modified_lisa.model.describe import weights_of
from modified_lisa.model.skipping import spared

__all__ = ["count_flops", "language_model_flops", "linear_weights", "parameters_by_module", "stored_bytes"]


def linear_weights(module: nn.Module) -> int:
    """Weights of all linear layers in ``module``, packed ones too."""
    return sum(
        part.in_features * part.out_features  # type: ignore[operator, misc]
        for part in module.modules()
        if hasattr(part, "in_features") and hasattr(part, "out_features")
    )


def language_model_flops(language_model: Any, tokens: int, past: int = 0, unread: int = 0) -> int:
    """Of ``tokens`` new tokens after ``past`` known ones, causal: 2 for each linear weight and token, and two
    products of the attention (scores, values), each 2 for each pair of tokens and channel. Without what
    `skipping.unread` leaves out for ``unread`` of them."""
    config = language_model.config
    heads = config.num_attention_heads
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)
    pairs = tokens * past + tokens * (tokens + 1) // 2
    left_out = 2 * sum(linear_weights(part) for part in spared(language_model)) * unread
    return (
        2 * linear_weights(language_model) * tokens - left_out + 4 * config.num_hidden_layers * width * pairs
    )


def count_flops(pipeline: StagedPipeline, images: list[Any], texts: list[str]) -> dict[str, int]:
    """Of one run, by stage: the encoders and the mask head counted while they run (torch's FlopCounterMode), the
    language model and the matrices around it by formula, since 4-bit products hide from the counter."""
    model = pipeline.model
    stages = pipeline.stages
    run = Run(images, texts)
    with torch.no_grad():
        stages["preprocess"](run)
        encode = _counted(lambda: stages["encode"](run))
        stages["prefill"](run)
        if "decode" in stages:
            stages["decode"](run)
        head = _counted(lambda: stages["mask head"](run))
    rows, length = run.ready.input_ids.shape
    place = run.ready.image_place
    generated = ANSWER - 1 if "decode" in stages else 0
    prompt, unread = (length - 1, 0) if generated else (length, place.stop - 1)
    projector = 2 * linear_weights(model.projector) * (place.stop - place.start)
    found = {
        "encode": encode,
        "prefill": rows * (projector + language_model_flops(model.language_model, prompt, unread=unread)),
        "mask head": head,
    }
    if generated:
        words = 2 * linear_weights(pipeline.lm_head) * ANSWER  # type: ignore[attr-defined]
        steps = language_model_flops(model.language_model, generated, prompt)
        found["decode"] = rows * (words + steps)
    return found


def _counted(call: Callable[[], Any]) -> int:
    counter = FlopCounterMode(display=False)
    with counter:
        call()
    return int(counter.get_total_flops())


def parameters_by_module(model: Any, lm_head: nn.Module | None = None) -> dict[str, int]:
    """Weights by part; packed ones count as what they stand for."""
    parts: dict[str, nn.Module | None] = {
        "vision encoders": None,
        "bridge": getattr(model.vision, "bridge", None),
        "projector": model.projector,
        "language model": model.language_model,
        "<SEG> row and projection": nn.ModuleList([model.seg_embedding, model.seg_projection]),
        "mask decoder and prompt encoder": model.mask_head,
        "output matrix (lm_head)": lm_head,
    }
    counts = {name: _weights(part) for name, part in parts.items() if part is not None}
    encoders = _weights(model.vision) - counts.get("bridge", 0)
    return {"vision encoders": encoders, **counts}


def _weights(module: nn.Module) -> int:
    return sum(weights_of(part) for part in module.modules())


def stored_bytes(language_model: nn.Module) -> int:
    """Bytes of the linear layers of a language model as they are kept, which one pass has to read."""
    total = 0
    for part in language_model.modules():
        if hasattr(part, "in_features"):
            tensors = [*part.parameters(recurse=False), *part.buffers(recurse=False)]
            total += sum(tensor.nbytes for tensor in tensors)
            state = getattr(getattr(part, "weight", None), "quant_state", None)
            if state is not None:
                total += state.absmax.nbytes
    return total
