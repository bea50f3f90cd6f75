"""Measuring a model on a data set. Validation during training and ``modified-lisa evaluate`` are this.

Protocol: as LISA's, ``<SEG>`` is given (at the end of the query, or as the answer of a model in answer mode), a
pixel belongs to the answer if its logit is above 0, and masks are compared at the user's resolution.
`ReasonSegDataset` gives only the first text of an annotation in every split but train, as the original's
evaluation does. The other of `PROTOCOLS` measures what the model writes.
"""

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from modified_lisa.company import in_company, raise_together, together
from modified_lisa.config import LossWeights
from modified_lisa.data.asking import check_queries
from modified_lisa.data.collate import Batch, Collator, SampleSource, in_batches, load_batches
from modified_lisa.data.opening import PROTOCOLS as SAMPLES
from modified_lisa.data.opening import open_dataset
from modified_lisa.errors import ConfigError, DataError, ModifiedLISAError
from modified_lisa.files import check_folder, write_json_lines
from modified_lisa.metrics import SegmentationMetrics
from modified_lisa.model.answers.generation import check_answers
from modified_lisa.model.feature_cache import FeatureCache
from modified_lisa.model.sharding import is_sharded
from modified_lisa.protocols.generated import AnsweringSegmenter, measure_answers
from modified_lisa.protocols.records import sample_record
from modified_lisa.protocols.teacher_forced import TERMS, Scores, score_batch, terms_of
from modified_lisa.scoring.summary import summarize

__all__ = [
    "PROTOCOLS",
    "TERMS",
    "EvaluationResult",
    "Scores",
    "check_counts",
    "evaluate",
    "evaluate_checkpoint",
    "evaluate_protocols",
    "result_of",
    "score_batch",
    "terms_of",
]

PROTOCOLS = ("teacher_forced", "generated")


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
    as ``losses``. type and is_sentence are None where the data does not say. Of the generated protocol, see
    `protocols.generated.measure_answers`."""

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
        ConfigError: a ``batch_size`` below 1.
        DataError: the data set is empty, or a sample cannot be used.
        TrainingError: a loss that is not finite.
    """
    if not len(dataset):
        raise DataError("the data set to evaluate on is empty; check the folder and the sample limit")
    rank, processes = (accelerator.process_index, accelerator.num_processes) if accelerator else (0, 1)
    # Batches are made first and dealt out then, so that they hold the same samples for any number of processes.
    batches = in_batches(len(dataset), batch_size)
    company = batches[:1]
    rounds, batches = -(-len(batches) // processes), batches[rank::processes]
    counted = len(batches)
    if is_sharded(model) and counted < rounds:
        batches = batches + company  # computed only because the others compute
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
                Collator(model.processor, store=None if cache is None else cache.store),
                num_workers=num_workers,
                complete=None if cache is None else cache.complete,
            )
            for number, batch in in_company(loaded, model, accelerator):
                with together(model, accelerator):
                    scores = score_batch(model, batch.to(model.device), weights)
                    scores.check_finite(batch.names)
                if number >= counted:
                    continue
                indices = batches[number]
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
    return result_of([record for _, record in records])


def _records(batch: Batch, scores: Scores) -> list[dict[str, Any]]:
    losses = {term: scores.losses[term].tolist() for term in TERMS}
    predictions = scores.iou_predictions.tolist()
    return [
        sample_record(
            batch,
            row,
            score,
            scores.predicted[row],
            predictions[row],
            {term: values[row] for term, values in losses.items()},
        )
        for row, score in enumerate(scores.metrics.scores)
    ]


def result_of(records: list[dict[str, Any]]) -> EvaluationResult:
    """The result of measured samples, one or more."""
    state = {key: [record[key] for record in records] for key in ("intersection", "union", "giou")}
    losses = {
        term: math.fsum(record["losses"][term] for record in records) / len(records)
        for term in records[0]["losses"]
    }
    return EvaluationResult(SegmentationMetrics.from_state(state).compute(), losses, records)


