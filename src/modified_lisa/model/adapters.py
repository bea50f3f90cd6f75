"""LoRA on the language model (Hu et al. 2021), by peft."""

from typing import Any

import torch

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ModelLoadError

__all__ = ["add_lora"]


def add_lora(language_model: torch.nn.Module, config: ModelConfig) -> None:
    """Put adapters, in place, on q_proj and v_proj of every layer, as the original LISA does.

    The adapters are fp32; their product is added to the frozen layer's output in its dtype. ModelLoadError if
    the language model has no such layers.
    """
    from peft import LoraConfig, inject_adapter_in_model

    settings: dict[str, Any] = {
        "r": config.lora_r,
        "lora_alpha": config.lora_alpha or 2 * config.lora_r,
        "lora_dropout": config.lora_dropout,
        # Anchored on purpose: a bare "q_proj" would be looked for everywhere.
        "target_modules": r"layers\.\d+\.self_attn\.(q_proj|v_proj)",
    }
    try:
        inject_adapter_in_model(LoraConfig(**settings), language_model)
    except ValueError as error:
        raise ModelLoadError(
            f"--lora_r needs a language model with self_attn.q_proj and v_proj in its layers; this one, a "
            f"{type(language_model).__name__}, has none: leave --lora_r out"
        ) from error
    for name, parameter in language_model.named_parameters():
        trains = "lora_" in name
        parameter.requires_grad_(trains)
        if trains:
            parameter.data = parameter.data.float()
