"""What bridges are made of."""

import math

import torch
from torch import nn

__all__ = ["ChannelNorm", "Refine", "to_grid"]


def to_grid(features: torch.Tensor) -> torch.Tensor:
    """(B, P, D) in row order -> (B, D, p, p)."""
    batch, patches, width = features.shape
    side = math.isqrt(patches)
    return features.transpose(1, 2).reshape(batch, width, side, side)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, h, w), as SAM's neck ends with."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Refine(nn.Module):
    """A residual depthwise block (ConvNeXt, Liu et al. 2022): sharpens what interpolation has smeared."""

    def __init__(self, channels: int, kernel: int = 5) -> None:
        super().__init__()
        self.spatial = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = ChannelNorm(channels)
        self.mix = nn.Sequential(
            nn.Conv2d(channels, 2 * channels, 1), nn.GELU(), nn.Conv2d(2 * channels, channels, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.mix(self.norm(self.spatial(x)))
