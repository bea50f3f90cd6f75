"""Pickle files that hold nothing but plain values, read without letting them run anything.

A pickle is a program: an ordinary reader calls whatever function the file names. This one knows no function
and no class but ``set`` and ``frozenset``, so a file can build numbers, strings, bytes, lists, tuples,
dictionaries, sets and None, and anything else is an error.
"""

import os
import pickle
from pathlib import Path
from typing import Any

from modified_lisa.errors import DataError

__all__ = ["read_plain_pickle"]


def read_plain_pickle(path: str | os.PathLike[str]) -> Any:
    """The value in the file. Strings of Python 2 are read as UTF-8.

    Raises:
        DataError: there is no such file, it is no pickle, or it holds more than plain values; names the file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _PlainUnpickler(file, encoding="utf-8", errors="replace").load()
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; check the path") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle raises anything: KeyError, IndexError, struct.error, ...
        reason = str(error) or type(error).__name__
        raise DataError(
            f"{path} is not a pickle file, or is damaged ({reason}); download it again"
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # Both are built in: a file cannot change them, only call them with values that it holds itself.
        if module in ("builtins", "__builtin__") and name in ("set", "frozenset"):
            return set if name == "set" else frozenset
        raise DataError(
            f"it asks for {module}.{name}; only plain values (dict, list, tuple, set, str, bytes, numbers, None) "
            "are read, since a pickle that names anything else could run code. Get the file from its authors"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise DataError(f"it refers to an object outside the file ({pid!r:.40}); only plain values are read")
