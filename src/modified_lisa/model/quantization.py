"""Which layers are quantised, and the proof that they are the ones asked for."""

from typing import Any

import torch
from torch import nn

from modified_lisa.errors import ModelLoadError

__all__ = ["LANGUAGE_MODEL", "quantized_linear"]

LANGUAGE_MODEL = "model.language_model."
"""Where the layers to quantise are, in a ``LlavaForConditionalGeneration``; nothing else ever is."""


def bitsandbytes() -> Any:
    """The library, imported when it is needed. Raises ModelLoadError if it is not installed."""
    try:
        import bitsandbytes as library
    except ImportError as error:
        raise ModelLoadError(
            f"quantisation needs bitsandbytes ({error}); install it (pip install bitsandbytes), or load without "
            "quantisation (--no_quantization, quantize=False)"
        ) from error
    return library


def quantized_linear(layer: nn.Linear, quantization: str, compute_dtype: torch.dtype) -> nn.Linear:
    """``layer``, on its device, as a frozen bitsandbytes layer: ``nf4`` (with double quantisation) or ``int8``.

    ``layer`` loses its weight, so that one matrix alone is held twice at a time. NF4 and double quantisation:
    QLoRA, Dettmers et al. 2023; int8: LLM.int8(), Dettmers et al. 2022.
    """
    library = bitsandbytes()
    weight, layer.weight = layer.weight.data, nn.Parameter(torch.empty(0), requires_grad=False)
    shape = (layer.in_features, layer.out_features)
    new: Any
    with torch.device("meta"):
        if quantization == "nf4":
            new = library.nn.Linear4bit(
                *shape, bias=False, compute_dtype=compute_dtype, compress_statistics=True, quant_type="nf4"
            )
        else:
            new = library.nn.Linear8bitLt(*shape, bias=False, has_fp16_weights=False, threshold=6.0)
    if quantization == "nf4":
        empty = library.nn.Params4bit(
            weight, requires_grad=False, compress_statistics=True, quant_type="nf4", module=new
        )
        new.weight = empty.to(weight.device)  # quantises
        keep_backward(new)
    else:
        values, scales, _ = library.functional.int8_vectorwise_quant(weight.to(torch.float16))
        new.weight = library.nn.Int8Params(
            values, requires_grad=False, has_fp16_weights=False, CB=values, SCB=scales
        )
    new.bias = layer.bias
    quantised: nn.Linear = new
    return quantised


def keep_backward(layer: Any) -> None:
    """Forbid bitsandbytes to repack a ``Linear4bit`` on CPUs with AVX512-BF16.

    It would do so for good at the layer's first use without a gradient, into a form whose product has no
    backward pass: gradients would vanish silently.
    """
    layer.support_avx512bf16_for_cpu = False
