"""How far the masks of two ways of running one model are apart."""

from typing import Any

import torch

from modified_lisa.benchmark.pipelines import Pipeline
from modified_lisa.benchmark.stages import picture, query_of
from modified_lisa.errors import ModelLoadError

__all__ = ["compare", "sample_logits"]

SAMPLES = 4
LENGTHS = (24, 36, 48, 60)
"""Tokens of the prompts beside the image's."""


def sample_logits(pipeline: Pipeline) -> list[torch.Tensor]:
    """Logits float32 (256, 256) of a few images and queries of different lengths, on the CPU."""
    found = []
    for seed in range(SAMPLES):
        text = query_of(pipeline.model.processor, LENGTHS[seed])
        inputs = pipeline.prepare([picture(seed)], [text])
        with torch.inference_mode():
            found.append(pipeline.masks(inputs)[0][0].float().cpu())
    return found


def compare(ours: list[torch.Tensor], reference: list[torch.Tensor]) -> dict[str, Any]:
    """Over all samples: the largest difference of logits relative to the largest logit, the mean difference
    relative to the mean size, the smallest and mean IoU of the masks (logit > 0), and the largest share of cells that one
    mask has and the other has not: of masks of a few cells, as random weights may give, an IoU says little.

    Raises ModelLoadError for logits that are not finite.
    """
    worst, mean, changed, ious = 0.0, 0.0, 0.0, []
    for new, old in zip(ours, reference, strict=True):
        if not (bool(new.isfinite().all()) and bool(old.isfinite().all())):
            raise ModelLoadError("the masks to compare are not finite (NaN or infinite); try another --dtype")
        gap = (new - old).abs()
        worst = max(worst, float(gap.max() / old.abs().max().clamp(min=1e-12)))
        mean = max(mean, float(gap.mean() / old.abs().mean().clamp(min=1e-12)))
        changed = max(changed, float(((new > 0) != (old > 0)).float().mean()))
        both, either = ((new > 0) & (old > 0)).sum(), ((new > 0) | (old > 0)).sum()
        ious.append(float(both / either) if either else 1.0)
    return {
        "samples": len(ious),
        "max_difference": worst,
        "mean_difference": mean,
        "min_iou": min(ious),
        "mean_iou": sum(ious) / len(ious),
        "max_changed": changed,
    }
