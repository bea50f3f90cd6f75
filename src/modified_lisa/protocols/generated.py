"""The generated protocol: a question is asked as it stands, and what the model writes is measured.

The mask of a sample is the union of those of its ``<SEG>``; an answer without one is an empty mask. So a query
without a target is answered rightly (N-acc) by an answer without ``<SEG>``, or with an empty mask.
"""

from collections.abc import Callable
from typing import Any

import torch

from modified_lisa.data.collate import Batch, Collator, SampleSource, in_batches, load_batches
from modified_lisa.metrics import SegmentationMetrics
from modified_lisa.model.answers.generation import check_answers
from modified_lisa.protocols.records import sample_record

__all__ = ["AnsweringSegmenter", "measure_answers"]


def measure_answers(
    model: Any,
    dataset: SampleSource,
    *,
    batch_size: int = 1,
    num_workers: int = 0,
    max_new_tokens: int | None = None,
    progress: Callable[[int], Any] | None = None,
) -> list[dict[str, Any]]:
    """A record for every sample, in order: those of `sample_record`, without losses, and

    ``answer`` (the text), ``masks`` (the number of ``<SEG>``), ``seg_emitted`` (whether there is one), and
    ``complete`` (whether the answer came to its end).

    Raises ConfigError for a model that was not trained to answer, DataError for a sample that cannot be used.
    """
    check_answers(model)
    batches = in_batches(len(dataset), batch_size)
    records = []
    for batch in load_batches(
        dataset, batches, Collator(model.processor, asks=True), num_workers=num_workers
    ):
        records.extend(_measure(model, batch, max_new_tokens))
        if progress is not None:
            progress(len(batch))
    return records


def _measure(model: Any, batch: Batch, max_new_tokens: int | None) -> list[dict[str, Any]]:
    said = model.generate(batch.inputs, max_new_tokens=max_new_tokens)
    metrics = SegmentationMetrics()
    records = []
    for row, (frame, logits) in enumerate(zip(batch.inputs.frames, said.pred_masks, strict=True)):
        mask = (frame.mask_to_image(logits) > 0).any(dim=0).cpu()
        metrics.update(mask, batch.targets[row])
        expected = said.iou_predictions[row]
        count = len(said.spans[row])
        record = sample_record(
            batch, row, metrics.scores[-1], mask, float(expected.mean()) if count else None, {}
        )
        answer = {"answer": said.texts[row], "masks": count, "seg_emitted": count > 0}
        records.append({**record, **answer, "complete": said.complete[row]})
    return records


class AnsweringSegmenter:
    """A segmenter whose ``segment`` answers in words, for the pictures of a report."""

    def __init__(self, segmenter: Any, max_new_tokens: int | None = None) -> None:
        self._segmenter, self._options = segmenter, {"max_new_tokens": max_new_tokens}

    def segment(self, image: Any, query: str) -> Any:
        """As `Segmenter.answer`."""
        with torch.inference_mode():
            return self._segmenter.answer(image, query, **self._options)
