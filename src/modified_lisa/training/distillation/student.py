"""A shared-encoder model that starts from a dual one: everything of it but the way to SAM's embedding."""

import os
from typing import Any

import torch

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError
from modified_lisa.model import checkpoint
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.model.original_lisa.building import read_original
from modified_lisa.model.sources import resolve_name

__all__ = ["build_student", "read_teacher", "student_config"]

Weights = dict[str, torch.Tensor]


def read_teacher(source: str | os.PathLike[str], overrides: dict[str, Any]) -> tuple[ModelConfig, Weights]:
    """Configuration and trained weights of a dual model; nothing is built yet.

    Raises ConfigError for a model of another vision source; CheckpointError, ModelLoadError.
    """
    path = resolve_name("tiny", "lisa") if source == "tiny" else source
    config, weights = read_original(path, overrides.get("seg_token_id")) or checkpoint.read_pretrained(path)
    if config.vision_source != "dual":
        raise ConfigError(
            f"the teacher {os.fspath(source)} has one encoder already (vision source {config.vision_source!r}); give a "
            "'dual' one"
        )
    return config.replaced(**overrides), weights


def student_config(teacher: ModelConfig, bridge: str, layers: tuple[int, ...] | None) -> ModelConfig:
    """The teacher's configuration with the VLM's encoder for both."""
    return teacher.replaced(vision_source="vlm", bridge=bridge, bridge_layers=layers and list(layers))


def build_student(config: ModelConfig, weights: Weights, device: torch.device) -> ModifiedLISA:
    """A model of ``config`` with the teacher's trained weights, and a bridge that has learned nothing."""
    model = ModifiedLISA.from_config(config, device)
    bridge = {
        name: value
        for name, value in model.trainable_state_dict().items()
        if name.startswith("vision.bridge.")
    }
    model.load_state_dict({**bridge, **weights})
    return model
