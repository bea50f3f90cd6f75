"""Bridges between the two worlds of features.

- `fpn.FpnBridge` (the default), `pyramid.PyramidBridge`, `stem.StemBridge` (which sees the pixels too), `LinearBridge`: a
  VLM encoder's patch features -> the image embedding of SAM's decoder;
- `TokenBridge`: SAM's features -> the patch tokens that the VLM's projector expects.

Shapes: B images, L layers, P = p*p patches (24*24 for CLIP-L/14 at 336), Dv the encoder's width, C the
channels of SAM's embedding (256), h = w its side (64). All bridges are trained, and so fp32.

To compare another design, write a module with the signature of `LinearBridge`, name it in `BRIDGES` here
and in `config.BRIDGES`, and give ``--bridge NAME``.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from modified_lisa.errors import ConfigError
from modified_lisa.model.blocks import to_grid
from modified_lisa.model.fpn import FpnBridge
from modified_lisa.model.pyramid import PyramidBridge
from modified_lisa.model.stem import StemBridge

__all__ = ["BRIDGES", "LinearBridge", "TokenBridge", "default_layers", "make_bridge"]


def default_layers(bridge: str, feature_layer: int) -> tuple[int, ...]:
    """Hidden states that a bridge reads where the configuration leaves it open.

    Args:
        feature_layer: the one that the language model reads, as an absolute index (23 of CLIP-L's 24).

    All but ``linear`` add evenly spaced shallower layers: deep ones know what, shallow ones know where.
    """
    if bridge == "linear":
        return (feature_layer,)
    return tuple(sorted({max(1, round(feature_layer * share)) for share in (0.25, 0.5, 0.75, 1.0)}))


class LinearBridge(nn.Module):
    """The plain one: layers side by side, one linear map, bilinear to SAM's grid. A baseline."""

    def __init__(self, layers: int, width: int, channels: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.project = nn.Linear(layers * width, channels)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        """L tensors (B, P, Dv) -> (B, C, side, side)."""
        joined = torch.cat([norm(x) for norm, x in zip(self.norms, features, strict=True)], dim=-1)
        grid = to_grid(self.project(joined))
        return F.interpolate(grid, (self.side, self.side), mode="bilinear", align_corners=False)


class TokenBridge(nn.Module):
    """SAM's features as the patch tokens of the VLM's encoder.

    Takes the deepest hidden state (B, h, w, Ds) and the embedding (B, C, h, w) of SAM's encoder, averages
    each over the cells of the p x p grid, and projects both to (B, P, Dv). The values end normalised with a
    trained scale, because the frozen projector behind it was trained on one scale only.
    """

    def __init__(self, width: int, channels: int, patches: int, out_width: int) -> None:
        super().__init__()
        self.side = math.isqrt(patches)
        self.norm_hidden = nn.LayerNorm(width)
        self.norm_embedding = nn.LayerNorm(channels)
        self.expand = nn.Linear(width + channels, out_width)
        self.mix = nn.Sequential(
            nn.LayerNorm(out_width),
            nn.Linear(out_width, out_width),
            nn.GELU(),
            nn.Linear(out_width, out_width),
        )
        self.norm = nn.LayerNorm(out_width)

    def forward(self, hidden: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """-> (B, P, Dv), patches in row order."""
        pooled = [F.adaptive_avg_pool2d(x, self.side) for x in (hidden.permute(0, 3, 1, 2), embedding)]
        tokens, from_neck = (x.flatten(2).transpose(1, 2) for x in pooled)
        joined = self.expand(torch.cat((self.norm_hidden(tokens), self.norm_embedding(from_neck)), dim=-1))
        return self.norm(joined + self.mix(joined))


BRIDGES: dict[str, Any] = {
    "fpn": FpnBridge,
    "pyramid": PyramidBridge,
    "stem": StemBridge,
    "linear": LinearBridge,
}


def make_bridge(
    name: str, widths: Sequence[int], layers: Sequence[int] | None, channels: int, side: int
) -> nn.Module:
    """The bridge ``name`` for these layers.

    Args:
        widths: Dv of all hidden states of the encoder.
        layers: those that the bridge reads; None where the encoder has none for this bridge.

    Raises ConfigError for an encoder whose layers differ in resolution, and a bridge that wants one; for layers that
    ``fpn`` would read from deep to shallow.
    """
    if (len(set(widths)) > 1 and name != "fpn") or layers is None:
        raise ConfigError(
            f"--bridge {name} reads layers of one width and resolution, and those of this VLM's encoder differ; "
            "use --bridge fpn"
        )
    if name == "fpn":
        if list(layers) != sorted(layers):
            raise ConfigError(
                f"--bridge_layers names the hidden states {', '.join(map(str, layers))}; --bridge fpn reads them from "
                "shallow to deep: name them in this order"
            )
        return FpnBridge([widths[layer] for layer in layers], channels, side)
    bridge: nn.Module = BRIDGES[name](len(layers), widths[0], channels, side)
    return bridge
