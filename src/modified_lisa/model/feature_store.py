"""Tensors that were made of an image, kept on disk: a safetensors file each, checked whenever it is read.

A store belongs to what made its tensors (``identity``: weights, precision, preprocessing); another model has
another folder, and never sees these files. A file that is torn, damaged or of something else is as good as
none: `FeatureStore.load` gives None, and what is made again replaces it. Files appear whole, so that several
processes may fill one store.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from modified_lisa.errors import ConfigError
from modified_lisa.files import write_atomically, write_json

__all__ = ["FeatureStore", "fingerprint", "image_key"]

FORMAT = "modified-lisa-features-1"
_LOG = logging.getLogger(__name__)

Layout: TypeAlias = tuple[tuple[tuple[int, ...], torch.dtype], ...]
"""Shape and dtype of each tensor of an entry."""


def image_key(image: np.ndarray, *more: str) -> str:
    """32 hexadecimal digits from the pixels, uint8 (H, W, 3), and the words ``more``: equal for equal content."""
    digest = hashlib.blake2b(f"{image.shape} {image.dtype}".encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    for word in more:
        digest.update(b"\0" + word.encode("utf-8"))
    return digest.hexdigest()


def fingerprint(named: Iterable[tuple[str, torch.Tensor]]) -> str:
    """32 hexadecimal digits from names, shapes, dtypes and values; about a second for each GB."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(named, key=lambda pair: pair[0]):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode())
        digest.update(_raw(tensor))
    return digest.hexdigest()


class FeatureStore:
    """Entries by key. Small and picklable: the workers of a loader read from it.

    Args:
        folder: of all stores; this one is a folder in it, named by ``identity``.
        identity: plain values, all that the tensors depend on beside the image.
        layout: what an entry holds: shape and dtype of each tensor. Anything else is not taken.
    """

    def __init__(self, folder: str | Path, identity: dict[str, Any], layout: Layout) -> None:
        self.identity, self.layout = identity, layout
        described = json.dumps([FORMAT, identity, [[s, str(d)] for s, d in layout]], sort_keys=True)
        self.digest = hashlib.blake2b(described.encode(), digest_size=8).hexdigest()
        self.folder = Path(folder) / f"{identity.get('what', 'features')}-{self.digest}"

    @property
    def entry_bytes(self) -> int:
        """Bytes on disk of one entry, its header (under 4 kB) included."""
        return 4096 + sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in self.layout)

    def path(self, key: str) -> Path:
        """The file of an entry."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def __len__(self) -> int:
        """Entries on disk, good or not."""
        return sum(1 for _ in self.folder.glob("??/*.safetensors"))

    def prepare(self, images: int, keep: int | None = None, *, advice: str = "") -> str:
        """Make the folder, and say what the entries of ``images`` images take, and how many are there.

        Args:
            keep: of how many they will be kept; None: all.
            advice: what else a user can do if the disk has no room.

        Raises ConfigError if the disk has no room for those that are missing; OSError if it may not be written to.
        """
        write_json(self.folder / "about.json", {"format": FORMAT, **self.identity})
        size, there = self.entry_bytes, len(self)
        missing = max(0, (images if keep is None else keep) - there) * size
        text = (
            f"{self.identity.get('what', 'features')} of {images} images: {size / 1e6:.3g} MB each, "
            f"{images * size / 1e9:.3g} GB in all; {min(there, images)} are in {self.folder}"
        )
        free = shutil.disk_usage(self.folder).free
        if missing > free:
            raise ConfigError(
                f"--cache_dir: {text}, and the disk has {free / 1e9:.3g} GB left for {missing / 1e9:.3g} GB; "
                f"name a folder on another disk{advice}"
            )
        return text

    def load(self, key: str) -> tuple[torch.Tensor, ...] | None:
        """The tensors of an entry, on the CPU; None if it is not there or not whole."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self.path(key)
        try:
            content = path.read_bytes()
            length = int.from_bytes(content[:8], "little")
            about = json.loads(content[8 : 8 + length]).get("__metadata__", {})
            named = load(content)
            tensors = tuple(named[str(number)] for number in range(len(self.layout)))
        except FileNotFoundError:
            return None
        except (
            OSError,
            ValueError,
            KeyError,
            AttributeError,
            OverflowError,
            RecursionError,
            SafetensorError,
        ) as error:
            _LOG.warning("%s is torn (%s); it is made again", path, error)
            return None
        expected = {"format": FORMAT, "store": self.digest, "key": key, "checksum": _checksum(tensors)}
        if about != expected or _layout(tensors) != self.layout:
            _LOG.warning("%s is damaged or of something else; it is made again", path)
            return None
        return tensors

    def save(self, key: str, tensors: tuple[torch.Tensor, ...]) -> None:
        """Keep an entry. OSError: the disk is full, or may not be written to."""
        from safetensors.torch import save

        plain = tuple(tensor.detach().cpu().contiguous() for tensor in tensors)
        about = {"format": FORMAT, "store": self.digest, "key": key, "checksum": _checksum(plain)}
        # A slice would be written with all of what it is a slice of.
        named = {str(number): tensor.clone() for number, tensor in enumerate(plain)}
        write_atomically(self.path(key), lambda file: file.write(save(named, about)), sync=False)


def _layout(tensors: Iterable[torch.Tensor]) -> Layout:
    return tuple((tuple(tensor.shape), tensor.dtype) for tensor in tensors)


def _checksum(tensors: Iterable[torch.Tensor]) -> str:
    return fingerprint((str(number), tensor) for number, tensor in enumerate(tensors))


def _raw(tensor: torch.Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
