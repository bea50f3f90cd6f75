"""Decoded masks -> the host, in the user's images' sizes: all is launched before the one wait for the GPU."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from modified_lisa.geometry import Frame

__all__ = ["fetch_masks"]

TOGETHER = 32 * 2**20
"""Pixels of masks that may be on the GPU at once, of which each takes some bytes; larger ones go to the host one by one."""


def fetch_masks(
    frames: Sequence[Frame],
    logits: Sequence[torch.Tensor],
    scores: Sequence[torch.Tensor],
    threshold: float,
) -> tuple[list[NDArray[np.bool_]], NDArray[np.float32], list[NDArray[np.float32]]]:
    """Of Q queries, each with N_i masks.

    Args:
        logits: (N_i, 256, 256), of the model's square.
        scores: (N_i,).
        threshold: of a mask's logits on the image.

    Returns:
        masks, bool (N_i, H_i, W_i) each; sums of the logits, float32 (Q,), finite if they all are; scores, float32 (N_i,)
        each. Memory of their own: no answer keeps another's.
    """
    counts = [len(part) for part in logits]
    masks = _on_the_images(frames, logits, counts, threshold)
    # Logits are far from the largest float, and so is their sum.
    sums = [one.sum(dtype=torch.float32)[None] for one in logits]
    told = torch.cat([*sums, *(one.float() for one in scores)])
    *found, numbers = _on_the_host([*masks, told])
    values = np.split(numbers[len(sums) :], np.cumsum(counts)[:-1])
    return [one.copy() for one in found], numbers[: len(sums)].copy(), [one.copy() for one in values]


def _on_the_host(tensors: Sequence[torch.Tensor]) -> list[NDArray]:
    """Each as an array, which may be a view of memory that serves again."""
    waiting: torch.device | None = None
    arrays = []
    for tensor in tensors:
        if tensor.is_cuda:
            # Pinned, as a GPU writes to no other memory by itself.
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            waiting, tensor = tensor.device, pinned.copy_(tensor, non_blocking=True)
        arrays.append(tensor)
    if waiting is not None:
        torch.cuda.current_stream(waiting).synchronize()
    return [one.cpu().numpy() for one in arrays]


def _on_the_images(
    frames: Sequence[Frame], logits: Sequence[torch.Tensor], counts: list[int], threshold: float
) -> Sequence[torch.Tensor]:
    """bool (N_i, H_i, W_i) of each query: on the logits' device, or on the host where they are large."""
    sizes = [max(frame.height * frame.width, frame.fine_side**2) for frame in frames]
    if sum(count * size for count, size in zip(counts, sizes, strict=True)) > TOGETHER:
        parts = zip(frames, logits, strict=True)
        return [(frame.mask_to_image(part) > threshold).cpu() for frame, part in parts]
    if len(frames) > 1 and len(set(frames)) == 1:
        return (frames[0].mask_to_image(torch.cat(list(logits))) > threshold).split(counts)
    return [frame.mask_to_image(part) > threshold for frame, part in zip(frames, logits, strict=True)]
