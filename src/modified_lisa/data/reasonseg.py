"""A split of a ReasonSeg folder as a list of samples."""

import operator
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from modified_lisa.data.annotation import Annotation, rasterize, read_annotation
from modified_lisa.data.check import Pair, Problem, check_split, list_problems, problems_error
from modified_lisa.data.sample import Sample
from modified_lisa.errors import ConfigError, DataError
from modified_lisa.images import read_image
from modified_lisa.prompts import Query

__all__ = ["ReasonSegDataset"]


class ReasonSegDataset:
    """``root/split`` with pairs ``stem.jpg`` (.jpeg, .png) and ``stem.json``, in sorted order of the stems.

    ``every_text``: one sample for each query text of an image, else for its first text only. None: True for
    the split ``train``, False for any other. ``max_samples``: only the first so many samples.

    The folder is checked as it is opened (see `check_folder`; images are not decoded for it). One DataError
    lists all problems, unless ``skip_bad_samples``: then ``problems`` has them, and samples of those files are left
    out. No usable file at all, or no such folder, is a DataError in any case.

    Images and annotations are read when a sample is asked for. The object is small and can be pickled, for
    the workers of a `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        *,
        max_samples: int | None = None,
        every_text: bool | None = None,
        skip_bad_samples: bool = False,
    ) -> None:
        if max_samples is not None and (
            isinstance(max_samples, bool) or not isinstance(max_samples, int) or max_samples < 1
        ):
            raise ConfigError(
                f"max_samples is {max_samples!r}; a whole number of at least 1, or None, is expected"
            )
        self.root = Path(root)
        self.split = split
        self.every_text = split == "train" if every_text is None else every_text
        self.problems: list[Problem]
        """What was left out; empty without ``skip_bad_samples``."""
        pairs, self.problems = check_split(root, split)
        if self.problems and not skip_bad_samples:
            raise problems_error(self.problems)
        if not pairs:
            raise DataError(f"no sample of {self.root / split} can be used; {list_problems(self.problems)}")
        self.skips = skip_bad_samples
        samples = [
            (pair, number) for pair in pairs for number in range(len(pair.texts) if self.every_text else 1)
        ]
        self._samples: list[tuple[Pair, int]] = samples[:max_samples]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample from its files; ImageError or DataError if they have gone bad since the check."""
        pair, number = self._samples[operator.index(index)]
        image = read_image(pair.image)
        annotation = read_annotation(pair.annotation)
        target = rasterize(annotation, *image.shape[:2])
        text = Query(pair.texts[number], annotation.is_sentence)
        return Sample(self._name(pair, number), image, text, target, annotation.groups)

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> list[str]:
        """The samples' names, without reading them."""
        return [self._name(pair, number) for pair, number in self._samples]

    @property
    def texts(self) -> list[str]:
        """The samples' queries, without reading them."""
        return [pair.texts[number] for pair, number in self._samples]

    def leave_out(self, faults: Mapping[int, str]) -> None:
        """Drop the samples of these numbers, for what is wrong with each; it is among ``problems`` then."""
        for number, what in faults.items():
            pair, text = self._samples[number]
            self.problems.append(Problem(pair.annotation, f"text {text + 1}: {what}", self.split))
        self._samples = [sample for number, sample in enumerate(self._samples) if number not in faults]

    def annotation(self, index: int) -> Annotation:
        """The whole annotation of the image of one sample."""
        return read_annotation(self._samples[operator.index(index)][0].annotation)

    def _name(self, pair: Pair, number: int) -> str:
        return f"{self.split}/{pair.stem}#{number}"
