"""Names -> modules: which files are read, in which precision, and what is 4-bit afterwards."""

import importlib.resources
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ModelLoadError
from modified_lisa.model.processor import ImageSpec, LisaProcessor
from modified_lisa.model.vision import VlmTower
from modified_lisa.tokens import add_seg_token

__all__ = [
    "DTYPES",
    "build_processor",
    "check_quantized",
    "default_device",
    "load_sam",
    "load_vlm",
    "resolve_name",
    "tower_of",
]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

# Full paths: transformers anchors its matching, so that a bare "vision_tower" silently skips nothing.
_NOT_QUANTIZED = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]


def default_device() -> torch.device:
    """The GPU of this process (by LOCAL_RANK) where there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    return torch.device("cpu")


def resolve_name(name: str, part: str) -> str:
    """``tiny`` -> the folder of the bundled ``part`` (``vlm`` or ``sam``); anything else stays."""
    if name != "tiny":
        return name
    folder = Path(str(importlib.resources.files("modified_lisa") / "assets" / f"tiny-{part}"))
    if not (folder / "config.json").is_file():
        raise ModelLoadError(
            f"the bundled tiny {part} is not in this installation; build it with: python scripts/tiny_models/build.py"
        )
    return str(folder)


def _read_config(name: str, flag: str, kind: str) -> tuple[str, Any]:
    """The folder or hub name to read from, and its transformers configuration, checked to be of ``kind``."""
    from transformers import AutoConfig

    source = resolve_name(name, flag.removeprefix("--").removesuffix("_name"))
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelLoadError(_not_found(name, flag, error)) from error
    if config.model_type != kind:
        raise ModelLoadError(
            f"{flag} {name} is a model of type {config.model_type!r}; this package reads {kind!r} models there"
        )
    return source, config


def _not_found(name: str, flag: str, error: Exception) -> str:
    folder = Path(name)
    if folder.is_dir():
        held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        return f"{flag} {name}: the folder cannot be read as a model (it holds {held}): {_first_line(error)}"
    if folder.is_absolute() or name.startswith((".", "~")):
        return f"{flag} {name}: there is no such folder"
    return (
        f"{flag} {name}: config.json is neither in a local folder of that name nor in the Hugging Face cache, and "
        f"the hub did not give it. With a network, run: hf download {name}; without one, give a local folder, or "
        f"'tiny' for the bundled model. ({_first_line(error)})"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def load_vlm(config: ModelConfig, device: torch.device) -> Any:
    """``LlavaForConditionalGeneration``, frozen, on ``device``; its language model in 4 bit if asked.

    Raises:
        ModelLoadError: not found, not a LLaVA, torn, or not quantised as asked.
    """
    from transformers import BitsAndBytesConfig, LlavaForConditionalGeneration

    source, _ = _read_config(config.vlm_name, "--vlm_name", "llava")
    options: dict[str, Any] = {"dtype": DTYPES[config.dtype]}
    if config.quantize:
        options["device_map"] = {"": str(device)}
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[config.dtype],
            llm_int8_skip_modules=_NOT_QUANTIZED,
        )
    vlm = _from_pretrained(LlavaForConditionalGeneration, source, "--vlm_name", config.vlm_name, options)
    check_quantized(vlm, config.quantize)
    return vlm.eval().requires_grad_(False)


def load_sam(config: ModelConfig) -> Any:
    """``SamModel``, frozen, fp32, on the CPU; without its image encoder where that is not used."""
    from transformers import SamModel

    source, _ = _read_config(config.sam_name, "--sam_name", "sam")
    sam = _from_pretrained(SamModel, source, "--sam_name", config.sam_name, {"dtype": torch.float32})
    if config.vision_source == "vlm":
        del sam.vision_encoder
    return sam.eval().requires_grad_(False)


def _from_pretrained(kind: Any, source: str, flag: str, name: str, options: dict[str, Any]) -> Any:
    from safetensors import SafetensorError

    try:
        model, report = kind.from_pretrained(source, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise ModelLoadError(f"{flag} {name}: the weights cannot be read: {_first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"{flag} {name}: {len(missing)} weights are missing from the files, such as {', '.join(missing[:3])}; "
            "download it again"
        )
    return model


def check_quantized(vlm: Any, quantize: bool) -> list[str]:
    """Names of the 4-bit linear layers; raises ModelLoadError when they are not the ones asked for.

    Asked for are all linear layers of the language model, and none elsewhere. transformers skips or
    includes layers by patterns, and says nothing when a pattern does not match.
    """
    four_bit = [name for name, module in vlm.named_modules() if type(module).__name__ == "Linear4bit"]
    language = "model.language_model."
    plain = [
        name
        for name, module in vlm.named_modules()
        if type(module) is nn.Linear and name.startswith(language)
    ]
    stray = [name for name in four_bit if not name.startswith(language)]
    if quantize and (plain or stray or not four_bit):
        raise ModelLoadError(
            f"4-bit loading went wrong: {len(four_bit)} layers in 4 bit, {len(plain)} of the language model's are "
            f"not ({', '.join(plain[:3])}), {len(stray)} others are ({', '.join(stray[:3])})"
        )
    if not quantize and four_bit:
        raise ModelLoadError(f"asked for no quantisation, but {len(four_bit)} layers are in 4 bit")
    return four_bit


def tower_of(vlm: Any) -> VlmTower:
    """The VLM's vision tower, with the layers that its projector reads."""
    layer = vlm.config.vision_feature_layer
    layers = [layer] if isinstance(layer, int) else list(layer)
    return VlmTower(vlm.model.vision_tower, layers, vlm.config.vision_feature_select_strategy)


def build_processor(config: ModelConfig) -> LisaProcessor:
    """The tokenizer, chat template and image settings of the two models, as one picklable object."""
    from transformers import AutoImageProcessor, AutoProcessor

    source, vlm_config = _read_config(config.vlm_name, "--vlm_name", "llava")
    try:
        processor = AutoProcessor.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelLoadError(_not_found(config.vlm_name, "--vlm_name", error)) from error
    tokenizer = processor.tokenizer
    template = processor.chat_template or tokenizer.chat_template
    if not template:
        raise ModelLoadError(
            f"--vlm_name {config.vlm_name} has no chat template; add chat_template.jinja to it"
        )
    vision = vlm_config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    keeps_class_token = vlm_config.vision_feature_select_strategy == "full" and config.vision_source != "sam"
    image_token_id = int(vlm_config.image_token_id)
    vlm_image = sam_image = None
    if config.vision_source in ("vlm", "dual"):
        vlm_image = _image_spec(processor.image_processor, vision.image_size, "bicubic")
    if config.vision_source in ("sam", "dual"):
        sam_source, sam_config = _read_config(config.sam_name, "--sam_name", "sam")
        sam_image = _image_spec(
            AutoImageProcessor.from_pretrained(sam_source), sam_config.vision_config.image_size, "bilinear"
        )
    return LisaProcessor(
        tokenizer,
        chat_template=template,
        seg_token_id=add_seg_token(tokenizer),
        image_token=tokenizer.convert_ids_to_tokens(image_token_id),
        image_token_id=image_token_id,
        image_tokens=patches + keeps_class_token,
        vlm_image=vlm_image,
        sam_image=sam_image,
    )


def _image_spec(image_processor: Any, side: int, interpolation: str) -> ImageSpec:
    mean, std = (
        (*(float(value) for value in values),)
        for values in (image_processor.image_mean, image_processor.image_std)
    )
    return ImageSpec(side=int(side), mean=mean, std=std, interpolation=interpolation)  # type: ignore[arg-type]
