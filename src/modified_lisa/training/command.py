"""``train_new2.py`` as a program: parse, train, and say errors in one message."""

import os
import sys
from collections.abc import Sequence

from modified_lisa.errors import ModifiedLISAError
from modified_lisa.training.arguments import parse

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Train as a command line says (None: this process's own); the exit status.

    0: done. 2: something the user can put right, said in one message. 130: interrupted.
    """
    try:
        config = parse(argv)
        from modified_lisa.training.run import train  # torch comes in here, after --help has been answered

        train(config)
    except ModifiedLISAError as error:
        return _refuse(str(error))
    except OSError as error:
        if error.filename is None:
            raise
        return _refuse(f"{error.filename}: {error.strerror}")  # a folder given that cannot be read or written
    except KeyboardInterrupt:
        return 130
    return 0


def _refuse(message: str) -> int:
    # Every process of a run comes here; one says it.
    if os.environ.get("RANK", "0") == "0":
        print(f"error: {message}", file=sys.stderr)
    return 2
