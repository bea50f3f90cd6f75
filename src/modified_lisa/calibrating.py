"""Making the IoU that a checkpoint predicts right on average. ``modified-lisa calibrate`` is this."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from modified_lisa.data.asking import check_queries
from modified_lisa.data.opening import open_dataset
from modified_lisa.errors import CheckpointError, DataError
from modified_lisa.evaluation import check_counts, evaluate
from modified_lisa.files import check_folder
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.scoring.calibration import FEWEST, Correction, calibration, cross_validated, fit_correction

__all__ = ["Calibrated", "calibrate_checkpoint"]


@dataclass(frozen=True)
class Calibrated:
    """What was found, and where the corrected checkpoint is."""

    folder: Path
    samples: int
    correction: Correction
    before: dict[str, Any]
    """Of `scoring.calibration.calibration`, for the checkpoint as it was."""
    after: dict[str, Any]
    """The same after correction, each sample corrected by what the other samples say."""


def calibrate_checkpoint(
    checkpoint: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] = ".",
    split: str = "val",
    dataset: str = "reasonseg",
    split_by: str | None = None,
    images_dir: str | os.PathLike[str] | None = None,
    batch_size: int = 1,
    max_samples: int | None = None,
    num_workers: int = 0,
    skip_bad_samples: bool = False,
    device: str | torch.device | None = None,
    progress: bool = True,
    **overrides: Any,
) -> Calibrated:
    """Measure a checkpoint on a split, and write it to ``out`` with its predicted IoU corrected by a straight line.

    Masks stay as they are. A split that training has not seen tells how far the model overrates itself; where later
    images are measured for good, take another one. The arguments are those of `evaluation.evaluate_protocols`.

    Raises:
        CheckpointError: ``out`` holds a checkpoint already.
        DataError: too few samples; and as `evaluate`.
        ConfigError, ModelLoadError: see the message.
    """
    check_counts(num_workers=num_workers, batch_size=batch_size, max_samples=max_samples)
    folder = Path(out)
    check_folder("OUT", folder)
    if (folder / "config.json").exists():
        raise CheckpointError(
            f"{folder} holds a checkpoint already; name another folder for the calibrated one"
        )
    samples = open_dataset(
        data_dir,
        split,
        dataset=dataset,
        split_by=split_by,
        images_dir=images_dir,
        max_samples=max_samples,
        skip_bad_samples=skip_bad_samples,
    )
    if len(samples) < FEWEST:
        raise DataError(f"{split} has {len(samples)} samples; at least {FEWEST} are needed to correct by")
    model = ModifiedLISA.from_pretrained(checkpoint, device, **overrides)
    check_queries(model.processor, samples)
    with tqdm(total=len(samples), desc=f"measure {split}", unit="sample", disable=not progress) as bar:
        records = evaluate(
            model, samples, batch_size=batch_size, num_workers=num_workers, progress=bar.update
        ).records
    correction = fit_correction(records)
    model.mask_head.correct_scores(*correction)
    model.save_pretrained(folder)
    return Calibrated(folder, len(records), correction, calibration(records), cross_validated(records))
