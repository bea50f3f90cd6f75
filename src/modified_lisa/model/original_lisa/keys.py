"""Names: transformers' LLaVA and SAM -> the original LISA's, and -> those of published LLaVA files.

The original's SAM bears segment-anything's own names (Kirillov et al. 2023).
"""

import re

__all__ = [
    "CLIP",
    "DERIVED",
    "IDENTITY",
    "ZEROS",
    "clip_key",
    "sam_key",
    "seg_projection_key",
    "vlm_file_key",
    "vlm_key",
]

CLIP = "model.vision_tower.vision_tower."
"""Before the names of a tower that is in the checkpoint; without it in the tower's own files."""

IDENTITY, ZEROS = "(identity)", "(zeros)"
"""Instead of a name: a matrix that changes nothing, a bias that adds nothing."""

DERIVED = re.compile(r"rotary_emb\.inv_freq$|embeddings\.position_ids$")
"""Keys that old files hold and that follow from the configuration."""

_SAM = [
    (r"^shared_image_embedding\.positional_embedding$", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^prompt_encoder\.shared_embedding\.positional_embedding$", "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"),
    (r"^prompt_encoder\.point_embed\.", "prompt_encoder.point_embeddings."),
    (r"\.mask_embed\.conv1\.", ".mask_downscaling.0."),
    (r"\.mask_embed\.layer_norm1\.", ".mask_downscaling.1."),
    (r"\.mask_embed\.conv2\.", ".mask_downscaling.3."),
    (r"\.mask_embed\.layer_norm2\.", ".mask_downscaling.4."),
    (r"\.mask_embed\.conv3\.", ".mask_downscaling.6."),
    (r"^vision_encoder\.layers\.", "image_encoder.blocks."),
    (r"^vision_encoder\.", "image_encoder."),
    (r"\.patch_embed\.projection\.", ".patch_embed.proj."),
    (r"\.neck\.conv1\.", ".neck.0."),
    (r"\.neck\.layer_norm1\.", ".neck.1."),
    (r"\.neck\.conv2\.", ".neck.2."),
    (r"\.neck\.layer_norm2\.", ".neck.3."),
    (r"\.upscale_conv1\.", ".output_upscaling.0."),
    (r"\.upscale_layer_norm\.", ".output_upscaling.1."),
    (r"\.upscale_conv2\.", ".output_upscaling.3."),
    (r"\.layer_norm", ".norm"),
]  # fmt: skip


def sam_key(name: str, iou_head_depth: int = 3) -> str:
    """``SamModel``'s name of a weight -> the original LISA's."""
    # transformers calls the first and the last layer of a small MLP by their own names.
    if found := re.match(
        r"(mask_decoder\.(?:iou_prediction_head|output_hypernetworks_mlps\.\d+))\.(.+)\.(\w+)$", name
    ):
        head, layer, kind = found.groups()
        depth = iou_head_depth if head.endswith("iou_prediction_head") else 3
        number = {"proj_in": 0, "proj_out": depth - 1}.get(layer)
        if number is None:
            number = int(layer.removeprefix("layers.")) + 1
        return f"model.visual_model.{head}.layers.{number}.{kind}"
    for pattern, replacement in _SAM:
        name = re.sub(pattern, replacement, name)
    return f"model.visual_model.{name}"


def clip_key(name: str) -> str | None:
    """``vision_model...`` for a weight of the tower of ``LlavaForConditionalGeneration``; None: not of it."""
    found = re.match(r"(?:model\.)?vision_tower\.(?:vision_model\.)?(.+)$", name)
    return f"vision_model.{found[1]}" if found else None


def vlm_key(name: str, projector_layers: int) -> str:
    """``LlavaForConditionalGeneration``'s name -> the original LISA's, for all but the tower.

    LLaVA-v1's projector is one linear layer. transformers' has two and a function between them: the second
    becomes the identity, and so does the function (``projector_hidden_act`` ``linear``).
    """
    if found := re.match(r"(?:model\.)?multi_modal_projector\.linear_(\d)\.(\w+)$", name):
        number, kind = int(found[1]) - 1, found[2]
        if projector_layers == 1:
            return f"model.mm_projector.{kind}" if number == 0 else IDENTITY if kind == "weight" else ZEROS
        return f"model.mm_projector.{2 * number}.{kind}"
    return re.sub(r"^(?:model\.)?language_model\.", "model.", name)


def vlm_file_key(name: str) -> str:
    """``LlavaForConditionalGeneration``'s name -> that of published LLaVA files, which every version reads."""
    if (tower := clip_key(name)) is not None:
        return f"vision_tower.{tower}"
    if name.startswith("lm_head."):
        return f"language_model.{name}"
    return re.sub(r"^model\.language_model\.", "language_model.model.", name).removeprefix("model.")


def seg_projection_key(name: str) -> str:
    """``seg_projection.2.bias`` -> the original's name."""
    return name.replace("seg_projection.", "model.text_hidden_fcs.0.", 1)
