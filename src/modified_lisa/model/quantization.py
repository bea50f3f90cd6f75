"""Which layers are quantised, and the proof that they are the ones asked for, in the way asked for."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modified_lisa.errors import ModelLoadError, QuantizationError
from modified_lisa.model.fp8.linear import FP8Linear, fp8_suits

__all__ = [
    "BITS",
    "LANGUAGE_MODEL",
    "NOT_QUANTIZED",
    "QuantizationReport",
    "QuantizedLinear",
    "binary_size",
    "inspect_quantization",
    "quantized_linear",
    "settle",
]

LANGUAGE_MODEL = "model.language_model."
"""Where the layers to quantise are, in a ``LlavaForConditionalGeneration``; nothing else ever is."""
NOT_QUANTIZED = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]
"""Full paths: transformers anchors its matching, so that a bare "vision_tower" silently skips nothing."""
BITS = {"nf4": 4, "int8": 8, "fp8": 8}
_KINDS = {"Linear4bit": 4, "Linear8bitLt": 8, "FP8Linear": 8}


@dataclass(frozen=True)
class QuantizedLinear:
    """A quantised layer as it was found."""

    name: str
    kind: str
    """``nf4``, ``nf4 without double quantisation``, ``fp4``, ``int8``, ``fp8``, ..."""
    bits: int
    count: int
    """Weights in it, without the bias."""
    bytes_before: int
    """In the precision of the model's unquantised parts."""
    bytes_after: int
    """With the scales and tables that belong to it."""


@dataclass(frozen=True)
class QuantizationReport:
    """What is quantised in a VLM, module by module; ``str()`` is a summary, `table` names each."""

    asked: str
    """``nf4``, ``int8``, ``fp8`` or ``none``."""
    quantized: tuple[QuantizedLinear, ...]
    plain: tuple[str, ...]
    """Linear layers that are not quantised."""
    other_bytes: int
    """Of all parameters outside the quantised layers."""
    kept: tuple[str, ...] = ()
    """Those of ``plain`` in the language model that fp8 cannot take: a side is no multiple of 16."""

    @property
    def bytes_before(self) -> int:
        return self.other_bytes + sum(layer.bytes_before for layer in self.quantized)

    @property
    def bytes_after(self) -> int:
        return self.other_bytes + sum(layer.bytes_after for layer in self.quantized)

    def check(self) -> "QuantizationReport":
        """This report, if what was quantised is what was asked for, and all of it.

        Asked for are all linear layers of the language model (in fp8: all whose sides are multiples of 16), and none
        elsewhere. transformers skips or
        includes layers by patterns, and says nothing when a pattern does not match. Raises QuantizationError.
        """
        stray = [layer.name for layer in self.quantized if not layer.name.startswith(LANGUAGE_MODEL)]
        left = [name for name in self.plain if name.startswith(LANGUAGE_MODEL) and name not in self.kept]
        wrong = [f"{layer.name} is {layer.kind}" for layer in self.quantized if layer.kind != self.asked]
        if self.asked == "none":
            if self.quantized:
                raise QuantizationError(
                    f"asked for no quantisation, but {len(self.quantized)} layers are quantised, such as "
                    f"{self.quantized[0].name} ({self.quantized[0].kind}); load a checkpoint that is not quantised"
                )
        elif stray or left or wrong or not self.quantized:
            raise QuantizationError(
                f"quantisation to {self.asked} went wrong: {len(self.quantized)} layers are quantised, {len(left)} of "
                f"the language model's are not ({_some(left)}), {len(stray)} others are ({_some(stray)}), "
                f"{len(wrong)} are of another kind ({_some(wrong)})"
            )
        return self

    def __str__(self) -> str:
        if not self.quantized:
            return f"not quantised: {binary_size(self.bytes_after)} of weights in the VLM"
        before = sum(layer.bytes_before for layer in self.quantized)
        after = sum(layer.bytes_after for layer in self.quantized)
        count = sum(layer.count for layer in self.quantized)
        kinds = ", ".join(sorted({layer.kind for layer in self.quantized}))
        return (
            f"quantised to {kinds}: {len(self.quantized)} linear layers of the language model, {count / 1e6:,.1f} million "
            f"weights, {binary_size(before)} -> {binary_size(after)} ({8 * after / count:.2f} bits each); {len(self.plain) - len(self.kept)} linear "
            f"layers elsewhere are not; the VLM takes {binary_size(self.bytes_after)}" + self._kept_in_words()
        )

    def _kept_in_words(self) -> str:
        if not self.kept:
            return ""
        return (
            f"; {len(self.kept)} of the language model's stay unquantised, since a side is no multiple of 16, which fp8 "
            f"needs ({_some(list(self.kept))})"
        )

    def table(self) -> str:
        """One line for each layer: name, kind, bits, bytes before and after."""
        width = max((len(layer.name) for layer in self.quantized), default=0)
        lines = [
            f"{layer.name:{width}}  {layer.kind:5} {layer.bits:2} bit {layer.bytes_before:>12,} -> "
            f"{layer.bytes_after:>11,} bytes"
            for layer in self.quantized
        ]
        return "\n".join([*lines, f"not quantised: {', '.join(self.plain) or 'no linear layer'}"])


