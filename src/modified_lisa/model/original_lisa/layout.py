"""Sizes: the original's ``config.json`` and the shapes of its tensors -> transformers' configurations.

Nothing is tuned to one checkpoint. What neither file nor shape tells is a constant of the original's code: SAM's
mask decoder has 8 heads, at least 2 layers and its LayerNorms' epsilon; there are 4 kinds of point. Where a tensor is missing, the published size stands
in, so that the check of the keys can name all that is wrong at once.
"""

import re
from collections.abc import Mapping
from typing import Any

from modified_lisa.errors import ModelLoadError

__all__ = [
    "is_original_config",
    "llava_config",
    "projector_layers",
    "sam_config",
    "uses_start_end",
    "vision_tower_name",
    "vocabulary_rows",
]

Shapes = Mapping[str, tuple[int, ...]]

_SAM = "model.visual_model."
_PUBLISHED = {
    "grid": 64, "width": 1280, "patch": 16, "head": 80, "relative": 27, "mlp": 5120,
    "channels": 256, "inner": 128, "decoder_mlp": 2048, "masks": 4, "mask": 16,
}  # fmt: skip


def is_original_config(values: object) -> bool:
    """Whether a ``config.json`` is of the original LISA's layout: a LLaMA's fields beside ``mm_*`` ones."""
    return (
        isinstance(values, dict)
        and "text_config" not in values
        and "hidden_size" in values
        and vision_tower_name(values) is not None
    )


def vision_tower_name(values: Mapping[str, Any]) -> str | None:
    """The CLIP that the configuration names."""
    name = values.get("mm_vision_tower") or values.get("vision_tower")
    return name if isinstance(name, str) and name.strip() else None


def uses_start_end(values: Mapping[str, Any]) -> bool:
    """Whether ``<im_start>`` and ``<im_end>`` stand around the image."""
    return bool(values.get("mm_use_im_start_end", True))


def vocabulary_rows(values: Mapping[str, Any]) -> int:
    """Rows of the embedding."""
    return int(values["vocab_size"])


def projector_layers(shapes: Shapes) -> int:
    """1: LLaVA-v1's single linear layer; 2: LLaVA-1.5's two."""
    return 2 if any(name.startswith("model.mm_projector.0.") for name in shapes) else 1


