"""Weights in safetensors files, read one tensor at a time, and only those that the model keeps.

transformers maps every shard of a model into memory and lets go of all of them at the end, so that the resident
memory of the process grows to the size of the files. Here each tensor has a mapping of its own, which goes when the
tensor has been converted or copied to a GPU: the host holds little more than what stays on it. What stays on a CPU in
the precision of its file is not even copied.
"""

import json
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modified_lisa.errors import ModelLoadError

__all__ = ["FileTensor", "find_shards", "read_headers"]

_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"


@dataclass(eq=False)
class FileTensor:
    """A tensor that is still in its file; ``tensor[...]`` reads it. What transformers takes for a safetensors slice."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    """As safetensors writes it: ``BF16``, ``F32``, ..."""
    nbytes: int
    bar: Any = None
    """Told of the bytes that were read: a tqdm bar, or None."""

    def __getitem__(self, index: Any) -> Any:
        from safetensors import safe_open

        with safe_open(self.file, framework="pt") as reader:
            tensor = reader.get_tensor(self.name)[index]
        self.tell()
        return tensor

    def tell(self) -> None:
        """Tell the bar that the tensor has been read."""
        if self.bar is not None:
            with _BAR:  # transformers reads in several threads
                self.bar.update(self.nbytes)

    def get_shape(self) -> list[int]:
        return list(self.shape)

    def get_dtype(self) -> str:
        return self.dtype

    @property
    def count(self) -> int:
        """Numbers in it."""
        total = 1
        for side in self.shape:
            total *= side
        return total


_BAR = threading.Lock()


def find_shards(source: str) -> list[Path] | None:
    """The safetensors files of a hub name or a folder (downloaded if need be); None if it has weights of another kind.

    Raises:
        OSError: neither the hub nor the folder has them, as transformers says it.
    """
    from transformers.utils import cached_file

    missing_is_none: dict[str, Any] = {"_raise_exceptions_for_missing_entries": False}
    index = cached_file(source, _INDEX, **missing_is_none)
    if index is None:
        single = cached_file(source, _SINGLE, **missing_is_none)
        return None if single is None else [Path(single)]
    try:
        names = sorted(set(json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ModelLoadError(
            f"{index} is torn or no index of safetensors files; download it again"
        ) from error
    return [Path(str(cached_file(source, name))) for name in names]


def read_headers(files: Iterable[Path], skip: str | None = None) -> dict[str, FileTensor]:
    """Name -> tensor of all ``files``, without reading one; not those whose name the pattern ``skip`` is found in.

    Raises:
        safetensors.SafetensorError: a file that is torn.
    """
    from safetensors import safe_open

    found: dict[str, FileTensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as reader:  # checks the header against the file
            names = set(reader.keys())
        with file.open("rb") as raw:
            header = json.loads(raw.read(int.from_bytes(raw.read(8), "little")))
        for name in names:
            if skip is not None and re.search(skip, name):
                continue
            entry = header[name]
            first, last = entry["data_offsets"]
            found[name] = FileTensor(file, name, tuple(entry["shape"]), entry["dtype"], last - first)
    return found
