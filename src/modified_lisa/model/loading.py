"""Files -> modules: in which precision they are read, and what is 4-bit afterwards."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.model.random_init import random_sam, random_vlm
from modified_lisa.model.sources import class_tokens, first_line, not_found, read_config
from modified_lisa.model.vision import VlmTower

__all__ = [
    "DTYPES",
    "check_quantized",
    "find_device",
    "load_parts",
    "load_sam",
    "load_vlm",
    "tower_of",
]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

# Full paths: transformers anchors its matching, so that a bare "vision_tower" silently skips nothing.
_NOT_QUANTIZED = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]


def find_device(device: torch.device | str | None = None) -> torch.device:
    """The device of this name; None: the GPU of this process (by LOCAL_RANK) if there is one, else the CPU.

    ConfigError for one that is not there.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        return (
            torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % gpus)
            if gpus
            else torch.device("cpu")
        )
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"the device is {device!r}; it must be like cpu, cuda or cuda:0") from error
    if found.type == "cuda" and (found.index or 0) >= gpus:
        raise ConfigError(f"the device is {str(found)!r}, and PyTorch sees {gpus} CUDA GPU(s) here; use cpu")
    return found


def load_parts(config: ModelConfig, device: torch.device, *, random_init: bool = False) -> tuple[Any, Any]:
    """The VLM and the SAM of ``config``, from their files or, with ``random_init``, from their sizes alone."""
    if random_init:
        dtype = DTYPES[config.dtype]
        vlm = random_vlm(config, device, dtype)
        check_quantized(vlm, config.quantize)
        return vlm, random_sam(config, device, dtype)
    return load_vlm(config, device), load_sam(config)


def load_vlm(config: ModelConfig, device: torch.device) -> Any:
    """``LlavaForConditionalGeneration``, frozen, on ``device``; its language model in 4 bit if asked.

    Raises:
        ModelLoadError: not found, not a LLaVA, torn, or not quantised as asked.
    """
    from transformers import BitsAndBytesConfig, LlavaForConditionalGeneration

    source, _ = read_config(config.vlm_name, "--vlm_name", "llava")
    options: dict[str, Any] = {"dtype": DTYPES[config.dtype]}
    if config.quantize or device.type == "cuda":  # straight to the GPU, shard by shard
        options["device_map"] = {"": str(device)}
    if config.quantize:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[config.dtype],
            llm_int8_skip_modules=_NOT_QUANTIZED,
        )
    vlm = _from_pretrained(LlavaForConditionalGeneration, source, "--vlm_name", config.vlm_name, options)
    check_quantized(vlm, config.quantize)
    for module in vlm.modules():
        if type(module).__name__ == "Linear4bit":
            # On CPUs with AVX512-BF16, bitsandbytes would repack the layer for good at its first use without
            # a gradient, into a form whose product has no backward pass: gradients would vanish silently.
            module.support_avx512bf16_for_cpu = False
    return vlm.eval().requires_grad_(False)


def load_sam(config: ModelConfig) -> Any:
    """``SamModel``, frozen, fp32, on the CPU; without its image encoder where that is not used."""
    from transformers import SamModel

    source, _ = read_config(config.sam_name, "--sam_name", "sam")
    sam = _from_pretrained(SamModel, source, "--sam_name", config.sam_name, {"dtype": torch.float32})
    if config.vision_source == "vlm":
        del sam.vision_encoder
    return sam.eval().requires_grad_(False)


def _from_pretrained(kind: Any, source: str, flag: str, name: str, options: dict[str, Any]) -> Any:
    from safetensors import SafetensorError

    try:
        with _bars_for_large_files(source):
            model, report = kind.from_pretrained(source, output_loading_info=True, **options)
    except ImportError as error:  # bitsandbytes for 4 bit
        raise ModelLoadError(f"{flag} {name}: {first_line(error)}") from error
    except OSError as error:
        raise ModelLoadError(not_found(name, flag, error, "the weights")) from error
    except (ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        raise ModelLoadError(f"{flag} {name}: the weights cannot be read: {first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"{flag} {name}: {len(missing)} weights are missing from the files, such as {', '.join(missing[:3])}; "
            "download it again"
        )
    return model


@contextlib.contextmanager
def _bars_for_large_files(source: str) -> Iterator[None]:
    """transformers' progress bars, but not for small local files, which are read in no time."""
    from transformers.utils import logging

    sizes = [file.stat().st_size for file in Path(source).glob("*.safetensors")]
    if not sizes or sum(sizes) > 5e8 or not logging.is_progress_bar_enabled():
        yield
        return
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


def check_quantized(vlm: Any, quantize: bool | None) -> list[str]:
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
    strategy = vlm.config.vision_feature_select_strategy
    return VlmTower(vlm.model.vision_tower, layers, strategy, class_tokens(vlm.config.vision_config))
