"""Files, or sizes alone -> modules: what is read of them, in which precision, onto which device."""

import logging
import os
import re
from pathlib import Path
from typing import Any

import torch

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.model.announce import Announcer
from modified_lisa.model.availability import require_fp8
from modified_lisa.model.families import family_of
from modified_lisa.model.fp8.loading import fp8_on_load
from modified_lisa.model.original_lisa.source import lazy_weights, open_original
from modified_lisa.model.quantization import (
    LANGUAGE_MODEL,
    NOT_QUANTIZED,
    QuantizationReport,
    inspect_quantization,
    settle,
)
from modified_lisa.model.random_init import random_sam, random_vlm
from modified_lisa.model.shards import FileTensor, find_shards, read_headers
from modified_lisa.model.sources import first_line, not_found, read_config

__all__ = [
    "DTYPES",
    "find_device",
    "load_parts",
    "load_sam",
    "load_vlm",
]

_LOG = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


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
    if found.type not in ("cpu", "cuda"):
        try:
            torch.zeros((), device=found).cpu()
        except (
            Exception
        ) as error:  # a device that this build of PyTorch cannot use, or that holds nothing (meta)
            raise ConfigError(
                f"the device is {str(found)!r}, which cannot be used here ({first_line(error)}); use cpu"
            ) from error
    return found


def load_parts(
    config: ModelConfig,
    device: torch.device,
    *,
    random_init: bool = False,
    with_lm_head: bool = False,
    verbose: bool | None = None,
) -> tuple[Any, Any, QuantizationReport]:
    """The VLM and the SAM of ``config``, and what is quantised in the VLM.

    Args:
        random_init: from their sizes alone, with random weights, instead of from their files.
        with_lm_head: keep the matrix that turns hidden states into words; a mask does not need it.
        verbose: say what is loaded, and show progress, on stderr; None: for models above 0.5 GB, on a terminal.

    Raises:
        ModelLoadError: not found, not of the right kind, or torn.
        QuantizationError: not quantised as asked.
    """
    if random_init:
        dtype = DTYPES[config.dtype]
        vlm, report = random_vlm(config, device, dtype, with_lm_head=with_lm_head, verbose=verbose)
        sam = random_sam(config, device, dtype, verbose=verbose)
    else:
        vlm, report = load_vlm(config, device, with_lm_head=with_lm_head, verbose=verbose)
        sam = load_sam(config, device, verbose=verbose)
    _LOG.debug("%s", report.table())
    return vlm, sam, report


def load_vlm(
    config: ModelConfig, device: torch.device, *, with_lm_head: bool = False, verbose: bool | None = None
) -> tuple[Any, QuantizationReport]:
    """The VLM (``LlavaForConditionalGeneration``, or its family's), frozen, on ``device``, its language model quantised if asked; and the report.

    Parts that ``config`` does not use (the vision tower with the ``sam`` source, ``lm_head`` without
    ``with_lm_head``) are not read, and are None. Raises as `load_parts`.
    """
    from transformers import BitsAndBytesConfig

    require_fp8(config.quantization, device)
    if (original := open_original(config.vlm_name)) is not None:
        source, sizes, given = None, original.vlm_config, lazy_weights(original.vlm_origins)
    else:
        (source, sizes), given = read_config(config.vlm_name, "--vlm_name", "vlm"), None
    # A tied lm_head is the embedding matrix, and files may hold it under either name.
    tied = sizes.tie_word_embeddings or sizes.text_config.tie_word_embeddings
    unused = [] if with_lm_head or tied else ["lm_head"]
    if config.vision_source == "sam":
        unused.append("model.vision_tower")
    options: dict[str, Any] = {"dtype": DTYPES[config.dtype], "device_map": {"": str(device)}}
    if config.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[config.dtype],
            llm_int8_skip_modules=NOT_QUANTIZED,
        )
    elif config.quantization == "int8":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=True, llm_int8_skip_modules=NOT_QUANTIZED
        )
    elif config.quantization == "fp8":
        options["quantization_config"] = fp8_on_load(LANGUAGE_MODEL)
    announcer = Announcer(f"VLM {config.vlm_name}", str(config.quantization), options["dtype"], verbose)
    vlm = _from_pretrained(
        family_of(sizes).model_class(),
        source,
        sizes,
        ("--vlm_name", config.vlm_name),
        options,
        unused,
        announcer,
        given,
    )
    report = inspect_quantization(vlm, str(config.quantization)).check()
    announcer.done(str(report))
    settle(vlm)
    if not with_lm_head:
        vlm.lm_head = None
    return vlm.eval().requires_grad_(False), report


