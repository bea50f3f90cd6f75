"""How a 4-bit matrix lies in memory: bitsandbytes' order, ours, and what both mean.

NF4 (Dettmers et al. 2023, QLoRA): 64 weights of a row, a block, share one scale, and each is one of 16 values
times that scale. With double quantisation a scale is an 8-bit code times a scale of its own (one for 256), plus
an offset.

- bitsandbytes: byte j of a row holds weights 2j (high half) and 2j + 1 (low half); the scales' codes lie row
  by row;
- here: each 32-bit word of a row serves two neighbouring blocks. Word j of a pair of blocks holds the codes of
  weights 4j to 4j + 3 of the first block in its lower half, lowest first, and of the second block in its upper
  half: four codes are four selectors of one instruction that looks four values up. The scales' codes lie block
  by block, so that those of neighbouring rows are neighbours.

The bytes are only moved: the same size, the same weights.
"""

from typing import NamedTuple

import torch

__all__ = ["BLOCK", "GROUP", "NF4_VALUES", "SCALES", "Packed", "decode", "pack", "pack_scales"]

BLOCK = 64
"""Weights that share a scale."""
GROUP = 2 * BLOCK
"""Weights of a pair of blocks; a row must hold whole pairs."""
SCALES = 256
"""Scales that share a scale of their own."""
NF4_VALUES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""What a weight's code means: quantiles of the normal distribution (QLoRA, appendix E), as float32."""


class Packed(NamedTuple):
    """An NF4 matrix (N, K) with double quantisation."""

    codes: torch.Tensor
    """int32 (N, K / 8): eight weights a word, in this module's order."""
    scale_codes: torch.Tensor
    """uint8 (K / 64, N): the scales' codes; a column may be a part of a wider matrix's."""
    scale_scales: torch.Tensor
    """float32 (ceil(N * K / 64 / 256),): of 256 scales each, counted row by row."""
    scale_values: torch.Tensor
    """float32 (256,): what a scale's code means."""
    offset: torch.Tensor
    """float32 (N,): added to every scale of a row."""


def pack(codes: torch.Tensor, columns: int) -> torch.Tensor:
    """bitsandbytes' bytes of a matrix with ``columns`` weights a row -> our words, int32 (N, columns / 8).

    Raises ValueError if the rows do not hold whole pairs of blocks.
    """
    if columns % GROUP:
        raise ValueError(f"a row has {columns} weights; it must be a multiple of {GROUP}")
    pairs = codes.reshape(-1, BLOCK)
    weights = torch.stack((pairs >> 4, pairs & 15), dim=-1).reshape(-1, 2, BLOCK // 4, 4)
    # Bytes of a word from the lowest: weights 0-1 and 2-3 of the first block, then of the second.
    nibbles = weights.permute(0, 2, 1, 3).reshape(-1, 2)
    return ((nibbles[:, 1] << 4) | nibbles[:, 0]).contiguous().view(torch.int32).reshape(-1, columns // 8)


def pack_scales(scale_codes: torch.Tensor, rows: int) -> torch.Tensor:
    """bitsandbytes' codes of the scales, uint8 (N * K / 64,) -> ours, uint8 (K / 64, N)."""
    return scale_codes.reshape(rows, -1).T.contiguous()


def decode(packed: Packed, dtype: torch.dtype) -> torch.Tensor:
    """The matrix (N, K) that ``packed`` stands for. The definition; slow, on any device."""
    rows, columns = packed.codes.shape[0], 8 * packed.codes.shape[1]
    words = packed.codes.reshape(rows, -1, BLOCK // 4, 1)
    shifts = 4 * torch.arange(8, device=words.device, dtype=torch.int32)
    codes = (words >> shifts) & 15
    codes = codes.reshape(rows, -1, BLOCK // 4, 2, 4).transpose(2, 3).reshape(rows, -1, BLOCK)
    values = torch.tensor(NF4_VALUES, device=words.device)[codes.long()]
    shared = packed.scale_scales.repeat_interleave(SCALES)[: packed.scale_codes.numel()].reshape(rows, -1)
    scales = packed.scale_values[packed.scale_codes.T.long()] * shared + packed.offset[:, None]
    return (values * scales[..., None]).reshape(rows, columns).to(dtype)