def evaluate_protocols(
    checkpoint: str | os.PathLike[str],
    protocols: Sequence[str] = PROTOCOLS[:1],
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
    max_new_tokens: int | None = None,
    device: str | torch.device | None = None,
    progress: bool = True,
    **overrides: Any,
) -> dict[str, EvaluationResult]:
    """Measure a checkpoint on one split of a data set, by one or more protocols; {protocol: result}.

    Args:
        checkpoint: a ``.pt`` file, a folder of `ModifiedLISA.save_pretrained`, or ``tiny``.
        protocols: of `PROTOCOLS`: ``teacher_forced`` gives ``<SEG>``, ``generated`` measures what the model writes
            (`protocols.generated`). The files of the latter have ``_generated`` in their names.
        max_new_tokens: longest answer of the generated protocol; None: 256.
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

    check_counts(
        num_workers=num_workers, batch_size=batch_size, max_samples=max_samples, max_new_tokens=max_new_tokens
    )
    unknown = [protocol for protocol in protocols if protocol not in PROTOCOLS]
    if unknown or not protocols:
        raise ConfigError(f"the protocol is {', '.join(unknown) or 'missing'}; known: {', '.join(PROTOCOLS)}")
    if max_new_tokens is not None and "generated" not in protocols:
        raise ConfigError(
            "--max_new_tokens is for answers that the model writes; add --protocol generated or both"
        )
    # Not after the whole set has been measured.
    if per_sample is not None and os.path.isdir(per_sample):
        raise ConfigError(f"--per_sample is {os.fspath(per_sample)!r}, a folder; name a file")
    if per_sample is not None:
        check_folder("the folder of --per_sample", Path(per_sample).parent)
    if output_dir is not None:
        check_folder("--output_dir", output_dir)
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
    if "generated" in protocols:
        overrides.setdefault("answers", None)  # in words, where the checkpoint can
    segmenter = Segmenter.from_pretrained(checkpoint, device=device, fast=False, **overrides)
    check_queries(segmenter.model.processor, samples)
    if "generated" in protocols:
        check_answers(segmenter.model)
    results: dict[str, EvaluationResult] = {}
    for protocol in protocols:
        options: dict[str, Any] = {"batch_size": batch_size, "num_workers": num_workers}
        with tqdm(total=len(samples), desc=f"evaluate {split}", unit="sample", disable=not progress) as bar:
            if protocol == "generated":
                options |= {"max_new_tokens": max_new_tokens, "progress": bar.update}
                result = result_of(measure_answers(segmenter.model, samples, **options))
            else:
                result = evaluate(segmenter.model, samples, progress=bar.update, **options)
        results[protocol] = result
        mark = "_generated" if protocol == "generated" else ""
        if per_sample is not None:
            path = Path(per_sample)
            write_json_lines(path.with_name(f"{path.stem}{mark}{path.suffix}"), result.records)
        if output_dir is not None:
            how = "<SEG> written by the model" if mark else "<SEG> given"
            about = {
                "checkpoint": str(checkpoint),
                "data_dir": str(data_dir),
                "dataset": dataset,
                "split": split,
                "protocol": f"{SAMPLES[dataset]}, {how}; mIoU is the LISA paper's gIoU",
            }
            shown: Any = AnsweringSegmenter(segmenter, max_new_tokens) if mark else segmenter
            write_results(output_dir, about, result.to_dict(), shown, samples, name=f"{split}{mark}")
    return results


def check_counts(*, num_workers: int, **counts: int | None) -> None:
    """ConfigError for less than no worker, and for any other number that is given and below 1."""
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"--{name} is {value}; it must be at least 1")
    if num_workers < 0:
        raise ConfigError(f"--num_workers is {num_workers}; it must be at least 0")


def evaluate_checkpoint(
    checkpoint: str | os.PathLike[str], *, protocol: str = PROTOCOLS[0], **options: Any
) -> EvaluationResult:
    """`evaluate_protocols` with one protocol."""
    return evaluate_protocols(checkpoint, (protocol,), **options)[protocol]