def load_sam(config: ModelConfig, device: torch.device, *, verbose: bool | None = None) -> Any:
    """``SamModel``, frozen, on ``device``: its image encoder in the precision of ``config``, the rest fp32.

    The encoder is not read where it is not used, and is None.
    """
    from transformers import SamModel

    if (original := open_original(config.sam_name)) is not None:
        source, sizes, given = None, original.sam_config, lazy_weights(original.sam_origins)
    else:
        (source, sizes), given = read_config(config.sam_name, "--sam_name", "sam"), None
    strict: Any = {
        "_keep_in_fp32_modules_strict": {"shared_image_embedding", "prompt_encoder", "mask_decoder"}
    }
    kind = type(SamModel.__name__, (SamModel,), strict)
    unused = ["vision_encoder"] if config.vision_source == "vlm" else []
    options: dict[str, Any] = {"dtype": DTYPES[config.dtype], "device_map": {"": str(device)}}
    announcer = Announcer(
        f"SAM {config.sam_name}", "none", torch.float32 if unused else options["dtype"], verbose
    )
    named = ("--sam_name", config.sam_name)
    sam = _from_pretrained(kind, source, sizes, named, options, unused, announcer, given)
    announcer.done()
    return sam.eval().requires_grad_(False)


def _from_pretrained(
    kind: Any,
    source: str | None,
    sizes: Any,
    named: tuple[str, str],
    options: dict[str, Any],
    unused: list[str],
    announcer: Announcer,
    given: dict[str, FileTensor] | None = None,
) -> Any:
    """``kind.from_pretrained``, tensor by tensor; the modules ``unused`` are None, and their weights are not read.

    ``given``: the tensors, where they are not those of ``source``.
    """
    from safetensors import SafetensorError

    flag, name = named
    kind = _without(kind, unused)
    # In older layouts of LLaVA's files the last part of a module's name is the same.
    unread = "|".join(rf"(^|\.){module.rpartition('.')[2]}\." for module in unused) or None
    try:
        tensors: dict[str, FileTensor] | None = None
        if given is not None:
            tensors = {key: t for key, t in given.items() if not (unread and re.search(unread, key))}
            files: list[Path] | None = sorted(
                {tensor.file for tensor in tensors.values() if tensor.file.is_file()}
            )
        elif source is not None and (files := find_shards(source)) is not None:
            tensors = read_headers(files, unread)
        if tensors is None:  # an old .bin: transformers reads it whole, as plain tensors only
            with announcer.transformers_bars(str(source)):
                model, report = kind.from_pretrained(source, output_loading_info=True, **options)
        else:
            with announcer.reading(files or [], tensors):
                model, report = kind.from_pretrained(
                    None, config=sizes, state_dict=tensors, output_loading_info=True, **options
                )
    except ImportError as error:  # bitsandbytes
        raise ModelLoadError(f"{flag} {name}: {first_line(error)}") from error
    except OSError as error:
        raise ModelLoadError(not_found(name, flag, error, "the weights")) from error
    except (ValueError, RuntimeError, SafetensorError) as error:
        if isinstance(error, torch.cuda.OutOfMemoryError | ModelLoadError):
            raise
        raise ModelLoadError(f"{flag} {name}: the weights cannot be read: {first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelLoadError(
            f"{flag} {name}: {len(missing)} weights are missing from the files, such as {', '.join(missing[:3])}; "
            "download it again"
        )
    return model


def _without(kind: Any, modules: list[str]) -> Any:
    """The class ``kind``, whose ``modules`` are None as soon as it is made, so that nothing is loaded for them."""

    def __init__(self: Any, config: Any) -> None:
        kind.__init__(self, config)
        for module in modules:
            parent, _, leaf = module.rpartition(".")
            setattr(self.get_submodule(parent), leaf, None)

    # transformers looks some things up by the name of the class.
    return type(kind.__name__, (kind,), {"__init__": __init__, "__module__": kind.__module__})
