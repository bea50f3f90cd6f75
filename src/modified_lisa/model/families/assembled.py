"""A VLM assembled from a convolutional ImageNet encoder and a small language model.

For experiments without a published VLM at hand: `save_assembled` writes the folder, ``--vlm_name FOLDER`` reads
it. The encoder's hidden states are grids of several resolutions (`StageTower`), which the ``fpn`` bridge reads;
the deepest, averaged to ``token_side`` x ``token_side`` cells, goes through a two-layer projector to the language
model. The projector starts random: train it.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, LlamaConfig, PreTrainedConfig, PreTrainedModel

from modified_lisa.errors import ConfigError
from modified_lisa.files import write_json
from modified_lisa.model.blocks import to_grid
from modified_lisa.model.families import Family
from modified_lisa.model.families.efficientnet import EfficientNetLite, LiteSizes
from modified_lisa.model.vision import Features, VlmTower

__all__ = ["FAMILY", "AssembledConfig", "AssembledVlm", "StageTower", "save_assembled"]


class AssembledConfig(PreTrainedConfig):
    """``config.json`` of an assembled VLM. ``image_size``: pixels of the encoder's square, a multiple of 32."""

    model_type = "assembled_vlm"

    def __init__(
        self,
        text_config: dict[str, Any] | None = None,
        image_size: int = 512,
        token_side: int = 8,
        encoder_width: float = 1.1,
        encoder_depth: float = 1.2,
        image_token_id: int = 0,
        **options: Any,
    ) -> None:
        self.text_config = LlamaConfig(**(text_config or {}))
        self.image_size = image_size
        self.token_side = token_side
        self.encoder_width = encoder_width
        self.encoder_depth = encoder_depth
        self.image_token_id = image_token_id
        options.setdefault("tie_word_embeddings", self.text_config.tie_word_embeddings)
        super().__init__(**options)

    @property
    def vision_config(self) -> "AssembledConfig":
        """What the loaders ask of every VLM: ``image_size``."""
        return self

    @property
    def encoder(self) -> LiteSizes:
        return LiteSizes(self.encoder_width, self.encoder_depth)

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = super().to_dict()
        values["text_config"] = self.text_config.to_dict()
        return values


class _Projector(nn.Module):
    """(B, P, Dv) -> (B, P, Dl)."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear_1 = nn.Linear(width, out)
        self.linear_2 = nn.Linear(out, out)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.linear_2(F.gelu(self.linear_1(self.norm(tokens))))


class _Parts(nn.Module):
    def __init__(self, config: AssembledConfig) -> None:
        super().__init__()
        self.vision_tower = EfficientNetLite(config.encoder)
        self.multi_modal_projector = _Projector(config.encoder.widths[-1], config.text_config.hidden_size)
        self.language_model = AutoModel.from_config(config.text_config)


class AssembledVlm(PreTrainedModel):
    """The parts under the names that LLaVA gives them. It has no forward pass: `ModifiedLISA` uses the parts."""

    config_class = AssembledConfig
    base_model_prefix = "model"
    _tied_weights_keys: ClassVar = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: AssembledConfig) -> None:
        super().__init__(config)
        self.model = _Parts(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        embedding: nn.Module = self.model.language_model.get_input_embeddings()
        return embedding

    def get_output_embeddings(self) -> nn.Module | None:
        return self.lm_head


class StageTower(VlmTower):
    """A convolutional encoder: hidden states are its stages, each on a grid of its own, finest first.

    Args:
        encoder: pixels (B, 3, S, S) -> grids (B, D_l, p_l, p_l); ``widths`` names the D_l.
        token_side: cells of the side of what the projector reads, averaged from the deepest stage.
    """

    def __init__(self, encoder: EfficientNetLite, token_side: int) -> None:
        nn.Module.__init__(self)
        self.tower = encoder.requires_grad_(False)
        self.trains = False
        self.widths = encoder.widths
        self.depth = len(encoder.widths) - 1
        self.feature_layers = (self.depth,)
        self.token_side = token_side

    @property
    def bridge_layers(self) -> dict[str, tuple[int, ...]]:
        return {"fpn": tuple(range(1, self.depth + 1))}

    def see(self, side: int | None) -> Self:
        if side is None:
            return self
        raise ConfigError(
            "--image_side is for encoders with interpolated positions; this VLM's is convolutional"
        )

    def states(self, pixels: torch.Tensor, layers: Sequence[int]) -> Features:
        """Features (B, P_l, D_l) of every layer on its own square grid, in row order."""
        states = self.tower(pixels)
        return tuple(_rows(states[layer]) for layer in layers)

    def tokens(self, states: Mapping[int, torch.Tensor]) -> torch.Tensor:
        grid = to_grid(states[self.depth])
        return _rows(F.adaptive_avg_pool2d(grid.float(), self.token_side).to(grid.dtype))

    def patches(self, state: torch.Tensor) -> torch.Tensor:
        return state


def _rows(grid: torch.Tensor) -> torch.Tensor:
    return grid.flatten(2).transpose(1, 2)


def save_assembled(
    folder: str | os.PathLike[str],
    config: AssembledConfig,
    tokenizer: Any,
    *,
    encoder: dict[str, torch.Tensor] | None = None,
    language_model: dict[str, torch.Tensor] | None = None,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write an assembled VLM as a folder in Hugging Face's layout; parts that are not given are random.

    Args:
        tokenizer: with an image token of the id that ``config`` names, and a chat template that places it.
        encoder, language_model: state dicts of `EfficientNetLite` and of transformers' base model.
        mean, std: of the encoder's pixels in 0..1.

    Raises RuntimeError for weights that do not fit (PyTorch's).
    """
    folder = Path(folder)
    vlm = AssembledVlm(config)
    if encoder is not None:
        vlm.model.vision_tower.load_state_dict(encoder)
    if language_model is not None:
        vlm.model.language_model.load_state_dict(language_model)
    vlm.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    side = {"height": config.image_size, "width": config.image_size}
    write_json(
        folder / "preprocessor_config.json",
        {"size": side, "image_mean": list(mean), "image_std": list(std)},
    )
    return folder


def _tokenizer(source: str) -> tuple[Any, str | None]:
    tokenizer = AutoTokenizer.from_pretrained(source)
    return tokenizer, tokenizer.chat_template


def _tower(vlm: Any) -> VlmTower:
    return StageTower(vlm.model.vision_tower, int(vlm.config.token_side))


AutoConfig.register(AssembledConfig.model_type, AssembledConfig, exist_ok=True)
FAMILY = Family(
    lambda: AssembledVlm,
    _tokenizer,
    lambda config: int(config.token_side) ** 2,
    lambda config: (int(config.token_side), int(config.encoder.widths[-1])),
    _tower,
)
