"""From a checkpoint, original or imported, to the parts of a `ModifiedLISA`."""

import os
import warnings
from pathlib import Path
from typing import Any

import torch

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.model.image_spec import ImageSpec
from modified_lisa.model.inputs import longest_prompt
from modified_lisa.model.original_lisa.layout import uses_start_end, vocabulary_rows
from modified_lisa.model.original_lisa.protocol import CropSpec, ProtocolProcessor
from modified_lisa.model.original_lisa.shards import read_json
from modified_lisa.model.original_lisa.source import OriginalLisa, is_hub_name, open_original
from modified_lisa.model.original_lisa.vocabulary import SEG, read_tokenizer, saved_tokens
from modified_lisa.model.sources import class_tokens, read_config

__all__ = [
    "LISA",
    "build_protocol_processor",
    "clip_settings",
    "crop_spec",
    "protocol_settings",
    "read_original",
]

LISA = "lisa"
"""Key of the imported VLM's config.json under which `protocol_settings` are kept."""

_CLIP = {  # CLIPImageProcessor's own defaults
    "do_resize": True,
    "do_center_crop": True,
    "do_normalize": True,
    "resample": 3,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}


def read_original(
    source: str | os.PathLike[str], seg_token_id: int | None = None
) -> tuple[ModelConfig, dict[str, torch.Tensor]] | None:
    """Configuration and trained weights of a checkpoint in the original's layout; None: it is of another one.

    ``seg_token_id``: of ``[SEG]``, for checkpoints without a tokenizer; see `protocol_settings`.
    """
    original = open_original(source)
    if original is None:
        if is_hub_name(source) and not Path(source).parent.exists():
            raise ModelLoadError(
                f"{os.fspath(source)}: there is no file or folder of that name here, and no checkpoint in the original LISA's "
                f"layout in the Hugging Face cache. With a network, run: hf download {os.fspath(source)}; without one, give "
                "the path of a folder or of a .pt file"
            )
        return None
    tokenizer = read_tokenizer(
        original.source, vocabulary_rows(original.values), start_end=uses_start_end(original.values)
    )
    seg = protocol_settings(original, tokenizer, seg_token_id)["seg_token_id"]
    return original.model_config(seg_token_id=seg), original.trained_weights(seg)


def protocol_settings(
    original: OriginalLisa, tokenizer: Any | None, seg_token_id: int | None = None
) -> dict[str, Any]:
    """What LISA's protocol must know beside the tokenizer: ``seg_token_id``, ``im_start_end``.

    Without a tokenizer, a saved list of the added tokens, a number in the configuration and a word from the caller,
    ``[SEG]`` is taken for the first of the tokens that the original adds last; a warning says so.
    """
    rows = vocabulary_rows(original.values)
    start_end = uses_start_end(original.values)
    saved = saved_tokens(original.source).get(SEG)
    if tokenizer is not None or saved is not None:
        of_words = saved if tokenizer is None else int(tokenizer.convert_tokens_to_ids(SEG))
        if saved not in (None, of_words):
            raise ConfigError(
                f"{SEG} is {of_words} in the tokenizer, and {saved} among the added tokens of {original.source}; "
                "give a tokenizer that belongs to it"
            )
        if seg_token_id not in (None, of_words):
            raise ConfigError(
                f"seg_token_id is {seg_token_id}, and {SEG} is {of_words} in the tokenizer of {original.source}; leave it out"
            )
        seg_token_id = of_words
    if seg_token_id is None and isinstance(noted := original.values.get("seg_token_idx"), int):
        seg_token_id = noted
    if seg_token_id is None:
        seg_token_id = rows - 3 if start_end else rows - 1
        warnings.warn(
            f"{original.source} has no tokenizer: {SEG} is taken for the token {seg_token_id}, as the original adds it "
            "last but for <im_start> and <im_end>. Name it with --seg_token_id if that is wrong",
            stacklevel=2,
        )
    if not 0 <= seg_token_id < rows:
        raise ModelLoadError(
            f"the id of {SEG} is {seg_token_id}; the checkpoint's embedding has rows for 0 to {rows - 1}"
        )
    return {"seg_token_id": seg_token_id, "im_start_end": start_end}


