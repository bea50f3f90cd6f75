"""Measuring a model on a data set. Validation during training and ``modified-lisa evaluate`` are this.

Protocol: as LISA's, ``<SEG>`` is given at the end of the query, a pixel belongs to the answer if its logit
is above 0, and masks are compared at the user's resolution. `ReasonSegDataset` gives only the first text
of an annotation in every split but train, as the original's evaluation does.
"""

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from modified_lisa.benchmark.measure import usual_algorithms
from modified_lisa.config import LossWeights
from modified_lisa.data.collate import Batch, Collator, SampleSource, load_batches
from modified_lisa.data.opening import PROTOCOLS, open_dataset
from modified_lisa.errors import ConfigError, DataError, ModifiedLISAError, TrainingError
from modified_lisa.files import write_json_lines
from modified_lisa.losses import iou_prediction_loss, segmentation_loss
from modified_lisa.metrics import SegmentationMetrics
from modified_lisa.model.feature_cache import FeatureCache
from modified_lisa.scoring.boundary import boundary_score
from modified_lisa.scoring.summary import summarize

__all__ = [
    "TERMS",
    "EvaluationResult",
    "Scores",
    "evaluate",
    "evaluate_checkpoint",
    "raise_together",
    "score_batch",
]

TERMS = ("loss", "bce", "dice", "iou_loss", "iou_prediction")
"""Losses that are reported. ``loss`` is the weighted sum of the three after it; ``iou_prediction``, how far
the predicted IoU is from the measured one, is trained too but is not part of it."""


@dataclass(frozen=True)
class Scores:
    """What one batch of B samples scored."""

    losses: dict[str, Tensor]
    """float32 (B,) for each of `TERMS`."""
    metrics: SegmentationMetrics
    """B masks, at the resolution of the user's image."""
    iou_predictions: Tensor
    """float32 (B,): what the mask decoder expects its IoU to be."""
    predicted: list[Tensor]
    """bool (H, W) each, on the CPU: the predicted masks at the resolution of the user's image."""

    def check_finite(self, names: list[str]) -> None:
        """TrainingError with the sample and the term of every loss that is not finite."""
        values = torch.stack([self.losses[term].detach() for term in TERMS])
        if bool(values.isfinite().all()):
            return
        found = [
            f"{name} ({', '.join(f'{term} {value:g}' for term, value in zip(TERMS, row, strict=True))})"
            for name, row in zip(names, values.T.tolist(), strict=True)
            if not all(map(math.isfinite, row))
        ]
        raise TrainingError(f"the loss is not finite for {'; '.join(found)}")


def score_batch(model: Any, batch: Batch, weights: LossWeights) -> Scores:
    """Run the model on a batch (on the model's device) and score every mask; gradients flow into the losses.

    The losses are computed on the model's square, whose 256 x 256 grid is the same for all images, so that
    a batch is one tensor whatever the sizes of its images; the targets there are area averages, so that thin
    things are not lost. The metrics are computed on the user's image.
    """
    outputs = model(batch.inputs)
    logits, predictions = torch.cat(outputs["pred_masks"]), torch.cat(outputs["iou_predictions"])
    losses = segmentation_loss(logits, batch.grid_target, batch.grid_valid, weights)
    metrics = SegmentationMetrics()
    # A training's deterministic algorithms would resize by another, far slower way than `Segmenter` does.
    with usual_algorithms():
        predicted = [
            (frame.mask_to_image(mask[None])[0] > 0).cpu()
            for frame, mask in zip(batch.inputs.frames, logits.detach(), strict=True)
        ]
    for mask, target in zip(predicted, batch.targets, strict=True):
        metrics.update(mask, target)
    measured = torch.tensor([score.iou for score in metrics.scores], device=predictions.device)
    losses["iou_prediction"] = iou_prediction_loss(predictions, measured)
    return Scores(losses, metrics, predictions.detach(), predicted)


