"""The student's masks against the teacher's, a few images at a time.

A mask being learned from holds about 70 MB at full size until its gradient is made; the gradient of a batch's embedding is
a sum over its masks, so nothing is lost by making them in turns. Names of shapes: as in `targets`.
"""

from collections.abc import Iterator
from typing import Any

import torch

from modified_lisa.training.distillation import targets
from modified_lisa.training.distillation.targets import Targets

__all__ = ["MASKS_AT_ONCE", "loss_and_gradient", "measures"]

MASKS_AT_ONCE = 8
"""Of the student, at least one image's: the memory of the mask stage follows from it."""


def loss_and_gradient(
    head: Any, embedding: torch.Tensor, batch: Targets
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean of the masks' loss, (), and its gradient with respect to the student's ``embedding`` (B, C, h, w)."""
    count = _prompts(batch)[0].shape[:2].numel()
    loss = embedding.new_zeros(())
    gradients: list[torch.Tensor] = []
    for ours, theirs, rows in _turns(batch):
        leaf = embedding[rows].detach().requires_grad_()
        part = targets.mask_loss(*_both(head, leaf, ours, theirs, batch, rows)).sum() / count
        gradients += torch.autograd.grad(part, leaf)
        loss = loss + part.detach()
    return loss, torch.cat(gradients)


@torch.no_grad()
def measures(head: Any, embedding: torch.Tensor, batch: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every mask, (B * Q,) each: its loss, and the IoU with the teacher's."""
    losses, agreements = [], []
    for ours, theirs, rows in _turns(batch):
        masks = _both(head, embedding[rows], ours, theirs, batch, rows)
        losses.append(targets.mask_loss(*masks))
        agreements.append(targets.agreement(*masks))
    return torch.cat(losses), torch.cat(agreements)


def _prompts(batch: Targets) -> tuple[torch.Tensor, torch.Tensor]:
    if batch.prompts is None:
        raise ValueError("this batch was loaded without prompts; load_targets(..., prompts=True)")
    return batch.prompts


def _turns(batch: Targets) -> Iterator[tuple[torch.Tensor, torch.Tensor, slice]]:
    """(rows, Q, C) prompts of student and teacher, and the images that they are of."""
    own, teachers = _prompts(batch)
    step = max(1, MASKS_AT_ONCE // own.shape[1])
    for first in range(0, len(own), step):
        rows = slice(first, first + step)
        yield own[rows], teachers[rows], rows


def _both(
    head: Any, embedding: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor, batch: Targets, rows: slice
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits (N, G, G) of student and teacher, and what is inside."""
    count = ours.shape[1]
    # Before the student's, which hold memory until their gradient is made.
    with torch.no_grad():
        wanted, _ = head(batch.embedding[rows].repeat_interleave(count, 0), theirs.flatten(0, 1))
    logits, _ = head(embedding.repeat_interleave(count, 0), ours.flatten(0, 1))
    return logits, wanted, batch.inside[rows].repeat_interleave(count, 0)
