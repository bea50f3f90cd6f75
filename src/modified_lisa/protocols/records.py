"""What is kept of one measured sample."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from modified_lisa.data.collate import Batch
from modified_lisa.metrics import MaskScore
from modified_lisa.scoring.boundary import boundary_score

__all__ = ["sample_record"]


def sample_record(
    batch: Batch,
    row: int,
    score: MaskScore,
    mask: Tensor,
    iou_prediction: float | None,
    losses: Mapping[str, float],
) -> dict[str, Any]:
    """The record of sample ``row``; its keys are those of `EvaluationResult.records`.

    Args:
        mask: bool (H, W), on the CPU, at the resolution of the user's image.
        iou_prediction: what the model expects the mask's IoU to be; None: it drew none.
    """
    predicted, target, groups = mask.numpy(), batch.targets[row].numpy(), batch.groups[row]
    target_area = int(np.count_nonzero(target == 1))
    predicted_area = score.intersection + score.union - target_area
    return {
        "name": batch.names[row],
        "text": batch.texts[row],
        "type": groups.get("type"),
        "is_sentence": {"long": True, "short": False}.get(groups.get("length", "")),
        "groups": dict(groups),
        "iou": score.iou,
        "giou": score.giou,
        "intersection": score.intersection,
        "union": score.union,
        "boundary_iou": boundary_score(predicted, target).iou,
        "iou_prediction": iou_prediction,
        "target_area": target_area,
        "predicted_area": predicted_area,
        "target_empty": target_area == 0,
        "predicted_empty": predicted_area == 0,
        "losses": dict(losses),
    }
