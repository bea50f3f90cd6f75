"""What the student is asked to match, and batches of it.

Shapes: B images, Q queries of each, C and h = w channels and side of SAM's embedding, G = 4h cells of a mask's side.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from modified_lisa.config import LossWeights
from modified_lisa.errors import TrainingError
from modified_lisa.geometry import Frame
from modified_lisa.losses import segmentation_loss
from modified_lisa.model.feature_store import FeatureStore
from modified_lisa.training.distillation.preparing import Picture

__all__ = ["Stores", "Targets", "agreement", "embedding_errors", "load_targets", "mask_loss"]

_WEIGHTS = LossWeights(bce=1.0, dice=1.0, iou=0.0)


@dataclass(frozen=True)
class Stores:
    """Where everything that does not train is kept."""

    embeddings: FeatureStore
    features: FeatureStore
    prompts: FeatureStore


@dataclass(frozen=True)
class Targets:
    """A batch."""

    features: tuple[torch.Tensor, ...]
    """(B, ...) each: of the student's frozen encoder, what its bridge reads among them."""
    embedding: torch.Tensor
    """float32 (B, C, h, w): the teacher's."""
    prompts: tuple[torch.Tensor, torch.Tensor] | None
    """float32 (B, Q, C) each: the student's and the teacher's prompts; None where masks are not asked for."""
    inside: torch.Tensor
    """float32 (B, G, G): 1 where the image is in the square, 0 in the padding."""

    def to(self, device: torch.device) -> "Targets":
        def move(x: torch.Tensor) -> torch.Tensor:
            return x.to(device, non_blocking=True)

        prompts = None if self.prompts is None else (move(self.prompts[0]), move(self.prompts[1]))
        return Targets(tuple(map(move, self.features)), move(self.embedding), prompts, move(self.inside))


def load_targets(
    stores: Stores, batches: Sequence[Sequence[Picture]], side: int, *, prompts: bool, workers: int
) -> Iterator[Targets]:
    """Batches in order. TrainingError where an entry has gone bad since it was checked."""
    loader = DataLoader(
        _Loading(stores, batches, side, prompts),
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        generator=torch.Generator().manual_seed(0),
    )
    for batch in loader:
        if isinstance(batch, str):
            raise TrainingError(batch)
        yield batch


class _Loading(Dataset[Any]):
    def __init__(
        self, stores: Stores, batches: Sequence[Sequence[Picture]], side: int, prompts: bool
    ) -> None:
        self.stores, self.batches, self.side, self.prompts = stores, batches, side, prompts

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Targets | str:
        pictures = self.batches[index]
        try:
            features = _stack(self.stores.features, [one.key for one in pictures])
            (embedding,) = _stack(self.stores.embeddings, [one.key for one in pictures])
            pair = None
            if self.prompts:
                own, teacher = _stack(self.stores.prompts, [one.prompts_key for one in pictures])
                pair = own, teacher
        except _Gone as error:
            return f"{error} has gone bad while it was used; start again with --resume, and it is made again"
        inside = torch.zeros(len(pictures), self.side, self.side)
        for row, picture in enumerate(pictures):
            height, width = Frame(*picture.size).content(self.side)
            inside[row, :height, :width] = 1
        return Targets(features, embedding.float(), pair, inside)


class _Gone(Exception):
    pass


def _stack(store: FeatureStore, keys: list[str]) -> tuple[torch.Tensor, ...]:
    entries = []
    for key in keys:
        entry = store.load(key)
        if entry is None:
            raise _Gone(str(store.path(key)))
        entries.append(entry)
    return tuple(torch.stack(parts) for parts in zip(*entries, strict=True))


def _unchanged(item: Any) -> Any:
    return item


def embedding_errors(ours: torch.Tensor, theirs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far embeddings (B, C, h, w) are from the teacher's, two numbers for each image, (B,).

    - the squared error as a share of the variance of the teacher's embedding over its cells (1: as good as
      its mean, 0: equal), so that it does not depend on the scale of a SAM;
    - 1 - the cosine between the channels of a cell, its mean over the cells.
    """
    error = (ours - theirs).square().sum((1, 2, 3))
    spread = (theirs - theirs.mean((2, 3), keepdim=True)).square().sum((1, 2, 3))
    return error / spread.clamp(min=1e-12), 1 - F.cosine_similarity(ours, theirs, dim=1).mean((1, 2))


def mask_loss(ours: torch.Tensor, theirs: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """BCE + Dice of logits (N, G, G) against the teacher's logits as soft masks, within the image; (N,)."""
    return segmentation_loss(ours, theirs.sigmoid(), inside, _WEIGHTS)["loss"]


def agreement(ours: torch.Tensor, theirs: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """IoU of two masks given as logits (N, G, G), within the image; (N,). Two empty masks agree."""
    one, other, counted = ours > 0, theirs > 0, inside > 0
    both = (one & other & counted).sum((1, 2)).float()
    either = ((one | other) & counted).sum((1, 2)).float()
    return torch.where(either > 0, both / either.clamp(min=1), 1.0)
