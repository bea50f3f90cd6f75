"""Many queries about one image: the image is read once."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from modified_lisa.errors import ConfigError
from modified_lisa.images import ImageSource, read_image
from modified_lisa.inference.answer import Answer, answer_of
from modified_lisa.inference.runner import ROOM, StateHolder
from modified_lisa.inference.segmentation import Segmentation, check_threshold
from modified_lisa.model.answers.conversation import Conversation
from modified_lisa.model.answers.generation import check_answers
from modified_lisa.model.answers.words import TextStream
from modified_lisa.model.inputs import QueryInputs
from modified_lisa.model.processor import LisaProcessor

if TYPE_CHECKING:
    from modified_lisa.inference.segmenter import Segmenter

__all__ = ["Session", "query_rows"]


def query_rows(processor: LisaProcessor, queries: Sequence[str]) -> list[QueryInputs]:
    """The queries, one or more, in as many rows as are answered one after another."""
    return processor.queries_in_rows(queries, ROOM)


class Session(StateHolder):
    """Made by `Segmenter.open`. Remembers the image's encoding and the language model's keys and values of it.

    >>> with segmenter.open("kitchen.jpg") as session:
    ...     kettle = session.segment("what boils water?")
    ...     cups, plates = session.segment_many(["the cups", "all that one eats from"])

    A further query costs its own tokens only. What is remembered, `nbytes` on the device, is freed by
    `close`, by the end of a ``with``, or with the session itself. One session is not for several threads at once.
    """

    def __init__(self, segmenter: "Segmenter", image: ImageSource) -> None:
        self._segmenter = segmenter
        self._picture = read_image(image)
        inputs = segmenter.model.processor.prefix(self._picture, segmenter.model.device)
        self._frame = inputs.frames[0]
        with segmenter.runner.lock:
            self.nbytes: int = segmenter.runner.open(self, inputs)
        """Bytes of the device that the session holds."""
        self._conversation: Conversation | None = None

    def segment(self, query: str, *, threshold: float = 0.0) -> Segmentation:
        """As `Segmenter.segment`, about the session's image."""
        return self.segment_many([query], threshold=threshold)[0]

    def segment_many(
        self, queries: list[str] | tuple[str, ...], *, threshold: float = 0.0
    ) -> list[Segmentation]:
        """Answer several queries in as few goes as their length allows, each unaware of the others.

        Raises:
            ConfigError: an empty query, a threshold that is not a finite number, or a closed session.
        """
        self._check_open()
        check_threshold(threshold)
        if isinstance(queries, str):
            raise ConfigError("got one string as the queries; give a list, or call segment")
        if not isinstance(queries, list | tuple):
            raise ConfigError(f"got a {type(queries).__name__} as the queries; give a list")
        if not queries:
            return []
        return self.answer_rows(queries, query_rows(self._segmenter.model.processor, queries), threshold)

    def answer_rows(
        self, queries: Sequence[str], rows: list[QueryInputs], threshold: float
    ) -> list[Segmentation]:
        """`segment_many` for `query_rows` that were made before."""
        runner = self._segmenter.runner
        logits: list[torch.Tensor] = []
        scores: list[torch.Tensor] = []
        for inputs in rows:
            with runner.lock:
                masks, iou = runner.answer(self, inputs)
            logits += masks.split(inputs.seg_counts)
            scores += iou.split(inputs.seg_counts)
        count = len(queries)
        return self._segmenter.results(
            [self._picture] * count, list(queries), [self._frame] * count, logits, scores, threshold
        )

    def ask(
        self,
        question: str,
        *,
        on_text: Callable[[str], Any] | None = None,
        threshold: float = 0.0,
        **options: Any,
    ) -> Answer:
        """Answer in words, as a dialogue goes on: the model remembers the questions and answers so far.

        A further question costs its own tokens and those of its answer. If it is interrupted or fails, the
        dialogue is as it was before it. `segment` neither hears of the dialogue nor adds to it.

        Args:
            on_text: called with each new piece of the answer while it is written.
            threshold: as in `Segmenter.segment`.
            options: as in `ModifiedLISA.generate`.

        Raises:
            ConfigError: a model that was not trained to answer, an empty question, unknown options, a dialogue
                longer than the language model reads, or a closed session.
        """
        self._check_open()
        check_threshold(threshold)
        segmenter = self._segmenter
        check_answers(segmenter.model)
        if on_text is not None:
            options = {**options, "streamer": TextStream(segmenter.model.processor, on_text)}
        with segmenter.runner.lock:
            state = segmenter.runner.state_of(self)
            talk = self._conversation or Conversation(segmenter.model, state)
            turn = talk.ask(state, question, **options)
        self._conversation = talk
        (plain,) = segmenter.results(
            [self._picture], [turn.text], [self._frame], [turn.logits], [turn.iou_predictions], threshold
        )
        return answer_of(plain, question, turn.spans, turn.complete)

    def forget(self) -> None:
        """Begin a new dialogue about the same image."""
        self._conversation = None

    def _check_open(self) -> None:
        if self.closed:
            raise ConfigError("this session is closed; open the image again with segmenter.open(image)")

    def close(self) -> None:
        """Free the memory of the image; the session answers no more."""
        self._conversation = None
        with self._segmenter.runner.lock:
            self._segmenter.runner.close(self)
        self.nbytes = 0

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
