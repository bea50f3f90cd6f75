"""An answer in words: a `Segmentation` whose masks are tied to their places in its text."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modified_lisa.errors import ConfigError
from modified_lisa.inference.segmentation import Segmentation
from modified_lisa.prompts import SEG_TOKEN

__all__ = ["Answer", "Mask", "MaskStack", "answer_of"]

Span = tuple[int, int]


class Mask(np.ndarray):
    """bool (H, W) like any other array, with its ``span``: ``answer.text[begin:end] == "<SEG>"``."""

    span: Span | None = None

    def __array_finalize__(self, _source: Any) -> None:
        self.span = None  # what is computed from a mask stands nowhere in the text


class MaskStack(np.ndarray):
    """bool (N, H, W) like any other array, whose masks are `Mask`: ``stack[i].span``, also while iterating."""

    spans: tuple[Span, ...] = ()

    @classmethod
    def of(cls, masks: NDArray[np.bool_], spans: Sequence[Span]) -> "MaskStack":
        """The same memory, with one span for each mask."""
        stack = np.asarray(masks).view(cls)
        stack.spans = tuple((int(begin), int(end)) for begin, end in spans)
        return stack

    def __array_finalize__(self, _source: Any) -> None:
        self.spans = ()

    def __getitem__(self, key: Any) -> Any:
        plain = np.asarray(self)[key]
        if not self.spans or not isinstance(key, int | np.integer):
            return plain
        mask = plain.view(Mask)
        mask.span = self.spans[key]
        return mask

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __reduce_ex__(self, _protocol: Any) -> Any:  # pickling and copying an array would lose the spans
        return MaskStack.of, (np.asarray(self), self.spans)

    def __deepcopy__(self, _memo: Any) -> "MaskStack":
        return MaskStack.of(np.array(self), self.spans)


@dataclass(frozen=True, eq=False)
class Answer(Segmentation):
    """What a model said about one image. ``text`` is the answer, with N ``<SEG>`` in it; N may be 0.

    >>> answer = segmenter.answer("kitchen.jpg", "what boils water?")
    >>> answer.text
    'It is <SEG>.'
    >>> begin, end = answer.masks[0].span
    """

    query: str = ""
    """The question, as the user gave it."""
    spans: tuple[Span, ...] = ()
    """Where each mask stands in ``text``: its first letter and the first behind it. Also ``masks[i].span``."""
    complete: bool = True
    """Whether the answer came to its end; False: it was cut off at ``max_new_tokens``, or stopped."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.spans) != len(self.masks) or any(
            self.text[begin:end] != SEG_TOKEN for begin, end in self.spans
        ):
            raise ConfigError(
                f"spans is {self.spans}; each of the {len(self.masks)} masks must have the place of its {SEG_TOKEN} in "
                f"{self.text!r}"
            )
        object.__setattr__(self, "masks", MaskStack.of(self.masks, self.spans))

    def to_dict(self) -> dict[str, Any]:
        """As `Segmentation.to_dict`, with ``query`` and ``complete``, and the ``span`` of each mask."""
        values = super().to_dict()
        masks = [{**mask, "span": list(span)} for mask, span in zip(values["masks"], self.spans, strict=True)]
        return {**values, "query": self.query, "complete": self.complete, "masks": masks}


def answer_of(found: Segmentation, question: str, spans: Sequence[Span], complete: bool) -> Answer:
    """The masks of an answer, whose text is ``found.text``, with what they answer."""
    return Answer(
        found.masks, found.scores, found.text, found.size, found.image, question, tuple(spans), complete
    )
