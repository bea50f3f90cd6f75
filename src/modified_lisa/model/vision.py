"""The three vision sources. The only place that knows encoder layers by number.

A source takes the square images of the encoders that it runs and returns one `Encoding`, which the
language model and the mask decoder both read. It does so in two parts: what never trains (``frozen``: the
encoders) makes features, which may be kept (`feature_cache`), and what may (``trained``: the bridge) makes
the encoding of them:

- `VlmVision`: the VLM's tower, once; a bridge makes SAM's embedding of its features;
- `SamVision`: SAM's encoder, once; a bridge makes the VLM's patch tokens of its features;
- `DualVision`: both encoders, as in the original LISA. The baseline.

Shapes: B images, P patch tokens, Dv the tower's width, C and h = w channels and side of SAM's embedding.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.model.blocks import to_grid
from modified_lisa.model.bridge import BRIDGES, default_layers
from modified_lisa.model.inputs import ModelInputs
from modified_lisa.model.skipping import skipped

__all__ = [
    "DualVision",
    "Encoding",
    "Features",
    "SamVision",
    "VisionSource",
    "VlmTower",
    "VlmVision",
    "absolute_layers",
]


class Encoding(NamedTuple):
    """What one look at the images gives."""

    tokens: torch.Tensor
    """(B, P, Dv * number of feature layers): what the VLM's projector reads."""
    embedding: torch.Tensor
    """float32 (B, C, h, w): what SAM's mask decoder reads."""


Features: TypeAlias = tuple[torch.Tensor, ...]
"""What the frozen part of a source makes of B images: (B, ...) each, in the encoders' precision."""