@dataclass(frozen=True)
class EvaluationResult:
    """Metrics, mean losses, and a record for every sample in the order of the data set."""

    metrics: dict[str, float]
    """mIoU (the LISA paper's gIoU), cIoU (the paper's cIoU), gIoU (of bounding boxes)."""
    losses: dict[str, float]
    """The mean over the samples of each of `TERMS`."""
    records: list[dict[str, Any]]
    """name, text, type, is_sentence, groups, iou, intersection, union (pixels), giou, boundary_iou,
    iou_prediction, target_area, predicted_area (pixels), target_empty, predicted_empty, and each of `TERMS`
    as ``losses``. type and is_sentence are None where the data does not say."""

    @cached_property
    def summary(self) -> dict[str, Any]:
        """All metrics with intervals, by group too, and the calibration; see `scoring.summary.summarize`."""
        return summarize(self.records)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: ``samples``, ``metrics``, those of `summary`, ``losses``, ``records``."""
        return {
            "samples": len(self.records),
            "metrics": self.metrics,
            **self.summary,
            "losses": self.losses,
            "records": self.records,
        }


def evaluate(
    model: Any,
    dataset: SampleSource,
    *,
    accelerator: Accelerator | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    loss_weights: LossWeights | None = None,
    progress: Callable[[int], Any] | None = None,
    cache: FeatureCache | None = None,
) -> EvaluationResult:
    """Measure ``model`` on every sample of ``dataset``.

    Args:
        accelerator: given in several processes: each takes its share, all get the whole result. The result
            does not depend on how many there are.
        progress: called with the number of samples this process has just done.
        cache: the model's; its encoders run for images only that are not in it.

    Raises:
        DataError: the data set is empty, or a sample cannot be used.
        TrainingError: a loss that is not finite.
    """
    if not len(dataset):
        raise DataError("the data set to evaluate on is empty; check the folder and the sample limit")
    rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    # Batches are made first and dealt out then, so that they hold the same samples for any number of processes.
    batches = [
        list(range(first, min(first + batch_size, len(dataset))))
        for first in range(0, len(dataset), batch_size)
    ][rank::processes]
    weights = loss_weights or LossWeights()
    was_training = model.training
    model.eval()
    records: list[tuple[int, dict[str, Any]]] = []
    problem: ModifiedLISAError | None = None
    try:
        with torch.no_grad():
            loaded = load_batches(
                dataset,
                batches,
                Collator(model.processor, None if cache is None else cache.store),
                num_workers=num_workers,
                complete=None if cache is None else cache.complete,
            )
            for indices, batch in zip(batches, loaded, strict=True):
                scores = score_batch(model, batch.to(model.device), weights)
                scores.check_finite(batch.names)
                records.extend(zip(indices, _records(batch, scores), strict=True))
                if progress is not None:
                    progress(len(batch))
    except ModifiedLISAError as error:
        problem = error
    finally:
        model.train(was_training)
    raise_together(problem, accelerator)
    if processes > 1:
        records = gather_object(records)
    records.sort(key=lambda numbered: numbered[0])
    return _result([record for _, record in records])


def raise_together(problem: ModifiedLISAError | None, accelerator: Accelerator | None) -> None:
    """Raise in all processes what went wrong in any of them, so that none waits for another forever."""
    problems = [problem] if problem is not None else []
    if accelerator is not None and accelerator.num_processes > 1:
        problems = gather_object(problems)
    if problem is not None and len(problems) == 1:
        raise problem
    if problems:
        raise type(problems[0])("; ".join(dict.fromkeys(map(str, problems))))


def _records(batch: Batch, scores: Scores) -> list[dict[str, Any]]:
    losses = {term: scores.losses[term].tolist() for term in TERMS}
    records = []
    for row, (mask, prediction) in enumerate(
        zip(scores.metrics.scores, scores.iou_predictions.tolist(), strict=True)
    ):
        predicted, target, groups = (
            scores.predicted[row].numpy(),
            batch.targets[row].numpy(),
            batch.groups[row],
        )
        target_area = int(np.count_nonzero(target == 1))
        predicted_area = mask.intersection + mask.union - target_area
        records.append(
            {
                "name": batch.names[row],
                "text": batch.texts[row],
                "type": groups.get("type"),
                "is_sentence": {"long": True, "short": False}.get(groups.get("length", "")),
                "groups": dict(groups),
                "iou": mask.iou,
                "giou": mask.giou,
                "intersection": mask.intersection,
                "union": mask.union,
                "boundary_iou": boundary_score(predicted, target).iou,
                "iou_prediction": prediction,
                "target_area": target_area,
                "predicted_area": predicted_area,
                "target_empty": target_area == 0,
                "predicted_empty": predicted_area == 0,
                "losses": {term: values[row] for term, values in losses.items()},
            }
        )
    return records


def _result(records: list[dict[str, Any]]) -> EvaluationResult:
    state = {key: [record[key] for record in records] for key in ("intersection", "union", "giou")}
    losses = {term: math.fsum(record["losses"][term] for record in records) / len(records) for term in TERMS}
    return EvaluationResult(SegmentationMetrics.from_state(state).compute(), losses, records)


def evaluate_checkpoint(
    checkpoint: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] = ".",
    split: str = "val",
    dataset: str = "reasonseg",
    split_by: str | None = None,
    images_dir: str | os.PathLike[str] | None = None,
    output_dir: str | os.PathLike[str] | None = None,
    per_sample: str | os.PathLike[str] | None = None,
    batch_size: int = 1,
    max_samples: int | None = None,
    num_workers: int = 0,
    skip_bad_samples: bool = False,
    device: str | torch.device | None = None,
    progress: bool = True,
    **overrides: Any,
) -> EvaluationResult:
    """Measure a checkpoint on one split of a data set.

    Args:
        checkpoint: a ``.pt`` file, a folder of `ModifiedLISA.save_pretrained`, or ``tiny``.
        dataset, split_by, images_dir: what kind of data is in ``data_dir``; see `open_dataset`.
        output_dir: where to write what `reports.write_results` writes; None: nowhere.
        per_sample: a JSON-lines file for the records, one a line; None: none beside that in ``output_dir``.
        device: None: a GPU if there is one.
        progress: show a progress bar on stderr.
        **overrides: fields of `ModelConfig` that replace those of the checkpoint.

    Raises:
        ConfigError, DataError, CheckpointError, ModelLoadError: see the message.
    """
    from tqdm import tqdm

    from modified_lisa.inference.segmenter import Segmenter
    from modified_lisa.reports.writing import write_results

    for name, value in (("--batch_size", batch_size), ("--max_samples", max_samples)):
        if value is not None and value < 1:
            raise ConfigError(f"{name} is {value}; it must be at least 1")
    if num_workers < 0:
        raise ConfigError(f"--num_workers is {num_workers}; it must be at least 0")
    # Not after the whole set has been measured.
    if per_sample is not None and os.path.isdir(per_sample):
        raise ConfigError(f"--per_sample is {os.fspath(per_sample)!r}, a folder; name a file")
    if output_dir is not None and os.path.isfile(output_dir):
        raise ConfigError(f"--output_dir is {os.fspath(output_dir)!r}, a file; name a folder")
    # The data first: what is wrong with it is known in a second, and a model may take minutes to load.
    samples = open_dataset(
        data_dir,
        split,
        dataset=dataset,
        split_by=split_by,
        images_dir=images_dir,
        max_samples=max_samples,
        skip_bad_samples=skip_bad_samples,
    )
    segmenter = Segmenter.from_pretrained(checkpoint, device=device, **overrides)
    with tqdm(total=len(samples), desc=f"evaluate {split}", unit="sample", disable=not progress) as bar:
        result = evaluate(
            segmenter.model, samples, batch_size=batch_size, num_workers=num_workers, progress=bar.update
        )
    if per_sample is not None:
        write_json_lines(per_sample, result.records)
    if output_dir is not None:
        about = {
            "checkpoint": str(checkpoint),
            "data_dir": str(data_dir),
            "dataset": dataset,
            "split": split,
            "protocol": f"{PROTOCOLS[dataset]}, <SEG> given; mIoU is the LISA paper's gIoU",
        }
        write_results(output_dir, about, result.to_dict(), segmenter, samples)
    return result
