"""From an image and a query to masks: `Segmenter` runs a model, `Segmentation` is what it returns."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modified_lisa.inference.segmentation import Segmentation
    from modified_lisa.inference.segmenter import Segmenter

__all__ = ["Segmentation", "Segmenter"]

_HOME = {
    "Segmentation": "modified_lisa.inference.segmentation",
    "Segmenter": "modified_lisa.inference.segmenter",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