class VisionSource(nn.Module):
    """Square images in, an `Encoding` out: ``trained(frozen(...))``."""

    reads_vlm_pixels = False
    reads_sam_pixels = False

    def forward(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Encoding:
        """Args: float32 (B, 3, S, S) of each encoder that the source runs, None for the other."""
        return self.trained(self.frozen(vlm_pixels, sam_pixels))

    def encode(self, inputs: ModelInputs) -> Encoding:
        """`forward` of the texts' images, each once; of their features, if they have them."""
        encoding: Encoding
        if inputs.features is not None:
            encoding = self.trained(inputs.features)
        else:
            encoding = self(inputs.vlm_pixels, inputs.sam_pixels)
        if inputs.image_of is None:
            return encoding
        return Encoding(encoding.tokens[inputs.image_of], encoding.embedding[inputs.image_of])

    def frozen(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Features:
        """The encoders' part, which no training changes and no gradient enters (unless the tower trains, see
        `VlmTower`: then its features are not to be kept); arguments as ``forward``."""
        raise NotImplementedError

    def trained(self, features: Features) -> Encoding:
        """What follows: nothing for ``dual``, the bridge for the others."""
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
    (`families.assembled.StageTower`): they set the attributes below and override `states`,
    `tokens` and `patches`.

    Attributes: ``tower``, the encoder; ``depth``, its last hidden state; ``widths``, Dv of each hidden state;
    ``feature_layers``, those that the projector reads; ``trains``, whether it gets gradients.

    `see` changes the side of the square that it takes.

    Args:
        tower: ``LlavaForConditionalGeneration.model.vision_tower``.
        feature_layers: of the VLM's configuration: hidden states that its projector reads.
        strategy: ``default`` drops the first token, ``full`` keeps it.
        class_tokens: tokens before the patches.
    """

    read_side: int | None = None
    """Cells of the side of what the projector reads, where the tower sees another square than its own."""

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

    def see(self, side: int | None) -> Self:
        """Take squares of ``side`` pixels from now on (None: as it is); returns itself.

        Raises ConfigError for a side that has no whole patches.
        """
        if side is None:
            return self
        sizes = self.tower.config
        if side % sizes.patch_size or self.first_read > self.class_tokens:
            raise ConfigError(
                f"--image_side is {side}; this encoder needs a multiple of its patches of {sizes.patch_size} pixels, "
                "and a projector that reads all of them"
            )
        self.read_side = None if side == sizes.image_size else sizes.image_size // sizes.patch_size
        return self

    def forward(self, pixels: torch.Tensor, layers: Sequence[int]) -> Features:
        """One pass: the hidden states of ``layers``, with gradients only if the tower trains."""
        with torch.set_grad_enabled(self.trains and torch.is_grad_enabled()):
            return self.states(pixels.to(self.dtype), layers)

    def states(self, pixels: torch.Tensor, layers: Sequence[int]) -> Features:
        """`forward`, for pixels in the tower's precision: (B, class tokens + P, Dv) each."""
        more = {} if self.read_side is None else {"interpolate_pos_encoding": True}
        layers = [layer % (self.depth + 1) for layer in layers]
        encoder = getattr(getattr(self.tower, "vision_model", self.tower), "encoder", None)
        # The last layer's output is none that LLaVA's projector reads.
        with skipped(getattr(encoder, "layers", ())[max(layers) : self.depth]):
            states = self.tower(pixels, output_hidden_states=True, **more).hidden_states
        return tuple(states[layer] for layer in layers)

    def tokens(self, states: Mapping[int, torch.Tensor]) -> torch.Tensor:
        """What the projector reads, of the hidden states by layer; `feature_layers` must be among them."""
        read = torch.cat([states[layer] for layer in self.feature_layers], dim=-1)[:, self.first_read :]
        if self.read_side is None:
            return read
        kept, patches = read.split_with_sizes(
            (self.class_tokens - self.first_read, read.shape[1] - self.class_tokens + self.first_read), dim=1
        )
        pooled = F.adaptive_avg_pool2d(to_grid(patches.float()), self.read_side)
        return torch.cat((kept, pooled.flatten(2).transpose(1, 2).to(read.dtype)), dim=1)

    def patches(self, state: torch.Tensor) -> torch.Tensor:
        """The patch features (B, P, Dv) of a hidden state, which a bridge reads."""
        return state[:, self.class_tokens :]


class VlmVision(VisionSource):
    """The VLM's tower sees the image; the bridge tells the mask decoder what it saw.

    Features: the hidden states of ``layers``, those of the projector and of the bridge, each once; and the pixels, if
    the bridge reads them.
    """

    reads_vlm_pixels = True

    def __init__(self, tower: VlmTower, bridge: nn.Module, bridge_layers: Sequence[int]) -> None:
        super().__init__()
        self.encoder: VlmTower = tower
        self.bridge = bridge
        self.bridge_layers = absolute_layers(bridge_layers, tower.depth, "--bridge_layers")
        self.layers = tuple(sorted({*tower.feature_layers, *self.bridge_layers}))
        self.bridge_reads_pixels: bool = getattr(bridge, "reads_pixels", False)

    def frozen(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Features:
        assert vlm_pixels is not None
        states: Features = self.encoder(vlm_pixels, self.layers)
        return (*states, vlm_pixels.to(self.encoder.dtype)) if self.bridge_reads_pixels else states

    def trained(self, features: Features) -> Encoding:
        states = dict(zip(self.layers, features, strict=False))
        return Encoding(self.encoder.tokens(states), self.embedding(features))

    def embedding(self, features: Features) -> torch.Tensor:
        """Only what the mask decoder reads, float32 (B, C, h, w)."""
        states = dict(zip(self.layers, features, strict=False))
        read = [self.encoder.patches(states[layer]).float() for layer in self.bridge_layers]
        more = (features[-1].float(),) if self.bridge_reads_pixels else ()
        embedding: torch.Tensor = self.bridge(read, *more)
        return embedding


class SamVision(VisionSource):
    """SAM's encoder sees the image; the bridge tells the language model what it saw.

    Features: the deepest hidden state (B, h, w, Ds), and SAM's embedding (B, C, h, w).
    """

    reads_sam_pixels = True

    def __init__(self, encoder: Any, bridge: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder.requires_grad_(False)
        self.bridge = bridge

    @torch.no_grad()
    def frozen(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Features:
        assert sam_pixels is not None
        deepest: list[torch.Tensor] = []
        # Not by output_hidden_states: that keeps all of them, through hooks that cut compiled layers in two.
        hook = self.encoder.neck.register_forward_pre_hook(lambda _, given: deepest.append(given[0]))
        try:
            embedding = self.encoder(sam_pixels.to(self.encoder.dtype)).last_hidden_state
        finally:
            hook.remove()
        return deepest[-1], embedding

    def trained(self, features: Features) -> Encoding:
        hidden, embedding = (x.float() for x in features)
        return Encoding(self.bridge(hidden, embedding), embedding)


class DualVision(VisionSource):
    """Both encoders see the image, as in the original LISA.

    Features: the hidden states of the projector's layers, and SAM's embedding (B, C, h, w).
    """

    reads_vlm_pixels = True
    reads_sam_pixels = True

    def __init__(self, tower: VlmTower, encoder: Any) -> None:
        super().__init__()
        self.encoder: VlmTower = tower
        self.sam_encoder = encoder.requires_grad_(False)

    def frozen(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Features:
        assert vlm_pixels is not None
        assert sam_pixels is not None
        with torch.no_grad():
            embedding = self.sam_encoder(sam_pixels.to(self.sam_encoder.dtype)).last_hidden_state
        return *self.encoder(vlm_pixels, self.encoder.feature_layers), embedding

    def trained(self, features: Features) -> Encoding:
        *states, embedding = features
        tokens = self.encoder.tokens(dict(zip(self.encoder.feature_layers, states, strict=True)))
        return Encoding(tokens, embedding.float())
