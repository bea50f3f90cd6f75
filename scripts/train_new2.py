#!/usr/bin/env python3
"""Training as in the specification: ``accelerate launch scripts/train_new2.py --epochs 20 ...``.

The same as ``modified-lisa train``. Also lets ``from train_new2 import ModifiedLISA`` work.
"""

import sys
from typing import TYPE_CHECKING, Any

from modified_lisa.training.command import main

if TYPE_CHECKING:
    from modified_lisa import ModifiedLISA

__all__ = ["ModifiedLISA", "main"]


def __getattr__(name: str) -> Any:
    if name == "ModifiedLISA":  # imported when asked for, so that --help answers at once
        from modified_lisa import ModifiedLISA

        return ModifiedLISA
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if __name__ == "__main__":
    sys.exit(main())