def inspect_quantization(vlm: nn.Module, asked: str) -> QuantizationReport:
    """Look at every linear layer of a ``LlavaForConditionalGeneration``; `QuantizationReport.check` judges it."""
    dtypes = [p.dtype for p in vlm.parameters() if p.is_floating_point()]
    size = max(set(dtypes), key=dtypes.count).itemsize if dtypes else 2
    quantized, plain, kept = [], [], []
    own: set[int] = set()
    for name, module in vlm.named_modules():
        if type(module).__name__ in _KINDS:
            layer: Any = module
            count = int(layer.in_features * layer.out_features)
            tensors = list(_tensors(layer))
            own |= {id(layer.weight), id(getattr(layer, "scale", None))}
            quantized.append(
                QuantizedLinear(
                    name=name,
                    kind=_kind(layer),
                    bits=_KINDS[type(module).__name__],
                    count=count,
                    bytes_before=size * count,
                    bytes_after=sum(tensor.nbytes for tensor in tensors),
                )
            )
        elif isinstance(module, nn.Linear):
            plain.append(name)
            if asked == "fp8" and name.startswith(LANGUAGE_MODEL) and not fp8_suits(module):
                kept.append(name)
    other = sum(parameter.nbytes for parameter in vlm.parameters() if id(parameter) not in own)
    return QuantizationReport(asked, tuple(quantized), tuple(plain), other, tuple(kept))


def _kind(layer: Any) -> str:
    if isinstance(layer, FP8Linear):
        return "fp8" if layer.weight.dtype == torch.uint8 else f"fp8 kept in {layer.weight.dtype}"
    if type(layer).__name__ == "Linear8bitLt":
        return "int8" if layer.weight.dtype == torch.int8 else f"int8 kept in {layer.weight.dtype}"
    state = getattr(layer.weight, "quant_state", None)
    if state is None:
        return "4 bit not yet quantised"
    return str(state.quant_type) + ("" if state.nested else " without double quantisation")


def _tensors(layer: Any) -> Iterator[torch.Tensor]:
    """What a quantised layer keeps in memory for its weight."""
    yield layer.weight
    if isinstance(layer, FP8Linear):
        yield layer.scale
    state = getattr(layer.weight, "quant_state", None)
    inner = getattr(state, "state2", None)
    scales = [getattr(layer.weight, "SCB", None), getattr(getattr(layer, "state", None), "SCB", None)]
    for part in (state, inner):
        scales += [getattr(part, name, None) for name in ("absmax", "code")]
    yield from (tensor for tensor in scales if isinstance(tensor, torch.Tensor))


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def binary_size(count: float) -> str:
    """Bytes in GiB, or in MiB below one."""
    return f"{count / 2**30:.2f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


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
    """``layer``, on its device, frozen: ``nf4`` (with double quantisation), ``int8`` or ``fp8``.

    ``layer`` loses its weight, so that one matrix alone is held twice at a time. NF4 and double quantisation:
    QLoRA, Dettmers et al. 2023; int8: LLM.int8(), Dettmers et al. 2022; both by bitsandbytes. A layer whose sizes
    do not suit fp8 comes back as it is.
    """
    if quantization == "fp8":
        return FP8Linear.from_linear(layer) if fp8_suits(layer) else layer
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
    else:
        values, scales, _ = library.functional.int8_vectorwise_quant(weight.to(torch.float16))
        new.weight = library.nn.Int8Params(
            values, requires_grad=False, has_fp16_weights=False, CB=values, SCB=scales
        )
    new.bias = layer.bias
    settle(new)
    quantised: nn.Linear = new
    return quantised


def settle(model: nn.Module) -> None:
    """Keep bitsandbytes from two things that it does by itself to the quantised layers of ``model``.

    On CPUs with AVX512-BF16 it would repack 4-bit layers for good at their first use without a gradient, into a
    form whose product has no backward pass: gradients would vanish silently. And it would warn at every product of
    every 8-bit layer that it computes in fp16, which is what LLM.int8 is.
    """
    for module in model.modules():
        layer: Any = module
        if type(module).__name__ == "Linear4bit":
            layer.support_avx512bf16_for_cpu = False
        elif type(module).__name__ == "Linear8bitLt":
            logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