def llava_config(values: Mapping[str, Any], shapes: Shapes, vision: Any) -> Any:
    """A ``LlavaConfig``. Args: the original's configuration, all shapes, the tower's ``CLIPVisionConfig``."""
    from transformers import LlamaConfig, LlavaConfig

    needed = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    if missing := [name for name in needed if not isinstance(values.get(name), int)]:
        raise ModelLoadError(f"the checkpoint's config.json has no number for {', '.join(missing)}")
    # Configurations saved by transformers 5 have one field for both.
    scaling = {**(values.get("rope_parameters") or {}), **(values.get("rope_scaling") or {})}
    theta = scaling.pop("rope_theta", 10000.0)
    kind = scaling.pop("type", scaling.pop("rope_type", "default"))
    vocabulary, padding = values["vocab_size"], values.get("pad_token_id")
    text = LlamaConfig(
        **{name: values[name] for name in needed},
        num_key_value_heads=values.get("num_key_value_heads") or values["num_attention_heads"],
        hidden_act=values.get("hidden_act", "silu"),
        max_position_embeddings=values.get("max_position_embeddings", 2048),
        rms_norm_eps=values.get("rms_norm_eps", 1e-6),
        rope_parameters={"rope_type": kind, "rope_theta": values.get("rope_theta", theta), **scaling},
        attention_bias=bool(values.get("attention_bias", False)),
        bos_token_id=values.get("bos_token_id", 1),
        eos_token_id=values.get("eos_token_id", 2),
        pad_token_id=padding if isinstance(padding, int) and 0 <= padding < vocabulary else None,
        tie_word_embeddings=False,
    )
    layers = projector_layers(shapes)
    strategies = {"patch": "default", "cls_patch": "full"}
    feature = values.get("mm_vision_select_feature", "patch")
    if feature not in strategies:
        raise ModelLoadError(
            f"mm_vision_select_feature is {feature!r} in the checkpoint's config.json; {', '.join(strategies)} are read"
        )
    layer, deepest = int(values.get("mm_vision_select_layer", -2)), vision.num_hidden_layers
    if not -deepest - 1 <= layer <= deepest:
        raise ModelLoadError(
            f"mm_vision_select_layer is {layer} in the checkpoint's config.json; its CLIP has the hidden states 0 to {deepest}"
        )
    return LlavaConfig(
        text_config=text,
        vision_config=vision,
        projector_hidden_act="linear" if layers == 1 else "gelu",
        multimodal_projector_bias=True,
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategies[feature],
        image_token_id=vocabulary,  # the first free one; its row is never looked up
        image_seq_length=(vision.image_size // vision.patch_size) ** 2 + (feature == "cls_patch"),
        tie_word_embeddings=False,
    )


def sam_config(shapes: Shapes) -> Any:
    """A ``SamConfig``, from the shapes of ``model.visual_model.*``."""
    from transformers import SamConfig, SamMaskDecoderConfig, SamPromptEncoderConfig, SamVisionConfig

    def size(default: str, *places: tuple[str, int]) -> int:
        """What most of the named tensors say, each by one axis; so that one that is wrong stands out as such."""
        found = [
            shape[axis]
            for pattern, axis in places
            for name, shape in sam.items()
            if axis < len(shape) and shape[axis] > 0 and re.fullmatch(pattern, name)
        ]
        return max(found, key=found.count) if found else _PUBLISHED[default]

    sam = {name.removeprefix(_SAM): shape for name, shape in shapes.items() if name.startswith(_SAM)}
    blocks, deep = r"image_encoder\.blocks\.\d+\.", r"mask_decoder\.transformer\.layers\.\d+\."
    width = size(
        "width",
        ("image_encoder.pos_embed", 3),
        ("image_encoder.patch_embed.proj.weight", 0),
        (f"{blocks}norm1.weight", 0),
    )
    patch = size(
        "patch", ("image_encoder.patch_embed.proj.weight", 2), ("image_encoder.patch_embed.proj.weight", 3)
    )
    head = size("head", (f"{blocks}attn.rel_pos_[hw]", 1))
    depth = _count(sam, r"image_encoder\.blocks\.(\d+)\.")
    # A layer's relative positions tell how far it looks: over the whole grid, or over a window of it.
    reach = [
        (size("relative", (rf"image_encoder\.blocks\.{layer}\.attn\.rel_pos_[hw]", 0)) + 1) // 2
        for layer in range(depth)
    ]
    grid = size("grid", ("image_encoder.pos_embed", 1), ("image_encoder.pos_embed", 2))
    windows = [side for side in reach if side != grid]
    one = r"prompt_encoder\.(?:no_mask_embed|not_a_point_embed|point_embeddings\.\d+)\.weight"
    channels = size("channels", (one, 1))
    decoder = size(
        "channels",
        (r"mask_decoder\.(?:iou_token|mask_tokens)\.weight", 1),
        (f"{deep}norm1.weight", 0),
        (one, 1),
    )
    inner = size("inner", (rf"(?:{deep}cross_|mask_decoder\.transformer\.final_).+\.[qkv]_proj\.weight", 0))
    tokens = r"mask_decoder\.mask_tokens\.weight"
    return SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=width,
            output_channels=size("channels", (r"image_encoder\.neck\.[123]\.weight", 0), (one, 1)),
            num_hidden_layers=depth,
            num_attention_heads=max(1, width // head),
            image_size=grid * patch,
            patch_size=patch,
            qkv_bias=any(name.endswith(".attn.qkv.bias") for name in sam),
            window_size=max(windows, key=windows.count) if windows else 14,
            global_attn_indexes=[layer for layer, side in enumerate(reach) if side == grid],
            num_pos_feats=channels // 2,
            mlp_dim=size("mlp", (f"{blocks}mlp.lin1.weight", 0)),
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=channels,
            image_size=grid * patch,
            patch_size=patch,
            mask_input_channels=size("mask", (r"prompt_encoder\.mask_downscaling\.[34]\.weight", 0)),
            num_point_embeddings=4,
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=decoder,
            mlp_dim=size("decoder_mlp", (f"{deep}mlp.lin1.weight", 0)),
            num_hidden_layers=max(2, _count(sam, r"mask_decoder\.transformer\.layers\.(\d+)\.")),
            num_attention_heads=8,
            attention_downsample_rate=max(1, decoder // inner),
            num_multimask_outputs=max(1, size("masks", (tokens, 0)) - 1),
            iou_head_depth=max(3, _count(sam, r"mask_decoder\.iou_prediction_head\.layers\.(\d+)\.")),
            iou_head_hidden_dim=size(
                "channels", (r"mask_decoder\.iou_prediction_head\.layers\.[01]\.weight", 0)
            ),
            # torch's default, as in segment-anything's decoder; transformers' own default is 1e-6.
            layer_norm_eps=1e-5,
        ),
    )


def _count(shapes: Shapes, pattern: str) -> int:
    """Numbered parts: the largest number of them that occurs, and one."""
    found = [int(m[1]) for name in shapes if (m := re.match(pattern, name))]
    return max(found) + 1 if found else 0
