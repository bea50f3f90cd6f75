"""A checkpoint's files: JSON, and weights, pickled or safetensors, one at a time: in memory is one tensor, mapped one file."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from modified_lisa.errors import ModelLoadError
from modified_lisa.model.sources import first_line, unsafe_or_torn

__all__ = ["Shards", "find_file", "read_json"]

_SINGLE = ("model.safetensors", "pytorch_model.bin")


def find_file(source: str, name: str) -> Path | None:
    """The file ``name`` of a local folder or of a hub repository (downloaded or cached); None: not there."""
    if (folder := Path(source)).is_dir():
        return folder / name if (folder / name).is_file() else None
    from transformers.utils import cached_file

    try:
        found = cached_file(
            source,
            name,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
            _raise_exceptions_for_gated_repo=False,
        )
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"{source}: {first_line(error)}") from error
    return None if found is None else Path(found)


def read_json(source: str, name: str, missing: dict[str, Any] | None = None) -> dict[str, Any]:
    """A JSON object of a folder or hub repository; ``missing``: what to give where there is no such file."""
    path = find_file(source, name)
    if path is None:
        if missing is not None:
            return missing
        if Path(source).is_dir():
            held = ", ".join(sorted(entry.name for entry in Path(source).iterdir())[:8]) or "nothing"
            raise ModelLoadError(f"{source} has no {name}; it holds {held}")
        raise ModelLoadError(
            f"{source}: there is no {name}, neither in a folder of that name nor on the Hugging Face hub or in its "
            f"cache. With a network, run: hf download {source}; without one, give the checkpoint's folder"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelLoadError(f"{path} is not JSON: {first_line(error)}") from error
    if not isinstance(values, dict):
        raise ModelLoadError(f"{path} holds no JSON object")
    return values


class Shards:
    """The tensors of a checkpoint by name, from ``.safetensors`` or ``.bin`` files, one or many.

    Opening reads names, shapes and types only. `read` keeps one file open at a time. Pickled files go through
    torch's safe loader, mapped into memory.

    Raises ModelLoadError for files that are missing, torn, or hold anything but tensors.
    """

    def __init__(self, files: list[Path]) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, torch.dtype] = {}
        self._file: dict[str, Path] = {}
        self._open: tuple[Path, Any] | None = None
        self._lock = threading.Lock()
        for path in files:
            for name, shape, dtype in _contents(path):
                if name in self._file:
                    raise ModelLoadError(f"{name} is both in {self._file[name]} and in {path}")
                self.shapes[name], self.dtypes[name], self._file[name] = shape, dtype, path

    @classmethod
    def find(cls, source: str) -> "Shards":
        """The weight files of a folder or hub repository; safetensors where there are both kinds."""
        for single in _SINGLE:
            if index := find_file(source, f"{single}.index.json"):
                return cls(_of_index(source, index))
            if path := find_file(source, single):
                return cls([path])
        folder = Path(source)
        loose = sorted(folder.glob("pytorch_model*.bin")) if folder.is_dir() else []
        if loose:
            return cls(loose)
        held = f"; it holds {_names(folder)}" if folder.is_dir() else ""
        raise ModelLoadError(
            f"{source} has no weights: none of {', '.join(_SINGLE)}, or an index of one of them{held}"
        )

    def file_of(self, name: str) -> str:
        """The file that holds a tensor; reading those of one file in turn opens it once."""
        return str(self._file[name])

    def read(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU, in the file's dtype. It may be a view of the mapped file: do not write to it."""
        with self._lock:
            path = self._file[name]
            if self._open is None or self._open[0] != path:
                self._open = None  # first let go of the other file
                self._open = (path, _open(path))
            content = self._open[1]
            tensor: torch.Tensor = content[name] if isinstance(content, dict) else content.get_tensor(name)
            return tensor

    def close(self) -> None:
        """Let go of the file that is open."""
        with self._lock:
            self._open = None


def _open(path: Path) -> Any:
    """A mapping of tensors (``.bin``), or an open safetensors file."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            return safe_open(path, framework="pt", device="cpu")
        except (OSError, SafetensorError) as error:
            raise ModelLoadError(f"{path} cannot be read: {first_line(error)}") from error
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            # Files of PyTorch before 1.6 cannot be mapped; they are read whole.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is torn, or no checkpoint, makes the reader raise anything
        raise ModelLoadError(
            f"{path} cannot be read as plain tensors by the safe loader: {unsafe_or_torn(error)}"
        ) from error
    odd = (
        [name for name, value in content.items() if not _plain(name, value)][:3]
        if isinstance(content, dict)
        else ["the whole of it"]
    )
    if odd:
        raise ModelLoadError(
            f"{path} holds things that are no dense tensors with a name: {', '.join(map(str, odd))}"
        )
    return content


def _plain(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor) and value.layout == torch.strided


def _contents(path: Path) -> Iterator[tuple[str, tuple[int, ...], torch.dtype]]:
    content = _open(path)
    if isinstance(content, dict):
        for name, tensor in content.items():
            yield name, tuple(tensor.shape), tensor.dtype
        return
    types = {
        "F64": torch.float64,
        "F32": torch.float32,
        "F16": torch.float16,
        "BF16": torch.bfloat16,
        "I64": torch.int64,
        "I32": torch.int32,
    }
    for name in content.keys():  # noqa: SIM118 (no dict)
        part = content.get_slice(name)
        if (dtype := types.get(part.get_dtype())) is None:
            raise ModelLoadError(f"{path}: {name} is of type {part.get_dtype()}; {', '.join(types)} are read")
        yield name, tuple(part.get_shape()), dtype


def _of_index(source: str, index: Path) -> list[Path]:
    try:
        named = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{index} is not an index of weight files: {first_line(error)}") from error
    if wrong := [name for name in named if Path(str(name)).name != name]:
        raise ModelLoadError(f"{index} names {wrong[0]!r}, which is not the name of a file beside it")
    files = {name: find_file(source, name) for name in named}
    if missing := [name for name, path in files.items() if path is None]:
        raise ModelLoadError(
            f"{index} names {len(named)} files, and {len(missing)} are not there: {', '.join(missing[:4])}; "
            "download the checkpoint again"
        )
    return [path for path in files.values() if path is not None]


def _names(folder: Path) -> str:
    return ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
