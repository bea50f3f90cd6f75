"""LLaVA-1.5 and its kin (Liu et al. 2023): a CLIP or SigLIP tower, a two-layer projector, a Llama."""

from typing import Any

from modified_lisa.model.families import Family
from modified_lisa.model.sources import class_tokens
from modified_lisa.model.vision import VlmTower

__all__ = ["FAMILY"]


def _model_class() -> Any:
    from transformers import LlavaForConditionalGeneration

    return LlavaForConditionalGeneration


def _tokenizer(source: str) -> tuple[Any, str | None]:
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(source)
    return processor.tokenizer, processor.chat_template or processor.tokenizer.chat_template


def _side(config: Any) -> int:
    return int(config.vision_config.image_size) // int(config.vision_config.patch_size)


def _image_tokens(config: Any) -> int:
    # "default" drops the first token, be it a class token or, as SigLIP has none, a patch.
    dropped = config.vision_feature_select_strategy == "default"
    return _side(config) ** 2 + class_tokens(config.vision_config) - dropped


def _projector_input(config: Any) -> tuple[int, int]:
    layers = config.vision_feature_layer
    return _side(config), int(config.vision_config.hidden_size) * (
        1 if isinstance(layers, int) else len(layers)
    )


def _tower(vlm: Any) -> VlmTower:
    layer = vlm.config.vision_feature_layer
    layers = [layer] if isinstance(layer, int) else list(layer)
    strategy = vlm.config.vision_feature_select_strategy
    return VlmTower(vlm.model.vision_tower, layers, strategy, class_tokens(vlm.config.vision_config))


FAMILY = Family(_model_class, _tokenizer, _image_tokens, _projector_input, _tower)
