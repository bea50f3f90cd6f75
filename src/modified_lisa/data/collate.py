"""Samples -> batches, in this process or in workers."""

import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from modified_lisa.data.answers import AnswerWriter
from modified_lisa.data.sample import Sample
from modified_lisa.errors import ConfigError, DataError, ModifiedLISAError
from modified_lisa.model.answers.prompting import answer_inputs
from modified_lisa.model.feature_cache import stacked
from modified_lisa.model.feature_store import FeatureStore, image_key

__all__ = ["Batch", "Collator", "SampleSource", "in_batches", "load_batches"]


class SampleSource(Protocol):
    """What `load_batches` reads from: `ReasonSegDataset`, or anything like it that pickles."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...

    @property
    def names(self) -> list[str]: ...


@dataclass(frozen=True)
class Batch:
    """B samples, one mask each."""

    inputs: Any
    """`ModelInputs` of the B images and texts."""
    targets: list[torch.Tensor]
    """uint8 (H, W) each, on the user's image: 0, 1, and 255 for ignored pixels. Always on the CPU."""
    grid_target: torch.Tensor
    """float32 (B, 256, 256) on the model's square: the share of target in each cell, 0 to 1."""
    grid_valid: torch.Tensor
    """float32 (B, 256, 256): the share of each cell that counts; 0 in padding and in ignored regions."""
    names: list[str]
    texts: list[str]
    groups: list[Mapping[str, str]]
    """Of each sample; see `Sample.groups`."""
    uncached: tuple[str | None, ...] = ()
    """With a store of features, if one is missing: under which key to keep that of each sample, None: it is there.
    Empty where the inputs have their features, or there is no store."""

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with what the model and the losses read on ``device``.

        ``targets`` stay where they are: metrics compare masks on the CPU.
        """
        return replace(
            self,
            inputs=self.inputs.to(device),
            grid_target=self.grid_target.to(device),
            grid_valid=self.grid_valid.to(device),
        )


class Collator:
    """``collator(samples)`` -> `Batch`. Pickles if the processor does.

    Args:
        answers: write a question and an answer for each sample, for a model that learns to answer; its ``inputs``
            are `AnswerInputs` then, and a sample whose answer has no ``<SEG>`` has no mask.
        asks: the texts are questions whose answers are to be generated: `AnswerInputs` without answers.
        store: features of images that were encoded before; where all of a batch are there, they take the place of
            the pixels, and no image is resized.
    """

    def __init__(
        self,
        processor: Any,
        answers: AnswerWriter | None = None,
        *,
        asks: bool = False,
        store: FeatureStore | None = None,
    ) -> None:
        self.processor = processor
        self.answers = answers
        self.asks = asks
        self.store = store

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Raises DataError for a text that the processor refuses or that asks for several masks."""
        names = [sample.name for sample in samples]
        texts = [sample.text for sample in samples]
        keys: list[str] = []
        found: list[tuple[torch.Tensor, ...] | None] = []
        if self.store is not None:
            keys = [image_key(sample.image) for sample in samples]
            found = [self.store.load(key) for key in keys]
        features = stacked(found) if found else None
        options: dict[str, Any] = {} if features is None else {"squares": False}
        images = [sample.image for sample in samples]
        try:
            if self.asks:
                asked = [self.processor.measured_question(text) for text in texts]
                inputs = answer_inputs(self.processor, images, asked, **options)
            elif self.answers is None:
                inputs = self.processor(images, texts, **options)
            else:
                questions, answers = zip(*map(self.answers, samples), strict=True)
                inputs = answer_inputs(self.processor, images, questions, answers, **options)
            if features is not None:
                inputs = replace(inputs, features=features)
        except ConfigError as error:
            raise DataError(f"{', '.join(names)}: {error}") from error
        for sample, count in zip(samples, inputs.seg_counts, strict=True):
            if count != 1 and not (count == 0 and (self.asks or self.answers is not None)):
                raise DataError(
                    f"{sample.name}: the text {sample.text!r} holds {count} <SEG> and the annotation one mask; "
                    "leave one <SEG> in the text, or none (it is appended)"
                )
        # Copies: torch takes neither mirrored arrays, which are read backwards, nor such that must not be written.
        targets = [torch.from_numpy(np.array(sample.target, order="C")) for sample in samples]
        pairs = [
            frame.target_to_grid(target, self.processor.mask_side)
            for frame, target in zip(inputs.frames, targets, strict=True)
        ]
        return Batch(
            inputs=inputs,
            targets=targets,
            grid_target=torch.stack([target for target, _ in pairs]),
            grid_valid=torch.stack([valid for _, valid in pairs]),
            names=names,
            texts=texts,
            groups=[sample.groups for sample in samples],
            uncached=()
            if features is not None
            else tuple(key if entry is None else None for key, entry in zip(keys, found, strict=True)),
        )


def in_batches(count: int, batch_size: int) -> list[list[int]]:
    """The indices of ``count`` samples in order, ``batch_size`` at a time; the last batch may be smaller."""
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    return [list(range(first, min(first + batch_size, count))) for first in range(0, count, batch_size)]


def load_batches(
    samples: SampleSource,
    batches: Sequence[Sequence[int]],
    collator: Collator,
    *,
    num_workers: int = 0,
    complete: Callable[[Batch], Batch] | None = None,
) -> Iterator[Batch]:
    """Yield the batches with these indices, in this order, prepared by ``num_workers`` processes.

    ``complete``: what is left to do with each in this process, such as `FeatureCache.complete`.

    An error of this package reaches the caller as it was raised, also out of a worker.
    """
    loader = DataLoader(
        _Prepared(samples, batches, collator),
        batch_size=None,
        num_workers=num_workers,
        collate_fn=_unchanged,
        worker_init_fn=_ignore_interrupts,
        # Without one, every loader would draw a number from the global random state.
        generator=torch.Generator().manual_seed(0),
    )
    for batch in loader:
        if isinstance(batch, ModifiedLISAError):
            raise batch
        yield batch if complete is None else complete(batch)


class _Prepared(Dataset[Any]):
    """One item = one batch; an error is handed over as a value, since torch wraps those that workers raise."""

    def __init__(self, samples: SampleSource, batches: Sequence[Sequence[int]], collator: Collator) -> None:
        self.samples, self.batches, self.collator = samples, batches, collator

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, index: int) -> Batch | ModifiedLISAError:
        try:
            return self.collator([self.samples[number] for number in self.batches[index]])
        except ModifiedLISAError as error:
            return error


def _unchanged(item: Any) -> Any:
    return item


def _ignore_interrupts(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is answered once, by the main process
