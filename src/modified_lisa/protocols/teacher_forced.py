"""The teacher-forced protocol: ``<SEG>`` is given, and a batch's masks are scored. Training scores the same way."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modified_lisa.benchmark.measure import usual_algorithms
from modified_lisa.config import LossWeights
from modified_lisa.data.collate import Batch
from modified_lisa.errors import TrainingError
from modified_lisa.losses import balanced_weights, iou_prediction_loss, segmentation_loss
from modified_lisa.metrics import SegmentationMetrics
from modified_lisa.model.answers.prompting import AnswerInputs
from modified_lisa.model.answers.teaching import teach

__all__ = ["TERMS", "Scores", "score_batch", "terms_of"]

TERMS = ("loss", "bce", "dice", "iou_loss", "iou_prediction")
"""Losses that are reported. ``loss`` is the weighted sum of the three after it; ``iou_prediction``, how far
the predicted IoU is from the measured one, is trained too but is not part of it."""


def terms_of(weights: LossWeights) -> tuple[str, ...]:
    """The losses of a training with these weights: `TERMS`, and ``ce`` (of the answers' words) in answer mode."""
    return (*TERMS, "ce") if weights.ce > 0 else TERMS


@dataclass(frozen=True)
class Scores:
    """What one batch of B samples scored."""

    losses: dict[str, Tensor]
    """float32 (B,) for each of `TERMS`, and ``ce`` of a batch with answers to learn; 0 of a mask that an answer
    does not have."""
    metrics: SegmentationMetrics
    """B masks, at the resolution of the user's image."""
    iou_predictions: Tensor
    """float32 (B,): what the mask decoder expects its IoU to be."""
    predicted: list[Tensor]
    """bool (H, W) each, on the CPU: the predicted masks at the resolution of the user's image."""

    def check_finite(self, names: list[str]) -> None:
        """TrainingError with the sample and the term of every loss that is not finite."""
        terms = (*TERMS, *sorted(self.losses.keys() - set(TERMS)))
        values = torch.stack([self.losses[term].detach() for term in terms])
        if bool(values.isfinite().all()):
            return
        found = [
            f"{name} ({', '.join(f'{term} {value:g}' for term, value in zip(terms, row, strict=True))})"
            for name, row in zip(names, values.T.tolist(), strict=True)
            if not all(map(math.isfinite, row))
        ]
        raise TrainingError(f"the loss is not finite for {'; '.join(found)}")


def score_batch(model: Any, batch: Batch, weights: LossWeights, *, balance: float = 0.0) -> Scores:
    """Run the model on a batch (on the model's device) and score every mask; gradients flow into the losses.

    The losses are computed on the model's square, whose 256 x 256 grid is the same for all images, so that
    a batch is one tensor whatever the sizes of its images; the targets there are area averages, so that thin
    things are not lost. The metrics are computed on the user's image. ``balance`` is the strength of
    `losses.balanced_weights` in the former; 0: every pixel counts alike.
    """
    valid = balanced_weights(batch.grid_target, batch.grid_valid, balance) if balance else batch.grid_valid
    if isinstance(batch.inputs, AnswerInputs):
        logits, predictions, text_loss = teach(model, batch.inputs)
        rows = batch.inputs.segs[0]
        losses = segmentation_loss(logits, batch.grid_target[rows], valid[rows], weights)
    else:
        outputs = model(batch.inputs)
        logits, predictions = torch.cat(outputs["pred_masks"]), torch.cat(outputs["iou_predictions"])
        text_loss, rows = None, None
        losses = segmentation_loss(logits, batch.grid_target, valid, weights)
    metrics = SegmentationMetrics()
    # A training's deterministic algorithms would resize by another, far slower way than `Segmenter` does.
    with usual_algorithms():
        predicted = [
            (frame.mask_to_image(masks) > 0).any(dim=0).cpu()  # all False without a mask
            for frame, masks in zip(
                batch.inputs.frames, logits.detach().split(batch.inputs.seg_counts), strict=True
            )
        ]
    for mask, target in zip(predicted, batch.targets, strict=True):
        metrics.update(mask, target)
    measured = torch.tensor([score.iou for score in metrics.scores], device=predictions.device)
    losses["iou_prediction"] = iou_prediction_loss(predictions, measured if rows is None else measured[rows])
    if rows is not None and text_loss is not None:
        losses = {name: _spread(values, rows, len(batch)) for name, values in losses.items()}
        predictions = _spread(predictions, rows, len(batch))
        losses["ce"] = text_loss
        losses["loss"] = losses["loss"] + weights.ce * text_loss
    return Scores(losses, metrics, predictions.detach(), predicted)


def _spread(values: Tensor, rows: Tensor, count: int) -> Tensor:
    """(N,) of the samples ``rows`` as (count,), 0 elsewhere."""
    return values.new_zeros(count).index_add(0, rows, values)
