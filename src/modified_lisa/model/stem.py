"""A bridge that also looks at the pixels: where exactly things end, which patches of 14 pixels do not tell."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from modified_lisa.model.blocks import ChannelNorm
from modified_lisa.model.pyramid import PyramidBridge

__all__ = ["StemBridge"]

_FINE = 4
"""Pixels along the side of a cell of the embedding, after the square is resized for the stem."""
_INNER = 32


class StemBridge(PyramidBridge):
    """`PyramidBridge`, with a light convolutional stem whose edges are added after the enlargement.

    The stem starts at 0, so that training begins as that of the pyramid. It is not a second encoder: two strided
    convolutions, 20,000 weights.
    """

    reads_pixels = True
    """`forward` takes the encoder's square too."""

    def __init__(self, layers: int, width: int, channels: int, side: int) -> None:
        super().__init__(layers, width, channels, side)
        self.stem = nn.Sequential(
            nn.Conv2d(3, _INNER, 3, stride=2, padding=1),
            ChannelNorm(_INNER),
            nn.GELU(),
            nn.Conv2d(_INNER, 2 * _INNER, 3, stride=2, padding=1),
            nn.GELU(),
        )
        self.edges = nn.Conv2d(2 * _INNER, channels, 1)
        for weight in self.edges.parameters():
            nn.init.zeros_(weight)

    def forward(self, features: Sequence[torch.Tensor], pixels: torch.Tensor | None = None) -> torch.Tensor:
        """L tensors (B, P, Dv) and normalised pixels float32 (B, 3, S, S) -> (B, C, side, side)."""
        assert pixels is not None
        fine = F.interpolate(pixels, (_FINE * self.side,) * 2, mode="bilinear", align_corners=False)
        return self.finish(self.enlarged(features) + self.edges(self.stem(fine)))
