"""Reasoning segmentation: an image and a question in plain words go in, the pixels that answer it come out.

The names below are imported when first used, so that ``import modified_lisa`` takes a few milliseconds;
the heavy libraries come with `ModifiedLISA` and `Segmenter`.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modified_lisa.config import LossWeights, ModelConfig, TrainingConfig
    from modified_lisa.errors import (
        CheckpointError,
        ConfigError,
        DataError,
        ImageError,
        ModelLoadError,
        ModifiedLISAError,
        QuantizationError,
        TrainingError,
    )
    from modified_lisa.inference.segmentation import Segmentation
    from modified_lisa.inference.segmenter import Segmenter
    from modified_lisa.model.lisa import ModifiedLISA

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "ImageError",
    "LossWeights",
    "ModelConfig",
    "ModelLoadError",
    "ModifiedLISA",
    "ModifiedLISAError",
    "QuantizationError",
    "Segmentation",
    "Segmenter",
    "TrainingConfig",
    "TrainingError",
    "__version__",
]

_HOME = {
    "ModifiedLISA": "modified_lisa.model.lisa",
    "Segmenter": "modified_lisa.inference.segmenter",
    "Segmentation": "modified_lisa.inference.segmentation",
    **dict.fromkeys(("LossWeights", "ModelConfig", "TrainingConfig"), "modified_lisa.config"),
    **dict.fromkeys((name for name in __all__ if name.endswith("Error")), "modified_lisa.errors"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value  # the next look-up finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
