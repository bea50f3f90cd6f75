"""Files that are either there in full or not at all."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["write_atomically", "write_json", "write_json_lines", "write_text"]


def write_atomically(
    path: str | os.PathLike[str], write: Callable[[BinaryIO], Any], *, sync: bool = True
) -> Path:
    """Call ``write(file)`` on a temporary neighbour of ``path``, then move it into place.

    A reader sees the old file or the new one, never a part of either; a crash leaves the old one.
    Missing parent folders are made. ``sync=False`` does not wait for the disk: for files that can be made
    again, and whose reader notices if the power failed before they were on it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk does not say which file it stopped
        raise
    return path


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Write ``text`` as UTF-8, atomically."""
    return write_atomically(path, lambda file: file.write(text.encode("utf-8")))


def write_json(path: str | os.PathLike[str], value: object) -> Path:
    """Write ``value`` as indented JSON, atomically. NaN and infinities are refused (ValueError)."""
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: str | os.PathLike[str], rows: Iterable[object]) -> Path:
    """Write each of ``rows`` as JSON on a line of its own, atomically. NaN and infinities are refused."""
    return write_text(
        path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
