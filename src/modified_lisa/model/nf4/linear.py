"""`NF4Linear`: bitsandbytes' 4-bit weights, multiplied by the kernels that suit the number of tokens."""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from modified_lisa.devices import why_not, why_not_bf16
from modified_lisa.model.nf4 import few_tokens
from modified_lisa.model.nf4.ahead import current
from modified_lisa.model.nf4.decoding import decode_fast, why_not_decoded
from modified_lisa.model.nf4.few_tokens import why_not_clusters
from modified_lisa.model.nf4.packing import BLOCK, GROUP, NF4_VALUES, SCALES, Packed, pack, pack_scales
from modified_lisa.model.typed import KeepsTypes

__all__ = ["FEW_TOKENS", "NF4Linear", "merge_nf4", "use_fast_nf4"]

logger = logging.getLogger(__name__)

FEW_TOKENS = few_tokens.MOST_TOKENS
"""Up to here the product is made straight from 4 bit; above, decoding costs less than reading x so often."""


class NF4Linear(KeepsTypes):
    """A frozen linear layer without bias, W (out_features, in_features) in NF4 with double quantisation.

    Takes the place of a bitsandbytes ``Linear4bit`` on a CUDA device, and holds the same weights in as many
    bytes. The gradient flows to the input alone. Up to `FEW_TOKENS` rows are multiplied straight from 4 bit;
    more make the layer decode its matrix into a buffer, which stays in the GPU's cache where it fits, and
    call the usual 16-bit product. Graphs decode it beside the product before (`ahead`).
    """

    kept_types = ("scale_scales", "scale_values", "offset")
    codes: torch.Tensor
    scale_codes: torch.Tensor
    scale_scales: torch.Tensor
    scale_values: torch.Tensor
    offset: torch.Tensor
    locks: torch.Tensor

    def __init__(self, packed: Packed, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features = packed.codes.shape[0]
        self.in_features = 8 * packed.codes.shape[1]
        self.dtype = dtype
        for name, tensor in packed._asdict().items():
            self.register_buffer(name, tensor, persistent=False)
        tiles = max(-(-self.out_features // FORWARD.rows), self.in_features // GROUP)
        self.register_buffer(
            "locks", torch.zeros(tiles, dtype=torch.int32, device=packed.codes.device), persistent=False
        )

    @classmethod
    def from_bitsandbytes(cls, layer: Any) -> "NF4Linear":
        """Take over the weights of a ``Linear4bit`` that `suits`."""
        state = layer.weight.quant_state
        columns = state.shape[1]
        packed = Packed(
            codes=pack(layer.weight.data, columns),
            scale_codes=pack_scales(state.absmax, state.shape[0]),
            scale_scales=state.state2.absmax,
            scale_values=state.state2.code.float(),
            offset=state.offset.reshape(1).float().repeat(state.shape[0]),
        )
        return cls(packed, layer.compute_dtype or state.dtype)

    @property
    def packed(self) -> Packed:
        return Packed(*(getattr(self, name) for name in Packed._fields))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) -> (..., out_features), in x's dtype; computed in ``dtype``."""
        return _Product.apply(x.to(self.dtype), self).to(x.dtype)

    def decoded(self, out: torch.Tensor | None = None) -> torch.Tensor:
        """W (out_features, in_features) in 16 bit, made in ``out`` if that is given."""
        return decode_fast(self.packed, self.dtype, out)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, NF4, {self.dtype}"


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: NF4Linear) -> torch.Tensor:
        ctx.layer = layer
        return _multiply(x, layer, layer.out_features, back=False)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        layer = ctx.layer
        return _multiply(grads[0].to(layer.dtype), layer, layer.in_features, back=True), None


def _multiply(x: torch.Tensor, layer: NF4Linear, width: int, *, back: bool) -> torch.Tensor:
    """x W^T, or x W with ``back``; (..., K or N) -> (..., width)."""
    flat = x.reshape(-1, x.shape[-1])
    with torch.cuda.device(x.device):  # kernels are launched on the current one
        if len(flat) > FEW_TOKENS:
            ahead = None if back else current()
            weight = layer.decoded() if ahead is None else ahead.weight(layer)
            return F.linear(x, weight.T if back else weight)
        out = flat.new_empty(len(flat), width)
        if len(flat):
            _few(flat.contiguous(), layer, out, back)
    return out.view(*x.shape[:-1], width)


class Cut(NamedTuple):
    """How Triton's product is cut into programs."""

    rows: int
    """Rows of W of one program (and, on the way back, of one step)."""
    programs: int
    """Programs for each of the GPU's processors, at least, as far as there is work for them."""
    warps: int


FORWARD, BACKWARD = Cut(64, 3, 4), Cut(128, 3, 4)


def _few(x: torch.Tensor, layer: NF4Linear, out: torch.Tensor, back: bool) -> None:
    packed = layer.packed
    if not back and why_not_clusters(x.device) is None and few_tokens.suits(x, packed):
        few_tokens.multiply(x, packed, out)
        return
    from modified_lisa.model.nf4.kernels import backward_kernel, forward_kernel

    tokens = max(16, 1 << (len(x) - 1).bit_length())
    rows, columns = layer.out_features, layer.in_features
    if back:
        kernel, shape = backward_kernel, BACKWARD
        tiles, steps, area = columns // GROUP, -(-rows // shape.rows), tokens * GROUP
    else:
        kernel, shape = forward_kernel, FORWARD
        tiles, steps, area = -(-rows // shape.rows), columns // GROUP, tokens * shape.rows
    split = max(1, min(-(-shape.programs * few_tokens.processors(x.device) // tiles), steps // 2, 32))
    split = -(-steps // -(-steps // split))  # no part without a step
    partial = x.new_empty(split * tiles * area if split > 1 else 1, dtype=torch.float32)
    kernel[(tiles, split)](
        x, *packed, out, partial, layer.locks, len(x), rows, columns, layer.scale_codes.stride(0),
        TOKENS=tokens, ROWS=shape.rows, SPLIT=split, num_warps=shape.warps,
        enable_fp_fusion=False,
    )  # fmt: skip


def merge_nf4(layers: Sequence[NF4Linear]) -> NF4Linear | None:
    """One layer for several of the same input; they become views of its weights. None where that cannot be."""
    if len({(layer.in_features, layer.dtype) for layer in layers}) > 1:
        return None
    # A scale of scales must not reach from one layer into the next, nor their table differ.
    blocks = [layer.out_features * layer.in_features // BLOCK for layer in layers]
    if any(number % SCALES for number in blocks) or any(
        not torch.equal(layer.scale_values, layers[0].scale_values) for layer in layers
    ):
        return None
    merged = NF4Linear(
        Packed(
            codes=torch.cat([layer.codes for layer in layers]),
            scale_codes=torch.cat([layer.scale_codes for layer in layers], dim=1),
            scale_scales=torch.cat([layer.scale_scales for layer in layers]),
            scale_values=layers[0].scale_values,
            offset=torch.cat([layer.offset for layer in layers]),
        ),
        layers[0].dtype,
    )
    rows = [layer.out_features for layer in layers]
    parts = zip(
        merged.codes.split(rows),
        merged.scale_codes.split(rows, dim=1),
        merged.scale_scales.split([number // SCALES for number in blocks]),
        merged.offset.split(rows),
        strict=True,
    )
    for layer, (codes, scale_codes, scale_scales, offset) in zip(layers, parts, strict=True):
        layer.codes, layer.scale_codes, layer.scale_scales, layer.offset = (
            codes,
            scale_codes,
            scale_scales,
            offset,
        )
    return merged


def suits(layer: Any) -> bool:
    """Whether a ``Linear4bit`` can become an `NF4Linear`: NF4 in blocks of 64, double quantisation, 16 bit."""
    state = getattr(layer.weight, "quant_state", None)
    return bool(
        state is not None
        and state.quant_type == "nf4"
        and state.blocksize == BLOCK
        and state.nested
        and state.state2.blocksize == SCALES
        and tuple(state.code.tolist()) == NF4_VALUES
        and state.shape[1] % GROUP == 0
        and (layer.compute_dtype or state.dtype) in (torch.bfloat16, torch.float16)
        and layer.bias is None
    )


def use_fast_nf4(model: nn.Module) -> tuple[int, int]:
    """Put an `NF4Linear` in place of every ``Linear4bit`` on a CUDA device that `suits`.

    Returns the numbers of layers that were changed, and that stay with bitsandbytes. The choice is logged.
    """
    layers: list[tuple[nn.Module, str, Any]] = [
        (parent, name, child)
        for parent in list(model.modules())
        for name, child in parent.named_children()
        if isinstance(getattr(child, "weight", None), nn.Parameter)
        and getattr(child.weight, "quant_state", None) is not None
    ]
    if not layers:
        return 0, 0
    fast = 0
    device = layers[0][2].weight.device
    dtypes = {child.compute_dtype or child.weight.quant_state.dtype for *_, child in layers}
    obstacle = (why_not_bf16 if torch.bfloat16 in dtypes else why_not)(device)
    for dtype in {torch.bfloat16, torch.float16} & dtypes:
        obstacle = obstacle or why_not_decoded(device, dtype)
    if obstacle is None:
        for parent, name, child in layers:
            if child.weight.is_cuda and suits(child):
                setattr(parent, name, NF4Linear.from_bitsandbytes(child))
                # At once, not when the garbage collector finds it: two copies of a 7B model are 3 GiB too many.
                child.weight.data, child.weight.quant_state = child.weight.data.new_empty(0), None
                fast += 1
    triton = why_not_clusters(device) if fast else None
    logger.info(
        "4-bit products: %d layers by this package's kernels (up to %d tokens straight from 4 bit%s, more by "
        "decoding once), %d by bitsandbytes%s",
        fast,
        FEW_TOKENS,
        f", by Triton instead of CUDA C++: {triton}" if triton else "",
        len(layers) - fast,
        f" ({obstacle})" if obstacle else "",
    )
    return fast, len(layers) - fast
