"""The frozen part of a model's vision source, run once for each image and kept on disk (``--cache_dir``).

The bridge trains, the encoders do not: what `VisionSource.frozen` makes of an image is the same in every epoch.

Features are made of one image at a time, whatever the batch, so that they do not depend on which images met in
it, nor on whether they were kept before: a run that finds them equals one that makes them, to the last bit.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from modified_lisa.errors import ConfigError
from modified_lisa.model.feature_store import FeatureStore, fingerprint
from modified_lisa.model.inputs import ModelInputs
from modified_lisa.model.vision import Features

if TYPE_CHECKING:
    from modified_lisa.model.lisa import ModifiedLISA

__all__ = ["FeatureCache", "frozen_identity", "stacked"]


def frozen_identity(model: "ModifiedLISA") -> dict[str, Any]:
    """All that the features of an image depend on beside the image."""
    named = [*model.vision.named_parameters(), *model.vision.named_buffers()]
    return {
        "what": "features",
        "vision_source": model.config.vision_source,
        **({"pixels": True} if getattr(model.vision, "bridge_reads_pixels", False) else {}),
        "layers": list(getattr(model.vision, "layers", getattr(model.vision.encoder, "feature_layers", ()))),
        "weights": fingerprint((name, tensor) for name, tensor in named if not name.startswith("bridge.")),
        "dtype": model.config.dtype,
        "device": model.device.type,  # another device rounds differently
        "images": model.processor.image_settings,
    }


class FeatureCache:
    """Gives batches the features of their images: from disk where they are, else made and put there.

    Args:
        folder: of the cache; other models' features may be in it too.
        limit_gb: the most that this model's features may take there, in GB of 10^9 bytes; images beyond are encoded
            in every epoch. None: no limit.
        processes: that share the cache at this moment.
    """

    def __init__(
        self,
        model: "ModifiedLISA",
        folder: str | Path,
        *,
        limit_gb: float | None = None,
        processes: int = 1,
    ) -> None:
        self.model, self.limit_gb, self.processes = model, limit_gb, processes
        # Any image tells the shapes.
        sample = model.processor([np.zeros((8, 8, 3), np.uint8)], ["image"])
        features = self.encode(sample.vlm_pixels, sample.sam_pixels)
        self.store = FeatureStore(
            folder, frozen_identity(model), tuple((tuple(x.shape[1:]), x.dtype) for x in features)
        )
        self.encoded = 0
        """Images that this process has had to encode."""
        self.stopped = ""
        """Why nothing more is kept; empty while it is."""
        self._room = float("inf")

    def announce(self, images: int) -> str:
        """Make the folder and say what ``images`` images take and what is there; call it before the first batch.

        Raises ConfigError if the disk has no room for what is missing (within the limit).
        """
        size, allowed = self.store.entry_bytes, images
        if self.limit_gb is not None:
            allowed = min(images, int(self.limit_gb * 1e9 / size))
        text = self.store.prepare(images, allowed, advice=", or set --cache_limit_gb")
        if self.limit_gb is not None:
            self._room = max(0.0, self.limit_gb * 1e9 - len(self.store) * size) / self.processes
        if allowed < images:
            text += f"; --cache_limit_gb {self.limit_gb:g} keeps {allowed} of them, the others are encoded in every epoch"
        return text

    def complete(self, batch: Any) -> Any:
        """A batch (`data.collate.Batch`) whose inputs have features: made here for images that had none on disk.

        Raises ConfigError in the training of a model whose tower trains.
        """
        if self.model.config.train_vision and torch.is_grad_enabled():
            raise ConfigError(
                "an encoder that trains makes other features after each step; train without a cache"
            )
        inputs: ModelInputs = batch.inputs
        if inputs.features is not None or not batch.uncached:
            return batch
        pixels = (inputs.vlm_pixels, inputs.sam_pixels)
        # Copies: a captured encoder gives the same memory at every call.
        rows = [
            tuple(x.clone() for x in self.encode(*(None if x is None else x[row : row + 1] for x in pixels)))
            for row in range(len(inputs))
        ]
        for row, key in enumerate(batch.uncached):
            if key is not None:
                self._keep(key, tuple(x[0] for x in rows[row]))
        features = tuple(torch.cat(parts) for parts in zip(*rows, strict=True))
        return replace(
            batch, inputs=replace(inputs, features=features, vlm_pixels=None, sam_pixels=None), uncached=()
        )

    def _keep(self, key: str, features: Features) -> None:
        self.encoded += 1
        if self.stopped:
            return
        if self._room < self.store.entry_bytes:
            self.stopped = f"--cache_limit_gb {self.limit_gb:g} is reached"
            return
        try:
            self.store.save(key, features)
        except OSError as error:
            self.stopped = f"{self.store.folder}: {error.strerror or error}"
            return
        self._room -= self.store.entry_bytes

    def encode(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Features:
        """`VisionSource.frozen` of pixels on any device."""
        device = self.model.device
        moved = (None if x is None else x.to(device) for x in (vlm_pixels, sam_pixels))
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return self.model.vision.frozen(*moved)


def stacked(entries: Sequence[Features | None]) -> Features | None:
    """Features (...) of single images as those of a batch, (B, ...); None unless all are there."""
    if any(entry is None for entry in entries):
        return None
    return tuple(torch.stack(parts) for parts in zip(*(e for e in entries if e is not None), strict=True))
