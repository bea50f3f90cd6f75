"""Which sample is computed when and where: a plan made before an epoch, the same for every process layout.

An optimizer step takes the next G = batch size x accumulation steps x processes samples of the epoch's
order. So the samples of every step are the same for all layouts with one G, and so are its loss and
gradient (up to rounding). Nothing is padded: where an epoch does not divide evenly, the last step is
smaller, and a process may have nothing to do in it. So no duplicate can slip into a loss or a metric.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["Layout", "Step", "plan_epoch"]


@dataclass(frozen=True)
class Layout:
    """How the samples of an optimizer step are dealt out."""

    batch_size: int
    """Samples that one process computes at once."""
    accumulation: int
    """Batches of each process in one step."""
    processes: int = 1

    @property
    def global_batch(self) -> int:
        """Samples of one optimizer step over all processes."""
        return self.batch_size * self.accumulation * self.processes

    def steps(self, samples: int) -> int:
        """Optimizer steps of an epoch of ``samples`` samples."""
        return -(-samples // self.global_batch)


@dataclass(frozen=True)
class Step:
    """One optimizer step, as one process sees it."""

    batches: list[list[int]]
    """Dataset indices of each batch of this process; none of them is empty, but there may be none."""
    samples: int
    """Samples of the whole step, over all processes: what its summed loss is divided by."""
    counted: int
    """How many of ``batches`` count; one after them is another process's, computed to keep it company."""


def plan_epoch(
    samples: int, layout: Layout, *, rank: int, seed: int, epoch: int, in_step: bool = False
) -> list[Step]:
    """The steps of one epoch for process ``rank``: a shuffle that depends on ``seed`` and ``epoch`` alone.

    Args:
        in_step: give all processes the same number of batches, by one that is not counted.
    """
    order = np.random.default_rng([seed, epoch]).permutation(samples).tolist()
    size = layout.batch_size
    steps = []
    for start in range(0, samples, layout.global_batch):
        taken = order[start : start + layout.global_batch]
        batches = [taken[first : first + size] for first in range(0, len(taken), size)]
        own = batches[rank :: layout.processes]
        company = -(-len(batches) // layout.processes) - len(own) if in_step else 0
        steps.append(Step([*own, *[batches[0]] * company], len(taken), len(own)))
    return steps
