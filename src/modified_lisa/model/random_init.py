"""Full-size models with random weights, drawn on the device itself: no files, no hub, and no host memory.

Speed and memory do not depend on the values of the weights. Each module is an empty shell at first; its
weights are drawn in their final precision where they stay, and a linear layer that is to be quantised is
quantised before the next one is drawn, so that the peak stays near the final size.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ModelLoadError
from modified_lisa.model.announce import Announcer
from modified_lisa.model.availability import require_fp8
from modified_lisa.model.quantization import (
    LANGUAGE_MODEL,
    QuantizationReport,
    inspect_quantization,
    quantized_linear,
    settle,
)
from modified_lisa.model.sizes import sizes_of

__all__ = ["fill", "random_sam", "random_vlm", "seeded"]

Place = Callable[[str], torch.dtype]


def random_vlm(
    config: ModelConfig,
    device: torch.device,
    dtype: torch.dtype,
    *,
    with_lm_head: bool = False,
    verbose: bool | None = None,
) -> tuple[Any, QuantizationReport]:
    """``LlavaForConditionalGeneration`` of the sizes of ``config.vlm_name``, frozen, on ``device``; and the report.

    Its seed is drawn from torch's global CPU generator: ``torch.manual_seed`` decides the weights. Parts that
    ``config`` does not use (the vision tower with the ``sam`` source, ``lm_head``) are not made.

    Args:
        dtype: of what is not quantised.

    Raises:
        ConfigError: fp8 on a device that cannot multiply in it.
        ModelLoadError: a name whose sizes are not known.
        QuantizationError: something else was quantised than asked for.
    """
    from transformers import LlavaForConditionalGeneration

    require_fp8(config.quantization, device)
    _, sizes = sizes_of(config.vlm_name, "--vlm_name", "llava")
    with torch.device("meta"):
        vlm = LlavaForConditionalGeneration(sizes)
    if config.vision_source == "sam":
        vlm.model.vision_tower = None
    if not with_lm_head:
        vlm.lm_head = None
    how = str(config.quantization)
    announcer = Announcer(f"VLM {config.vlm_name}", how, dtype, verbose)
    with announcer.drawing(vlm) as bar:
        fill(vlm, device, lambda _name: dtype, quantization=how, compute_dtype=dtype, bar=bar)
    settle(vlm)
    report = inspect_quantization(vlm, how).check()
    announcer.done(str(report))
    return vlm.eval().requires_grad_(False), report


def random_sam(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, *, verbose: bool | None = None
) -> Any:
    """``SamModel`` of the sizes of ``config.sam_name``, frozen, on ``device``: encoder in ``dtype``, the rest fp32.

    Without its image encoder where that is not used. Seed and errors as in `random_vlm`.
    """
    from transformers import SamModel

    _, sizes = sizes_of(config.sam_name, "--sam_name", "sam")
    with torch.device("meta"):
        sam = SamModel(sizes)
    if config.vision_source == "vlm":
        sam.vision_encoder = None
    announcer = Announcer(
        f"SAM {config.sam_name}", "none", dtype if sam.vision_encoder is not None else torch.float32, verbose
    )
    with announcer.drawing(sam) as bar:
        fill(
            sam,
            device,
            lambda name: dtype if name.startswith("vision_encoder.") else torch.float32,
            bar=bar,
        )
    announcer.done()
    sam.prompt_encoder.shared_embedding = sam.shared_image_embedding  # one code of places, as in every SAM
    return sam.eval().requires_grad_(False)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from ``seed`` what is drawn from torch's global CPU generator, and leave that as it was."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


@torch.no_grad()
def fill(
    model: nn.Module,
    device: torch.device,
    dtype_of: Place,
    *,
    quantization: str = "none",
    compute_dtype: torch.dtype = torch.float32,
    bar: Any = None,
) -> None:
    """Draw all weights of ``model``, made on the ``meta`` device, in place on ``device``.

    Matrices are normal with variance 1 / fan-in, so that a layer keeps the size of what it reads and
    activations stay near 1 in every precision; norms start at 1, biases at 0, embeddings at variance 1.

    Args:
        dtype_of: full name of a parameter -> its precision.
        quantization: of the linear layers of the language model: ``nf4``, ``int8``, ``fp8`` or ``none``.
        bar: told of the weights that were drawn, a tqdm bar.
    """
    generator = torch.Generator(device).manual_seed(int(torch.randint(2**62, ())))
    made: dict[int, nn.Parameter] = {}  # a matrix that two modules share stays one
    for path, module in list(model.named_modules()):
        for name, empty in list(module.named_parameters(recurse=False)):
            if id(empty) not in made:
                full = f"{path}.{name}"
                values = torch.empty(empty.shape, dtype=dtype_of(full), device=device)
                _draw(values, module, name, generator)
                if bar is not None:
                    bar.update(empty.numel())
                made[id(empty)] = nn.Parameter(values, requires_grad=False)
            setattr(module, name, made[id(empty)])
        if quantization != "none" and type(module) is nn.Linear and path.startswith(LANGUAGE_MODEL):
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, quantized_linear(module, quantization, compute_dtype))
            made.clear()  # it must not keep the unquantised matrix
        _fill_buffers(path, module, device)


def _draw(values: torch.Tensor, module: nn.Module, name: str, generator: torch.Generator) -> None:
    """Fill ``values``, the parameter ``name`` of ``module``."""
    kind = type(module).__name__
    if name == "bias":
        values.zero_()
    elif "Norm" in kind:
        values.fill_(1.0)
    elif isinstance(module, nn.Embedding) or kind == "SamPositionalEmbedding":
        values.normal_(generator=generator)
    elif isinstance(module, nn.ConvTranspose2d):  # stride = kernel: each output has one tap of each channel
        values.normal_(std=values.shape[0] ** -0.5, generator=generator)
    elif isinstance(module, nn.Linear | nn.Conv2d):
        values.normal_(std=values[0].numel() ** -0.5, generator=generator)
    else:  # codes of places that are added to something: CLIP's class token, SAM's positions
        values.normal_(std=0.02, generator=generator)


def _fill_buffers(path: str, module: nn.Module, device: torch.device) -> None:
    """Compute the buffers of ``module``: they are no weights, and no file holds them."""
    empty = [name for name, buffer in module.named_buffers(recurse=False) if buffer.is_meta]
    if not empty:
        return
    if type(module).__name__.endswith("RotaryEmbedding"):
        config: Any = module.config
        with torch.device(device):
            rebuilt = type(module)(config=config)
        for name in empty:
            module.register_buffer(name, rebuilt.get_buffer(name).to(device), persistent=False)
    elif empty == ["position_ids"]:
        count = module.get_buffer("position_ids").shape[-1]
        module.register_buffer("position_ids", torch.arange(count, device=device)[None], persistent=False)
    else:
        raise ModelLoadError(
            f"{path} ({type(module).__name__}) holds {', '.join(empty)}, which random initialisation cannot compute"
        )
