"""Small models of the real shapes: a LLaVA with a tokenizer of its own, and a SAM, with random weights.

`scripts/tiny_models/build.py` trains the bundled ones from these; the tests make smaller ones from the same
functions. Both are saved in Hugging Face's layout, and loaded by the same code as the full-size models.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

__all__ = [
    "CHAT_TEMPLATE",
    "SamSizes",
    "VlmSizes",
    "build_sam",
    "build_tokenizer",
    "build_vlm",
    "save_sam",
    "save_vlm",
]

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] | upper }}: "
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}ASSISTANT: {% endif %}"
)
"""LLaVA-1.5's, for the roles and parts that this package uses."""

_SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
_CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
_CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


@dataclass(frozen=True, kw_only=True)
class VlmSizes:
    """Sizes of a LLaVA. The defaults are the bundled model's."""

    image_size: int = 336
    patch_size: int = 14
    vision_width: int = 192
    vision_layers: int = 6
    vision_heads: int = 6
    width: int = 256
    layers: int = 6
    heads: int = 4
    mlp: int = 704
    spare_rows: int = 8
    """Rows of the embeddings beyond the tokenizer's, as LLaVA-1.5's padded vocabulary has."""


@dataclass(frozen=True, kw_only=True)
class SamSizes:
    """Sizes of a SAM with a 64 x 64 embedding. The defaults are the bundled model's."""

    image_size: int = 512
    patch_size: int = 8
    width: int = 128
    layers: int = 5
    heads: int = 4
    window: int = 8
    global_layers: tuple[int, ...] = ()
    channels: int = 128
    decoder_mlp: int = 256
    decoder_heads: int = 4


def build_tokenizer(texts: Iterable[str], vocabulary: int = 2048, *, lowercase: bool = False) -> Any:
    """A byte-level BPE tokenizer trained on ``texts``: any string can be encoded, none is unknown. With ``lowercase``, capitals
    are read as small letters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    if lowercase:
        core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=_SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    core.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", _SPECIAL.index("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=["<image>"],
        padding_side="right",
    )


def build_vlm(tokenizer: Any, sizes: VlmSizes | None = None, **changes: Any) -> Any:
    """A ``LlavaForConditionalGeneration`` with random weights; ``changes`` go into its ``LlavaConfig``."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    sizes = sizes or VlmSizes()
    vision = CLIPVisionConfig(
        image_size=sizes.image_size,
        patch_size=sizes.patch_size,
        hidden_size=sizes.vision_width,
        intermediate_size=4 * sizes.vision_width,
        num_hidden_layers=sizes.vision_layers,
        num_attention_heads=sizes.vision_heads,
        projection_dim=sizes.vision_width,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer) + sizes.spare_rows,
        hidden_size=sizes.width,
        intermediate_size=sizes.mlp,
        num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    settings: dict[str, Any] = {
        "image_token_id": tokenizer.convert_tokens_to_ids("<image>"),
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        **changes,
    }
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, **settings))


def build_sam(sizes: SamSizes | None = None) -> Any:
    """A ``SamModel`` with random weights."""
    from transformers import (
        SamConfig,
        SamMaskDecoderConfig,
        SamModel,
        SamPromptEncoderConfig,
        SamVisionConfig,
    )

    sizes = sizes or SamSizes()
    config = SamConfig(
        vision_config=SamVisionConfig(
            hidden_size=sizes.width,
            output_channels=sizes.channels,
            num_hidden_layers=sizes.layers,
            num_attention_heads=sizes.heads,
            image_size=sizes.image_size,
            patch_size=sizes.patch_size,
            window_size=sizes.window,
            global_attn_indexes=list(sizes.global_layers),
            num_pos_feats=sizes.channels // 2,
            initializer_range=0.02,
        ),
        prompt_encoder_config=SamPromptEncoderConfig(
            hidden_size=sizes.channels, image_size=sizes.image_size, patch_size=sizes.patch_size
        ),
        mask_decoder_config=SamMaskDecoderConfig(
            hidden_size=sizes.channels,
            mlp_dim=sizes.decoder_mlp,
            num_attention_heads=sizes.decoder_heads,
            iou_head_hidden_dim=sizes.channels,
        ),
    )
    sam = SamModel(config)
    # The original SAM starts from torch's own initialisation; transformers' 0.02 lets the signal of the small
    # three-layer heads vanish, and nothing is learned.
    for module in sam.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d | nn.Embedding):
            module.reset_parameters()
    # transformers draws these frequencies from a normal distribution of half the encoder's width, which it
    # never uses: weights are always loaded. The original's is of width 1; only then are near places alike.
    frequencies = torch.randn(2, sizes.channels // 2)
    for part in (sam.shared_image_embedding, sam.prompt_encoder.shared_embedding):
        part.positional_embedding.requires_grad_(False).copy_(frequencies)
    return sam


def save_vlm(
    folder: str | os.PathLike[str], vlm: Any, tokenizer: Any, dtype: torch.dtype | None = None
) -> None:
    """Save a VLM with its processor in Hugging Face's layout; ``dtype`` converts the weights first."""
    from transformers import CLIPImageProcessor, LlavaProcessor

    vision = vlm.config.vision_config
    images = CLIPImageProcessor(
        size={"shortest_edge": vision.image_size},
        crop_size={"height": vision.image_size, "width": vision.image_size},
        image_mean=_CLIP_MEAN,
        image_std=_CLIP_STD,
    )
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=vision.patch_size,
        vision_feature_select_strategy=vlm.config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    if dtype is not None:
        vlm.to(dtype)
        for part in (vlm.config.text_config, vision):  # each says its own, from what it was loaded as
            part.dtype = dtype
    vlm.save_pretrained(folder)
    processor.save_pretrained(folder)


def save_sam(folder: str | os.PathLike[str], sam: Any, dtype: torch.dtype | None = None) -> None:
    """Save a SAM with its image processor in Hugging Face's layout; ``dtype`` converts the weights first."""
    from transformers import SamImageProcessor

    side = sam.config.vision_config.image_size
    images = SamImageProcessor(
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    (sam if dtype is None else sam.to(dtype)).save_pretrained(folder)
    images.save_pretrained(folder)
