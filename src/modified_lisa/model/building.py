"""What goes with a configuration: the processor, from the files of its two models, and the vision source, from the models."""

import warnings
from typing import Any

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ModelLoadError
from modified_lisa.model.bridge import TokenBridge, make_bridge
from modified_lisa.model.families import family_of
from modified_lisa.model.image_spec import read_image_spec
from modified_lisa.model.inputs import longest_prompt
from modified_lisa.model.loading import DTYPES
from modified_lisa.model.mask_head import MaskHead
from modified_lisa.model.processor import LisaProcessor
from modified_lisa.model.sizes import sizes_of
from modified_lisa.model.sources import first_line, not_found, read_config
from modified_lisa.model.tiny import CHAT_TEMPLATE
from modified_lisa.model.vision import DualVision, SamVision, VisionSource, VlmVision, absolute_layers
from modified_lisa.tokens import add_seg_token

__all__ = ["build_processor", "build_vision"]


def build_processor(config: ModelConfig, random_init: bool = False) -> LisaProcessor:
    """The tokenizer, chat template and image settings of the two models of ``config``.

    With ``random_init`` their sizes come from `sizes_of`, whose tokenizer stands in where there is none.
    Raises ModelLoadError for files that are missing or of another kind of model.
    """
    if config.protocol == "lisa":
        from modified_lisa.model.original_lisa.building import build_protocol_processor

        return build_protocol_processor(config)
    read = sizes_of if random_init else read_config
    source, vlm_config = read(config.vlm_name, "--vlm_name", "llava" if random_init else "vlm")
    family = family_of(vlm_config)
    try:
        tokenizer, template = family.tokenizer(source)
    except (OSError, ValueError) as error:
        raise ModelLoadError(not_found(config.vlm_name, "--vlm_name", error, "its processor")) from error
    except ImportError as error:  # a tokenizer without tokenizer.json needs sentencepiece
        raise ModelLoadError(f"--vlm_name {config.vlm_name}: {first_line(error)}") from error
    image_token_id = int(vlm_config.image_token_id)
    image_token = tokenizer.convert_ids_to_tokens(image_token_id)
    if not image_token:
        raise ModelLoadError(
            f"--vlm_name {config.vlm_name}: its image token has the id {image_token_id}, which its tokenizer does not have"
        )
    if not template:
        warnings.warn(
            f"--vlm_name {config.vlm_name} has no chat template; LLaVA-1.5's is used (put chat_template.jinja "
            "into the model's folder to use its own)",
            stacklevel=2,
        )
        template = CHAT_TEMPLATE.replace("<image>", image_token)
    vision = vlm_config.vision_config
    by_sam = config.vision_source == "sam"
    image_tokens = family.projector_input(vlm_config)[0] ** 2 if by_sam else family.image_tokens(vlm_config)
    sam_source, sam_config = read(config.sam_name, "--sam_name", "sam")
    sam_vision, sam_prompt = sam_config.vision_config, sam_config.prompt_encoder_config
    grid = sam_prompt.image_size // sam_prompt.patch_size
    seen = sam_vision.image_size // sam_vision.patch_size
    if config.vision_source != "vlm" and seen != grid:
        raise ModelLoadError(
            f"--sam_name {config.sam_name}: its encoder gives {seen} x {seen} cells and its mask decoder is made for "
            f"{grid} x {grid}; image_size and patch_size of both parts must agree"
        )
    vlm_image = sam_image = None
    if config.vision_source in ("vlm", "dual"):
        side = config.image_side or vision.image_size
        vlm_image = read_image_spec(source, side, "bicubic", "--vlm_name", config.vlm_name)
    if config.vision_source in ("sam", "dual"):
        sam_image = read_image_spec(
            sam_source, sam_vision.image_size, "bilinear", "--sam_name", config.sam_name
        )
    built = LisaProcessor(
        tokenizer,
        chat_template=template,
        seg_token_id=add_seg_token(tokenizer),
        image_token=image_token,
        image_token_id=image_token_id,
        image_tokens=image_tokens,
        vocabulary=int(vlm_config.text_config.vocab_size),
        mask_side=4 * grid,
        vlm_image=vlm_image,
        sam_image=sam_image,
    )
    built.answers = config.answers
    built.most_tokens = longest_prompt(vlm_config.text_config, image_tokens)
    built.encode("segmentation mask")  # what cannot work is found before the weights
    return built


def build_vision(config: ModelConfig, vlm: Any, sam: Any, head: MaskHead) -> VisionSource:
    """The vision source of ``config``, of a VLM's and a SAM's encoders, as they are needed."""
    dtype = DTYPES[config.dtype]
    if config.vision_source == "sam":
        side, width = family_of(vlm.config).projector_input(vlm.config)
        encoder = sam.config.vision_config
        bridge = TokenBridge(encoder.hidden_size, encoder.output_channels, patches=side**2, out_width=width)
        return SamVision(sam.vision_encoder.to(dtype), bridge)
    tower = family_of(vlm.config).tower(vlm).see(config.image_side)
    if config.vision_source == "dual":
        return DualVision(tower, sam.vision_encoder.to(dtype))
    layers = config.bridge_layers or tower.bridge_layers.get(config.bridge)
    layers = layers and absolute_layers(layers, tower.depth, "--bridge_layers")
    made = make_bridge(config.bridge, tower.widths, layers, head.channels, head.side)
    return VlmVision(tower, made, layers or ())
