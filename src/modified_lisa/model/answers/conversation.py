"""Questions about one image, one after another: each reads only itself, on top of all that was said before."""

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from modified_lisa.model.answers.generation import Continuation, continue_text, decode_masks
from modified_lisa.model.answers.prompting import clean_question, question_ids
from modified_lisa.model.answers.words import Span, read_tokens
from modified_lisa.model.reading import ImageState, embed_words

if TYPE_CHECKING:
    from modified_lisa.model.lisa import ModifiedLISA

__all__ = ["Conversation", "Turn"]


class Turn(NamedTuple):
    """One answer; N masks."""

    text: str
    spans: list[Span]
    complete: bool
    logits: torch.Tensor
    """float32 (N, 256, 256)."""
    iou_predictions: torch.Tensor
    """float32 (N,)."""


class Conversation:
    """What the language model remembers of a dialogue about one image: keys and values of all its tokens.

    Args:
        state: of the image; its keys are copied, and it is not kept.
    """

    def __init__(self, model: "ModifiedLISA", state: ImageState) -> None:
        from transformers import DynamicCache

        self.model = model
        self.turns = 0
        self._cache: Any = DynamicCache()
        with torch.inference_mode():
            for layer in range(len(state.keys.layers)):
                keys, values = state.keys.part(layer)
                self._cache.update(keys.clone(), values.clone(), layer)
        self._unread: list[int] = []
        """Tokens of the last answer that were said and not yet read: its end, at least."""

    @property
    def length(self) -> int:
        """Tokens that are remembered."""
        return int(self._cache.get_seq_length())

    def ask(self, state: ImageState, question: str, **options: Any) -> Turn:
        """Answer a question; ``options`` as in `generation.generate_answers`.

        If that is interrupted, or fails, the dialogue is as it was before the question.

        Args:
            state: the image's, as at the beginning.
        """
        model, read = self.model, self.length
        with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
            tokens = torch.tensor([self._next(question)], device=model.device)
            words = embed_words(model, tokens)
            # While the answer is written, the state's own memory may come to hold another image.
            embedding = state.embedding.clone()
            # The loop wants the whole of the prompt; what the cache holds is not looked at.
            embeds = torch.cat((words.new_zeros((1, read, words.shape[2])), words), dim=1)
            mask = torch.ones(embeds.shape[:2], dtype=torch.int64, device=model.device)
            try:
                said = continue_text(model, embeds, mask, self._cache, **options)
            except BaseException:
                self._forget_behind(read)
                raise
            self._remember(said, embeds.shape[1])
            _, logits, iou = decode_masks(model, embedding, said)
        text, spans = read_tokens(model.processor, said.tokens[0])
        return Turn(text, spans, said.complete[0], logits, iou)

    def _next(self, question: str) -> list[int]:
        processor = self.model.processor
        if self.turns:
            return self._unread + processor.follow_up_ids(clean_question(question))
        ids = question_ids(processor, question)
        place = ids.index(processor.image_token_id)
        return ids[place + processor.image_tokens :]

    def _remember(self, said: Continuation, begin: int) -> None:
        answer = said.tokens[0]
        end = self.model.processor.tokenizer.eos_token_id
        # An end that was read already is dropped, and read again with the next question.
        self._forget_behind(begin + len(answer))
        self._unread = answer[self.length - begin :] + ([] if end is None else [end])
        self.turns += 1

    def _forget_behind(self, length: int) -> None:
        if self.length > length:
            self._cache.crop(length - self.length)  # a negative number is how many are taken away
