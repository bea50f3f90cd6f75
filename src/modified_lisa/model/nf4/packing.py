"""How a 4-bit matrix lies in memory: bitsandbytes' order, ours, and what both mean.

NF4 (Dettmers et al. 2023, QLoRA): 64 weights of a row share one scale, and each is one of 16 values times
that scale. With double quantisation a scale is an 8-bit code times a scale of its own (one for 256), plus
an offset.

- bitsandbytes: byte j of a row holds weights 2j (high half) and 2j + 1 (low half);
- here, within each 64 bytes = 128 weights of a row: byte j holds weights j (high) and 64 + j (low), so that
  each half of the bytes is one block with one scale, and both halves are read and multiplied in order.

The bytes are only moved: the same size, the same weights.
"""

from typing import NamedTuple

import torch

__all__ = ["GROUP", "Packed", "decode", "pack"]

BLOCK = 64
"""Weights that share a scale."""
GROUP = 2 * BLOCK
"""Weights of one group of bytes; a row must hold whole groups."""
SCALES = 256
"""Scales that share a scale of their own."""


class Packed(NamedTuple):
    """An NF4 matrix (N, K) with double quantisation."""

    codes: torch.Tensor
    """uint8 (N, K / 2): two weights a byte, in this module's order."""
    scale_codes: torch.Tensor
    """uint8 (N * K / 64,): the scales' codes, row by row."""
    scale_scales: torch.Tensor
    """float32 (ceil(N * K / 64 / 256),)."""
    scale_values: torch.Tensor
    """float32 (256,): what a scale's code means."""
    offset: torch.Tensor
    """float32 (1,): added to every scale."""
    values: torch.Tensor
    """float32 (16,): what a weight's code means."""


def pack(codes: torch.Tensor, columns: int) -> torch.Tensor:
    """bitsandbytes' bytes of a matrix with ``columns`` weights a row -> ours, uint8 (N, columns / 2).

    Raises ValueError if the rows do not hold whole groups.
    """
    if columns % GROUP:
        raise ValueError(f"a row has {columns} weights; it must be a multiple of {GROUP}")
    pairs = codes.reshape(-1, BLOCK)
    weights = torch.stack((pairs >> 4, pairs & 15), dim=-1).reshape(-1, 2, BLOCK)
    return ((weights[:, 0] << 4) | weights[:, 1]).reshape(-1, columns // 2)


def decode(packed: Packed, dtype: torch.dtype) -> torch.Tensor:
    """The matrix (N, K) that ``packed`` stands for. The definition; slow, on any device."""
    rows, columns = packed.codes.shape[0], 2 * packed.codes.shape[1]
    codes = packed.codes.reshape(-1, BLOCK)
    weights = packed.values[torch.stack((codes >> 4, codes & 15), dim=1).long()]
    shared = packed.scale_scales.repeat_interleave(SCALES)[: len(packed.scale_codes)]
    scales = packed.scale_values[packed.scale_codes.long()] * shared + packed.offset
    return (weights * scales.reshape(-1, 2, 1)).reshape(rows, columns).to(dtype)
