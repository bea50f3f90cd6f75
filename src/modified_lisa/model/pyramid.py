"""A lighter bridge: several layers added, refined once and enlarged.

Shapes: B images, L layers, P = p*p patches, Dv the encoder's width, C and side: channels and side of SAM's embedding.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from modified_lisa.model.blocks import ChannelNorm, Refine, to_grid

__all__ = ["PyramidBridge"]


class PyramidBridge(nn.Module):
    """Several layers, each normalised and projected, added; refined before and after the enlargement.

    Ends with a LayerNorm over channels, as SAM's own neck does, so that the frozen mask decoder meets
    values of the size that it was trained on.
    """

    def __init__(self, layers: int, width: int, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.projects = nn.ModuleList(nn.Linear(width, channels) for _ in range(layers))
        self.coarse = Refine(channels, kernel=3)
        self.fine = nn.Sequential(Refine(channels), Refine(channels))
        self.norm = ChannelNorm(channels)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """L tensors (B, P, Dv) -> (B, C, side, side)."""
        return self.finish(self.enlarged(features))

    def enlarged(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """The layers as one grid (B, C, side, side), still smeared."""
        parts = zip(self.norms, self.projects, features, strict=True)
        grid = self.coarse(to_grid(torch.stack([project(norm(x)) for norm, project, x in parts]).sum(dim=0)))
        return F.interpolate(grid, (self.side, self.side), mode="bilinear", align_corners=False)

    def finish(self, grid: torch.Tensor) -> torch.Tensor:
        """Refined, and normalised as SAM's own neck does."""
        finished: torch.Tensor = self.norm(self.fine(grid))
        return finished
