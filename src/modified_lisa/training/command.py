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
        # Every process of a run raises it; one says it.
        if os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0
