"""Several processes with one model: an error in one is raised in all, and of a sharded model all compute equally often."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from modified_lisa.data.collate import Batch
from modified_lisa.errors import ModifiedLISAError
from modified_lisa.model.sharding import is_sharded

__all__ = ["in_company", "raise_together", "together"]


def raise_together(problem: ModifiedLISAError | None, accelerator: Accelerator | None) -> None:
    """Raise in all processes what went wrong in any of them, so that none waits for another forever."""
    problems = [problem] if problem is not None else []
    if accelerator is not None and accelerator.num_processes > 1:
        problems = gather_object(problems)
    if problem is not None and len(problems) == 1:
        raise problem
    if problems:
        raise type(problems[0])("; ".join(dict.fromkeys(map(str, problems))))


def in_company(
    batches: Iterable[Batch], model: Any, accelerator: Accelerator | None
) -> Iterator[tuple[int, Batch]]:
    """``batches``, numbered. Of a sharded model all processes get their next one, or all the error of one."""
    waiting = enumerate(batches)
    if not is_sharded(model):
        yield from waiting
        return
    while True:
        with together(model, accelerator):
            following = next(waiting, None)
        if following is None:
            return
        yield following


@contextlib.contextmanager
def together(model: Any, accelerator: Accelerator | None) -> Iterator[None]:
    """Around what all processes do with a sharded model: an error in one is raised in all, so that none goes on alone."""
    if not is_sharded(model):
        yield
        return
    problem: ModifiedLISAError | None = None
    try:
        yield
    except ModifiedLISAError as error:
        problem = error
    raise_together(problem, accelerator)
