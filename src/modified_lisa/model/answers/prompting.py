"""Dialogues as tokens: a question, the place where its answer begins, and the answer.

A prompt ends where the chat template lets the assistant begin, without the blank that some templates put
there: the answer's first word brings it along, as one token with it. So a prompt is the same tokens whether
an answer follows in training or is generated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.images import ImageSource, read_image
from modified_lisa.model.inputs import ModelInputs
from modified_lisa.prompts import SEG_TOKEN, user_turn, with_seg
from modified_lisa.templates import given_answer

__all__ = [
    "UNLABELLED",
    "AnswerInputs",
    "answer_inputs",
    "asked_ids",
    "chat_dialogue",
    "chat_follow_up",
    "clean_question",
    "question_ids",
    "split_answer",
]

UNLABELLED = -100
"""The label of a token that is not learned."""
_MARK = "\u2402"


@dataclass(frozen=True)
class AnswerInputs(ModelInputs):
    """`ModelInputs` of dialogues: B images with one question each, and an answer to learn, or none yet.

    A row may have no ``<SEG>``; ``first_seg`` is T then.
    """

    lengths: torch.Tensor
    """int64 (B,): tokens of each row before the padding."""
    labels: torch.Tensor
    """int64 (B, T): the tokens of the answers and their end; `UNLABELLED` elsewhere."""
    answer_begin: int
    """Position of the first token of the earliest answer of the batch."""


def clean_question(question: str) -> str:
    """A question as one line, without ``<SEG>``; ConfigError for one that is empty, no text, or holds ``<SEG>``."""
    text = with_seg(question)
    if isinstance(question, str) and SEG_TOKEN in question:
        raise ConfigError(
            f"the question {question!r} holds {SEG_TOKEN}, which the model writes itself; leave it out"
        )
    return text.removesuffix(f" {SEG_TOKEN}")


def question_ids(processor: Any, question: str) -> list[int]:
    """Tokens of the prompt up to where the answer begins; the image's place is filled."""
    ids: list[int] = processor.dialogue_ids(clean_question(question))[0]
    return ids


def split_answer(
    tokens_of: Callable[[str], list[int]], prompt: str, answer: str
) -> tuple[list[int], list[int]]:
    """Tokens of ``prompt`` and of the answer behind it, as they are where both stand in one text."""
    asked = tokens_of(prompt)
    # A prompt that ends in a line break takes the answer as it is.
    whole = tokens_of(prompt + ("" if prompt[-1:].isspace() else " ") + answer)
    if whole[: len(asked)] != asked:
        raise ModelLoadError(
            f"the VLM's tokenizer joins the end of the prompt {prompt[-20:]!r} with an answer; it cannot be taught answers"
        )
    return asked, whole[len(asked) :]


def chat_dialogue(processor: Any, question: str, answer: str) -> tuple[list[int], list[int]]:
    """`LisaProcessor.dialogue_ids` in the words of the chat template."""
    turn = user_turn(_without_image(processor, question))
    prompt = str(processor.render(turn, generation=True)).rstrip(" ")
    if not answer:
        return processor.fill_image(processor.tokens_of(prompt)), []
    asked, said = split_answer(processor.tokens_of, prompt, answer)
    return processor.fill_image(asked), said


def asked_ids(processor: Any, text: str) -> list[int]:
    """The whole prompt up to its last ``<SEG>``, which stands in the answer: one mask for each in ``text``."""
    query = with_seg(text)
    masks = query.count(SEG_TOKEN)
    question = " ".join(query.replace(SEG_TOKEN, " ").split())
    asked, said = processor.dialogue_ids(question, given_answer(masks))
    if said.count(processor.seg_token_id) != masks:
        raise ModelLoadError(f"the VLM's tokenizer does not keep {SEG_TOKEN} in {given_answer(masks)!r}")
    return asked + said


def chat_follow_up(processor: Any, question: str) -> list[int]:
    """`LisaProcessor.follow_up_ids` in the words of the chat template."""
    question = _without_image(processor, question)
    turns = [
        *user_turn("?"),
        {"role": "assistant", "content": [{"type": "text", "text": _MARK}]},
        {"role": "user", "content": [{"type": "text", "text": question}]},
    ]
    _, found, behind = processor.render(turns, generation=True).rpartition(_MARK)
    if not found:
        raise ModelLoadError(
            "the VLM's chat template leaves out what the assistant has said: it has no turns"
        )
    end = processor.tokenizer.eos_token or ""
    behind = behind.lstrip(" ").removeprefix(end).rstrip(" ")  # the end of the answer is read as it was said
    ids: list[int] = processor.tokenizer.encode(behind, add_special_tokens=False)
    return ids


def answer_inputs(
    processor: Any,
    images: Sequence[ImageSource],
    questions: Sequence[str],
    answers: Sequence[str] | None = None,
    device: torch.device | None = None,
    *,
    squares: bool = True,
) -> AnswerInputs:
    """Images and questions, and answers to learn if given (with ``<SEG>`` in them, or without).

    ``device``: where to resize the images and leave their pixels; None: the CPU.
    ``squares=False`` leaves the pixels out, for images whose features are at hand.
    """
    if isinstance(images, str | bytes) or isinstance(questions, str):
        raise ConfigError("give a list of images and a list of questions of equal length")
    if not len(images) == len(questions) or (answers is not None and len(answers) != len(questions)):
        raise ConfigError(
            f"got {len(images)} images, {len(questions)} questions and "
            f"{'no' if answers is None else len(answers)} answers; give lists of equal length"
        )
    if not len(images):
        raise ConfigError("got no images; give at least one image and its question")
    end = processor.tokenizer.eos_token_id
    if answers is None:
        pairs: list[tuple[list[int], list[int]]] = [(question_ids(processor, text), []) for text in questions]
    else:
        pairs = [
            (asked, [*said, end] if end is not None else said)
            for asked, said in (
                processor.dialogue_ids(clean_question(question), answer)
                for question, answer in zip(questions, answers, strict=True)
            )
        ]
    arrays: list[np.ndarray] = [read_image(image) for image in images]
    frames = [processor.frame(array.shape[0], array.shape[1]) for array in arrays]
    rows = [asked + said for asked, said in pairs]
    inputs = processor.assemble(
        rows,
        frames,
        processor.vlm_squares(arrays, frames, device) if squares else None,
        processor.sam_squares(arrays, frames, device) if squares else None,
    )
    labels = torch.full(inputs.input_ids.shape, UNLABELLED)
    for row, (asked, said) in zip(labels, pairs, strict=True):
        row[len(asked) : len(asked) + len(said)] = torch.tensor(said, dtype=torch.int64)
    return AnswerInputs(
        **vars(inputs),
        lengths=torch.tensor([len(row) for row in rows]),
        labels=labels,
        answer_begin=min(len(asked) for asked, _ in pairs),
    )


def _without_image(processor: Any, question: str) -> str:
    if processor.image_token in question:
        raise ConfigError(
            f"the question contains {processor.image_token!r}, which stands for the image; leave it out"
        )
    return question
