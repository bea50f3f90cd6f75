"""The default bridge, which reads grids of one resolution or several: a feature pyramid network (Lin et al. 2017).

Shapes: B images; layer l has p_l * p_l cells of D_l channels; C channels and side h of SAM's embedding.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from modified_lisa.model.blocks import ChannelNorm, Refine, to_grid

__all__ = ["INNER", "FpnBridge"]

INNER = 128
"""Channels inside, at least: a small mask decoder's few are too narrow to tell many kinds of thing apart."""
_CONTEXT = (1, 2, 4)
"""Sides of the grids that the deepest layer is averaged to: what kind of picture this is, and which half of it."""


class FpnBridge(nn.Module):
    """From deep to shallow: each layer, projected to `INNER` channels or C if more, is added to what came from below and refined.

    Layers may be of one resolution (a ViT's) or of several (a convolutional encoder's). The deepest gets the
    context of the whole picture first (pyramid pooling, Zhao et al. 2017). Ends as SAM's own neck does.
    """

    def __init__(self, widths: Sequence[int], channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        inner = max(INNER, channels)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths)
        self.projects = nn.ModuleList(nn.Linear(width, inner) for width in widths)
        self.context = nn.ModuleList(nn.Conv2d(inner, inner, 1) for _ in _CONTEXT)
        self.refines = nn.ModuleList(Refine(inner) for _ in widths)
        self.deepest = Refine(inner)
        self.fine = nn.Sequential(Refine(inner), Refine(inner))
        self.out = nn.Conv2d(inner, channels, 1)
        self.norm = ChannelNorm(channels)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """L tensors (B, P_l, D_l), shallow before deep -> (B, C, side, side)."""
        parts = zip(self.projects, self.norms, features, strict=True)
        grids = [to_grid(project(norm(x))) for project, norm, x in parts]
        grid = self.deepest(grids[-1])
        for size, mix in zip(_CONTEXT, self.context, strict=True):
            grid = grid + _resized(mix(_averaged(grids[-1], size)), grid.shape[-1])
        grid = self.refines[-1](grid)
        for lateral, refine in zip(reversed(grids[:-1]), list(reversed(self.refines))[1:], strict=True):
            side = min(lateral.shape[-1], self.side)
            grid = refine(_resized(grid, side) + _resized(lateral, side))
        return self.norm(self.out(self.fine(_resized(grid, self.side))))


def _averaged(grid: torch.Tensor, side: int) -> torch.Tensor:
    """Means over ``side`` x ``side`` parts of a grid."""
    # By what has the same gradient every time, on a GPU too, which adaptive pooling has not; and pooling sums a whole
    # picture's cells one after another.
    cells = grid.shape[-1]
    if cells % side == 0:
        return grid.unflatten(-1, (side, -1)).unflatten(-3, (side, -1)).mean((-3, -1))
    place, part = (torch.arange(count, device=grid.device) for count in (cells, side))
    first, end = part * cells // side, ((part + 1) * cells + side - 1) // side
    inside = ((place >= first[:, None]) & (place < end[:, None])).to(grid.dtype)
    means = inside / inside.sum(1, keepdim=True)
    return means @ grid @ means.T


def _resized(grid: torch.Tensor, side: int) -> torch.Tensor:
    if grid.shape[-1] == side:
        return grid
    smaller = side < grid.shape[-1]
    return F.interpolate(grid, (side, side), mode="bilinear", align_corners=False, antialias=smaller)
