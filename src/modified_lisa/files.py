"""Files that are either there in full or not at all."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

from modified_lisa.errors import ConfigError

__all__ = ["check_folder", "write_atomically", "write_json", "write_json_lines", "write_text"]


def check_folder(what: str, path: str | os.PathLike[str]) -> None:
    """ConfigError unless files can be written into the folder ``path``, or it can be made; nothing is made.

    ``what`` is the flag that names it. For work that takes long: to be told afterwards is too late.
    """
    there = Path(path)
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        where = "" if there == Path(path) else f" and {there} is"
        raise ConfigError(f"{what} is {os.fspath(path)!r},{where} a file; name a folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError(
            f"{what} is {os.fspath(path)!r}, and {there} cannot be written to; name another folder"
        )


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
    prefix, temporary = f".{path.name}.", None
    try:
        handle, temporary = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        # A full disk does not say which file it stopped, and the temporary's name says nothing to anybody.
        if isinstance(error, OSError) and (
            error.filename is None or Path(str(error.filename)).name.startswith(prefix)
        ):
            error.filename = str(path)
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
