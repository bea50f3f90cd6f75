"""Files that are either there in full or not at all."""

import contextlib
import io
import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from modified_lisa.errors import ConfigError

__all__ = ["alone_in", "check_folder", "write_atomically", "write_json", "write_json_lines", "write_text"]


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
    Missing parent folders are made. A link stays, and what it leads to is written; so is a device or a pipe, which
    nothing may take the place of. ``sync=False`` does not wait for the disk: for files that can be made
    again, and whose reader notices if the power failed before they were on it.
    """
    path = Path(path)
    place = Path(os.path.realpath(path))
    if _is_device(place):
        made = io.BytesIO()  # some formats are not written from front to back
        write(made)
        with place.open("wb") as device:
            device.write(made.getvalue())
        return path
    place.parent.mkdir(parents=True, exist_ok=True)
    # Short, since a name may be as long as the file system allows.
    prefix, temporary = f".{place.name[:20]}.", None
    try:
        handle, temporary = tempfile.mkstemp(prefix=prefix, suffix=".tmp", dir=place.parent)
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        os.replace(temporary, place)
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


@contextlib.contextmanager
def alone_in(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Meanwhile, no other process that asks for the same works in ``folder``, which is made if it is not there.

    ConfigError if one does. It is the system that knows: a process that was killed holds nothing. File systems and
    systems without such locks (``flock``) are trusted.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    place = Path(folder, ".in_use")
    place.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        while True:
            file = held.enter_context(place.open("ab"))
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ConfigError(
                    f"another process is writing into {os.fspath(folder)!r}; name another folder, or wait for it"
                ) from error
            except OSError:
                break
            # Who held it before may have removed it meanwhile, and somebody else hold the one that is there now.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), place.stat()):
                    break
        try:
            yield
        finally:
            place.unlink(missing_ok=True)


def _is_device(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:  # not there, or what keeps it from being read will be said by writing it
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