def clip_settings(source: str, side: int) -> dict[str, Any]:
    """``preprocessor_config.json`` of a CLIP, with what it leaves out; made up for ``side`` if there is none."""
    made = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    return {**_CLIP, **made, **(read_json(source, "preprocessor_config.json", missing={}))}


def build_protocol_processor(config: ModelConfig) -> ProtocolProcessor:
    """The processor of a model under LISA's protocol.

    ``vlm_name`` is a checkpoint in the original's layout, or the folder that ``import-lisa`` made of it.
    """
    if (original := open_original(config.vlm_name)) is not None:
        vlm_config, source = original.vlm_config, original.source
        tokenizer = read_tokenizer(
            source, vlm_config.text_config.vocab_size, start_end=uses_start_end(original.values)
        )
        settings = protocol_settings(original, tokenizer, config.seg_token_id)
        clip = clip_settings(original.tower_source, vlm_config.vision_config.image_size)
    else:
        source, vlm_config = read_config(config.vlm_name, "--vlm_name", "llava")
        kept = read_json(source, "config.json").get(LISA)
        if not isinstance(kept, dict) or not isinstance(kept.get("seg_token_id"), int):
            raise ModelLoadError(
                f"--vlm_name {config.vlm_name}: LISA's protocol is for models made by modified-lisa import-lisa; this one's "
                f"config.json has no {LISA!r} with a seg_token_id"
            )
        settings = kept
        tokenizer = read_tokenizer(
            source, vlm_config.text_config.vocab_size, start_end=settings.get("im_start_end", True)
        )
        clip = clip_settings(source, vlm_config.vision_config.image_size)
    if (sam_original := open_original(config.sam_name)) is not None:
        sam_config = sam_original.sam_config
    else:
        _, sam_config = read_config(config.sam_name, "--sam_name", "sam")
    vision = vlm_config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    prompt = sam_config.prompt_encoder_config
    crop: CropSpec | ImageSpec = crop_spec(clip, vision.image_size, config.vlm_name)
    if config.vision_source == "vlm":
        crop = ImageSpec(crop.side, crop.mean, crop.std, "bicubic")
    image_tokens = patches + class_tokens(vision) - (vlm_config.vision_feature_select_strategy == "default")
    built = ProtocolProcessor(
        tokenizer,
        seg_token_id=settings["seg_token_id"] if config.seg_token_id is None else config.seg_token_id,
        start_end=bool(settings.get("im_start_end", True)),
        image_token_id=int(vlm_config.image_token_id),
        image_tokens=image_tokens,
        vocabulary=int(vlm_config.text_config.vocab_size),
        clip=crop,
        sam_side=int(sam_config.vision_config.image_size),
        mask_side=4 * (prompt.image_size // prompt.patch_size),
        name=str(Path(config.vlm_name)),
    )
    built.most_tokens = longest_prompt(vlm_config.text_config, image_tokens)
    return built


def crop_spec(settings: dict[str, Any], side: int, name: str) -> CropSpec:
    """CLIPImageProcessor's settings, old or new, as a `CropSpec`; refused if they are not CLIP's way."""
    size, crop = settings["size"], settings["crop_size"]
    resize = size.get("shortest_edge") if isinstance(size, dict) else size
    cropped = crop.get("height") if isinstance(crop, dict) else crop
    colours = [settings[key] for key in ("image_mean", "image_std")]
    regular = all(isinstance(three, list) and len(three) == 3 for three in colours) and all(
        settings[key] for key in ("do_resize", "do_center_crop", "do_normalize")
    )
    if (
        not regular
        or settings["resample"] != 3
        or cropped != side
        or not isinstance(resize, int)
        or resize < side
    ):
        raise ModelLoadError(
            f"{name}: its CLIP's preprocessor_config.json has size {size}, crop_size {crop}, resample {settings['resample']}; "
            f"expected: the shortest edge to {side} or more, bicubic (3), the middle {side} pixels, normalised by three means and deviations"
        )
    mean, std = ((*(float(value) for value in three),) for three in colours)
    return CropSpec(resize=resize, side=side, mean=mean, std=std)  # type: ignore[arg-type]
