"""Sizes of the published models that can be built without their files, from their public configurations."""

from pathlib import Path
from typing import Any

from modified_lisa.errors import ModelLoadError
from modified_lisa.model.sources import read_config, resolve_name

__all__ = ["KNOWN_SAMS", "KNOWN_VLMS", "sizes_of"]

# Language model: width, layers, heads, width of the MLP (LLaVA-1.5, Liu et al. 2023b, on Vicuna-1.5).
KNOWN_VLMS = {
    "llava-hf/llava-1.5-7b-hf": (4096, 32, 32, 11008),
    "llava-hf/llava-1.5-13b-hf": (5120, 40, 40, 13824),
}
# Encoder: width, layers, heads, layers with global attention (SAM, Kirillov et al. 2023).
KNOWN_SAMS = {
    "facebook/sam-vit-base": (768, 12, 12, (2, 5, 8, 11)),
    "facebook/sam-vit-large": (1024, 24, 16, (5, 11, 17, 23)),
    "facebook/sam-vit-huge": (1280, 32, 16, (7, 15, 23, 31)),
}

_OWN = {"llava": ("tokenizer.json", "tokenizer_config.json"), "sam": ("preprocessor_config.json",)}
"""Files that a folder has when it does not need the bundled stand-ins."""


def sizes_of(name: str, flag: str, kind: str) -> tuple[str, Any]:
    """As `read_config`, for a model without weights: where its tokenizer is read from, and its configuration.

    The bundled model's tokenizer and image statistics stand in where ``name`` has none of its own; the
    configuration's special tokens are then the bundled ones.

    Args:
        name: one of `KNOWN_VLMS` or `KNOWN_SAMS`, a folder with a ``config.json``, or ``tiny``. No hub is asked.
        flag: ``--vlm_name`` or ``--sam_name``, for messages.
        kind: ``llava`` or ``sam``.

    Raises ModelLoadError for a name that is none of these, or a folder with another kind of model.
    """
    known: dict[str, Any] = dict(KNOWN_VLMS if kind == "llava" else KNOWN_SAMS)
    part = flag.removeprefix("--").removesuffix("_name")
    bundled = resolve_name("tiny", part)
    if name in known:
        source, config = bundled, known_config(name, kind)
    elif Path(resolve_name(name, part)).is_dir():
        source, config = read_config(name, flag, kind)
        if not any((Path(source) / file).is_file() for file in _OWN[kind]):
            source = bundled
    else:
        raise ModelLoadError(
            f"{flag} {name}: its sizes are not known here, so it cannot be built with random weights; give a folder "
            f"with its config.json, or one of {', '.join([*known, 'tiny'])}"
        )
    if kind == "llava" and source == bundled:
        _use_bundled_tokenizer(config)
    return source, config


def known_config(name: str, kind: str) -> Any:
    """The configuration of a name in `KNOWN_VLMS` or `KNOWN_SAMS`."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, SamConfig, SamVisionConfig

    if kind == "sam":
        width, layers, heads, global_layers = KNOWN_SAMS[name]
        encoder = SamVisionConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            global_attn_indexes=list(global_layers),
        )
        return SamConfig(vision_config=encoder)  # the rest of every published SAM is transformers' default
    width, layers, heads, mlp = KNOWN_VLMS[name]
    vision = CLIPVisionConfig(  # CLIP ViT-L/14 at 336 pixels
        image_size=336,
        patch_size=14,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        projection_dim=768,
    )
    text = LlamaConfig(
        vocab_size=32064,  # 32000 of Vicuna, <image>, <pad>, and spare rows up to a multiple of 64
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=4096,
        rms_norm_eps=1e-5,
        tie_word_embeddings=False,
    )
    return LlavaConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        projector_hidden_act="gelu",
    )


def _use_bundled_tokenizer(config: Any) -> None:
    """Give ``config`` the special tokens of the bundled tokenizer."""
    bundled = read_config("tiny", "--vlm_name", "llava")[1]
    config.image_token_id = bundled.image_token_id
    for key in ("bos_token_id", "eos_token_id", "pad_token_id"):
        setattr(config.text_config, key, getattr(bundled.text_config, key))
