"""The three vision sources. The only place that knows encoder layers by number.

A source takes the square images of the encoders that it runs and returns one `Encoding`, which the
language model and the mask decoder both read:

- `VlmVision`: the VLM's tower, once; a bridge makes SAM's embedding of its features;
- `SamVision`: SAM's encoder, once; a bridge makes the VLM's patch tokens of its features;
- `DualVision`: both encoders, as in the original LISA. The baseline.

Shapes: B images, P patch tokens, Dv the tower's width, C and h = w channels and side of SAM's embedding.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.model.bridge import BRIDGES, default_layers

__all__ = ["DualVision", "Encoding", "SamVision", "VisionSource", "VlmTower", "VlmVision"]


class Encoding(NamedTuple):
    """What one look at the images gives."""

    tokens: torch.Tensor
    """(B, P, Dv * number of feature layers): what the VLM's projector reads."""
    embedding: torch.Tensor
    """float32 (B, C, h, w): what SAM's mask decoder reads."""


class VisionSource(nn.Module):
    """Square images in, an `Encoding` out."""

    reads_vlm_pixels = False
    reads_sam_pixels = False

    def forward(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Encoding:
        """Args: float32 (B, 3, S, S) of each encoder that the source runs, None for the other."""
        raise NotImplementedError


def absolute_layers(layers: Sequence[int], depth: int, flag: str) -> tuple[int, ...]:
    """Indices into an encoder's hidden states (0 = the patch embedding, ``depth`` = the last layer)."""
    wrong = [layer for layer in layers if not -depth - 1 <= layer <= depth]
    if wrong:
        raise ConfigError(f"{flag} names layer {wrong[0]}; this encoder has hidden states 0 to {depth}")
    absolute = tuple(layer % (depth + 1) for layer in layers)
    if len(set(absolute)) < len(absolute):
        raise ConfigError(
            f"{flag} names a layer twice: {', '.join(map(str, layers))} of hidden states 0 to {depth}"
        )
    return absolute


class VlmTower(nn.Module):
    """A CLIP-like tower that gives up its hidden states in one pass. Other kinds of tower derive from it
    (`families.assembled.StageTower`): they set the attributes below and override `read`.

    Attributes: ``tower``, the encoder; ``depth``, its last hidden state; ``widths``, Dv of each hidden state;
    ``feature_layers``, those that the projector reads; ``trains``, whether it gets gradients.

    Args:
        tower: ``LlavaForConditionalGeneration.model.vision_tower``.
        feature_layers: of the VLM's configuration: hidden states that its projector reads.
        strategy: ``default`` drops the first token, ``full`` keeps it.
        class_tokens: tokens before the patches.
    """

    def __init__(self, tower: Any, feature_layers: Sequence[int], strategy: str, class_tokens: int) -> None:
        super().__init__()
        if strategy not in ("default", "full"):
            raise ModelLoadError(
                f"vision_feature_select_strategy {strategy!r} is neither 'default' nor 'full'"
            )
        self.tower = tower.requires_grad_(False)
        self.trains = False
        self.depth = int(tower.config.num_hidden_layers)
        self.widths: tuple[int, ...] = (int(tower.config.hidden_size),) * (self.depth + 1)
        self.feature_layers = absolute_layers(feature_layers, self.depth, "vision_feature_layer")
        self.first_read = 0 if strategy == "full" else 1
        self.class_tokens = class_tokens

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = next(self.tower.parameters()).dtype
        return dtype

    @property
    def bridge_layers(self) -> dict[str, tuple[int, ...]]:
        """Name of a bridge -> the layers that it reads where the configuration leaves it open."""
        return {name: default_layers(name, max(self.feature_layers)) for name in BRIDGES}

    def forward(self, pixels: torch.Tensor, layers: Sequence[int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """One pass: the tokens for the projector, and the patch features (B, P, Dv) of ``layers``."""
        with torch.set_grad_enabled(self.trains and torch.is_grad_enabled()):
            return self.read(pixels.to(self.dtype), layers)

    def read(self, pixels: torch.Tensor, layers: Sequence[int]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """`forward`, for pixels in the tower's precision."""
        states = self.tower(pixels, output_hidden_states=True).hidden_states
        tokens = torch.cat([states[layer] for layer in self.feature_layers], dim=-1)
        return tokens[:, self.first_read :], [states[layer][:, self.class_tokens :] for layer in layers]


class VlmVision(VisionSource):
    """The VLM's tower sees the image; the bridge tells the mask decoder what it saw."""

    reads_vlm_pixels = True

    def __init__(self, tower: VlmTower, bridge: nn.Module, bridge_layers: Sequence[int]) -> None:
        super().__init__()
        self.encoder: VlmTower = tower
        self.bridge = bridge
        self.bridge_layers = absolute_layers(bridge_layers, tower.depth, "--bridge_layers")

    def forward(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Encoding:
        assert vlm_pixels is not None
        tokens, features = self.encoder(vlm_pixels, self.bridge_layers)
        return Encoding(tokens, self.bridge([x.float() for x in features]))


class SamVision(VisionSource):
    """SAM's encoder sees the image; the bridge tells the language model what it saw."""

    reads_sam_pixels = True

    def __init__(self, encoder: Any, bridge: nn.Module) -> None:
        super().__init__()
        self.dtype: torch.dtype = encoder.dtype
        self.encoder = encoder.requires_grad_(False)
        self.bridge = bridge

    def forward(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Encoding:
        assert sam_pixels is not None
        with torch.no_grad():
            out = self.encoder(sam_pixels.to(self.dtype), output_hidden_states=True)
        embedding = out.last_hidden_state.float()
        return Encoding(self.bridge(out.hidden_states[-1].float(), embedding), embedding)


class DualVision(VisionSource):
    """Both encoders see the image, as in the original LISA."""

    reads_vlm_pixels = True
    reads_sam_pixels = True

    def __init__(self, tower: VlmTower, encoder: Any) -> None:
        super().__init__()
        self.dtype: torch.dtype = encoder.dtype
        self.encoder: VlmTower = tower
        self.sam_encoder = encoder.requires_grad_(False)

    def forward(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Encoding:
        assert vlm_pixels is not None
        assert sam_pixels is not None
        tokens, _ = self.encoder(vlm_pixels, ())
        with torch.no_grad():
            embedding = self.sam_encoder(sam_pixels.to(self.dtype)).last_hidden_state
        return Encoding(tokens, embedding.float())
