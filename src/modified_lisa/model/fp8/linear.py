"""`FP8Linear`: a frozen linear layer whose weights, and activations as they come, are fp8."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from modified_lisa.model.fp8.arithmetic import FORMAT, MULTIPLE, quantise_rows, reference_product
from modified_lisa.model.typed import KeepsTypes

__all__ = ["FP8Linear", "fp8_product", "fp8_suits", "merge_fp8", "quantise_fast"]

PART = 1024
"""Rows of a weight that are quantised at once."""


class FP8Linear(KeepsTypes, nn.Linear):
    """A frozen linear layer, W (out_features, in_features) as float8_e4m3fn codes with a scale for each row.

    On a CUDA device the product is the GPU's own in fp8 and comes out in bf16; elsewhere, which is for tests, it is
    `arithmetic.reference_product`. The gradient flows to the input alone, as if that had not been rounded.
    """

    kept_types = ("scale",)
    scale: nn.Parameter

    def __init__(self, codes: torch.Tensor, scale: torch.Tensor, bias: nn.Parameter | None = None) -> None:
        """``codes``: uint8 (out_features, in_features); ``scale``: float32 (out_features,)."""
        nn.Module.__init__(self)
        self.out_features, self.in_features = codes.shape
        self.weight = nn.Parameter(codes, requires_grad=False)
        # A parameter, since transformers overwrites buffers of what it loads.
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = bias  # type: ignore[assignment]

    @classmethod
    def from_linear(cls, layer: nn.Linear) -> "FP8Linear":
        """Quantise ``layer``, which loses its weight, so that one matrix alone is held twice at a time."""
        weight, layer.weight = layer.weight.data, nn.Parameter(torch.empty(0), requires_grad=False)
        # In parts, so that their float32 copies are small.
        codes, scales = zip(*(quantise_rows(part) for part in weight.split(PART)), strict=True)
        return cls(torch.cat(codes), torch.cat(scales), bias=layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features), in x's dtype."""
        out: torch.Tensor = _Product.apply(x, self.weight, self.scale)
        return out if self.bias is None else out + self.bias

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, fp8"


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(codes, scale)
        flat = x.reshape(-1, x.shape[-1])
        product = fp8_product if flat.is_cuda else reference_product
        return product(flat, codes, scale).view(*x.shape[:-1], len(codes))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        codes, scale = ctx.saved_tensors
        # Codes are exact in bf16 and float32, so the scales may go to the side of the gradient, which is smaller.
        wide = torch.bfloat16 if grads[0].element_size() == 2 else torch.float32
        scaled = (grads[0].float() * scale).to(wide)
        return (scaled @ codes.view(FORMAT).to(wide)).to(grads[0].dtype), None, None


def fp8_product(x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """`arithmetic.reference_product` on a CUDA device with fp8 units, through bf16."""
    if not len(x):
        return x.new_empty(0, len(codes))
    x_codes, x_scale = quantise_fast(x)
    # torch takes the second matrix by columns, sides that are multiples of 16, scales (M, 1) and (1, N), and bf16
    # out. Fast accumulation rounds sums to about 14 bits now and then: far below the 4 bits of what is summed.
    out = torch._scaled_mm(
        x_codes.view(FORMAT),
        codes.view(FORMAT).T,
        scale_a=x_scale[:, None],
        scale_b=scale[None],
        out_dtype=torch.bfloat16,
        use_fast_accum=True,
    )
    return out.to(x.dtype)


def quantise_fast(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`arithmetic.quantise_rows` by one kernel: the same bits."""
    from modified_lisa.model.fp8.kernels import quantise_kernel

    if x.stride(1) != 1:
        x = x.contiguous()
    rows, columns = x.shape
    codes = torch.empty(rows, columns, dtype=FORMAT, device=x.device)
    scale = torch.empty(rows, dtype=torch.float32, device=x.device)
    padded = 1 << (columns - 1).bit_length()
    with torch.cuda.device(x.device):  # kernels are launched on the current one
        quantise_kernel[(rows,)](
            x, codes, scale, columns, x.stride(0),
            COLUMNS=padded, num_warps=min(16, max(1, padded // 512)), enable_fp_fusion=False,
        )  # fmt: skip
    return codes.view(torch.uint8), scale


def merge_fp8(layers: Sequence[FP8Linear]) -> FP8Linear | None:
    """One layer for several of the same input; they become views of its weights. None where that cannot be."""
    if len({layer.in_features for layer in layers}) > 1 or any(layer.bias is not None for layer in layers):
        return None
    merged = FP8Linear(
        torch.cat([layer.weight.data for layer in layers]), torch.cat([layer.scale.data for layer in layers])
    )
    rows = [layer.out_features for layer in layers]
    parts = zip(merged.weight.data.split(rows), merged.scale.data.split(rows), strict=True)
    for layer, (codes, scale) in zip(layers, parts, strict=True):
        layer.weight.data, layer.scale.data = codes, scale
    return merged


def fp8_suits(layer: Any) -> bool:
    """Whether a linear layer's sizes can be multiplied in fp8."""
    return layer.in_features % MULTIPLE == 0 and layer.out_features % MULTIPLE == 0
