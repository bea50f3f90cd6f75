"""The frozen part of a model's vision source, run once for each image and kept on disk (``--cache_dir``).

The bridge trains, the encoders do not: what `VisionSource.frozen` makes of an image is the same in every epoch.

Features are made of one image at a time, whatever the batch, so that they do not depend on which images met in
it, nor on whether they were kept before: a run that finds them equals one that makes them, to the last bit.
"""

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from modified_lisa.errors import ConfigError
from modified_lisa.model.feature_store import FeatureStore, fingerprint
from modified_lisa.model.inputs import ModelInputs
from modified_lisa.model.vision import Features

if TYPE_CHECKING:
    from modified_lisa.model.lisa import ModifiedLISA

__all__ = ["FeatureCache", "frozen_identity", "stacked"]

GB = 1e9


def frozen_identity(model: "ModifiedLISA") -> dict[str, Any]:
    """All that the features of an image depend on beside the image."""
    named = [*model.vision.named_parameters(), *model.vision.named_buffers()]
    return {
        "what": "features",
        "vision_source": model.config.vision_source,
        "models": [model.config.vlm_name, model.config.sam_name],
        "layers": list(getattr(model.vision, "layers", ())),
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
        spec = model.processor
        sides = (spec.vlm_image, spec.sam_image)
        pixels = [None if s is None else torch.zeros(1, 3, s.side, s.side) for s in sides]
        features = self._encode(*pixels)
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
        self.store.prepare()
        size, there = self.store.entry_bytes, len(self.store)
        allowed = images if self.limit_gb is None else min(images, int(self.limit_gb * GB / size))
        missing = max(0, allowed - there)
        self._room = (
            float("inf") if self.limit_gb is None else max(0.0, self.limit_gb * GB - there * size)
        ) / self.processes
        text = (
            f"features of {images} images: {size / 1e6:.3g} MB each, {images * size / GB:.3g} GB in all; "
            f"{min(there, images)} are in {self.store.folder}"
        )
        free = shutil.disk_usage(self.store.folder).free
        if missing * size > free:
            raise ConfigError(
                f"--cache_dir: {text}, and the disk has {free / GB:.3g} GB left for {missing * size / GB:.3g} GB; "
                "name a folder on another disk, or set --cache_limit_gb"
            )
        if allowed < images:
            text += f"; --cache_limit_gb {self.limit_gb:g} keeps {allowed} of them, the others are encoded in every epoch"
        return text

    def complete(self, batch: Any) -> Any:
        """A batch (`data.collate.Batch`) whose inputs have features: made here for images that had none on disk."""
        inputs: ModelInputs = batch.inputs
        if inputs.features is not None or not batch.uncached:
            return batch
        rows = [
            self._encode(
                *(None if x is None else x[row : row + 1] for x in (inputs.vlm_pixels, inputs.sam_pixels))
            )
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

    def _encode(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Features:
        device = self.model.device
        moved = (None if x is None else x.to(device) for x in (vlm_pixels, sam_pixels))
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return self.model.vision.frozen(*moved)


def stacked(entries: Sequence[Features | None]) -> Features | None:
    """Features (...) of single images as those of a batch, (B, ...); None unless all are there."""
    if any(entry is None for entry in entries):
        return None
    return tuple(torch.stack(parts) for parts in zip(*(e for e in entries if e is not None), strict=True))
