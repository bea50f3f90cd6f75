"""LISA's protocol: its prompts, its preprocessing and its post-processing (``protocol="lisa"``).

As in the original's ``ValDataset`` and ``collate_fn`` (dvlab-research/LISA, utils/dataset.py): a sentence is
asked with a request for a mask behind it, a phrase as "What is ... in this image?", both in the conversation of
LLaVA-v1; the answer ``[SEG].`` is given. CLIP sees the middle of the image (shortest side to 224 or 336,
the rest cropped away); SAM sees all of it (longest side to 1024, zeros below and to the right).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.geometry import Frame
from modified_lisa.model.answers.prompting import split_answer
from modified_lisa.model.image_spec import ImageSpec
from modified_lisa.model.inputs import ModelInputs, check_length
from modified_lisa.model.original_lisa.vocabulary import IM_END, IM_START, IMAGE, SEG
from modified_lisa.model.processor import LisaProcessor
from modified_lisa.prompts import SEG_TOKEN, Query, with_seg
from modified_lisa.resize import normalised, resize_on

__all__ = ["SAM_MEAN", "SAM_STD", "CropSpec", "ProtocolProcessor", "SamFrame", "is_sentence", "prompt_parts"]

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
SAM_MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
SAM_STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)
IMAGE_INDEX = -200
"""What stands for the image in the original's ``input_ids``."""

_ASKS = re.compile(
    r"(what|where|which|who|whose|when|why|how|is|are|can|could|would|will|do|does|did|please|segment|find|show|"
    r"locate|highlight|identify|output|give|point|mark|tell)\b",
    re.IGNORECASE,
)
_MARKS = re.compile(rf"\s*(?:{re.escape(SEG_TOKEN)}|{re.escape(SEG)})")


def is_sentence(query: str) -> bool:
    """Whether a query is asked as it stands, or as "What is ... in this image?".

    The data says so where it knows (`prompts.Query`). Otherwise: a sentence ends in ``.``, ``?`` or ``!``, or
    begins with a word that asks or orders.
    """
    if isinstance(query, Query) and query.is_sentence is not None:
        return query.is_sentence
    text = query.strip()
    return text.endswith((".", "?", "!")) or _ASKS.match(text) is not None


def prompt_parts(query: str, *, start_end: bool = True) -> tuple[str, str]:
    """The prompt before and behind the image, with the answer in it.

    Each ``<SEG>`` of the query, or one if it has none, is a ``[SEG]`` of the answer: ``[SEG] and [SEG].``
    """
    with_seg(_MARKS.sub(f" {SEG_TOKEN}", query) if isinstance(query, str) else query)  # what is no query
    masks = max(1, len(_MARKS.findall(query)))
    before, behind = question_parts(asked(query), start_end=start_end)
    return before, f"{behind} {' and '.join([SEG] * masks)}.</s>"


def asked(query: str) -> str:
    """A query without ``<SEG>``, in the words in which the original asks for its mask."""
    text = _MARKS.sub("", query).strip()
    question = text if is_sentence(_like(query, text)) else f"What is {text} in this image?"
    return f"{question} Please output segmentation mask."


def question_parts(question: str, *, start_end: bool = True) -> tuple[str, str]:
    """The prompt before and behind the image, up to where the answer begins; the question as it stands."""
    before, behind = (IM_START, IM_END) if start_end else ("", "")
    return f"{SYSTEM} USER: {before}", f"{behind}\n {question} ASSISTANT:"


def _like(query: str, text: str) -> str:
    return Query(text, query.is_sentence) if isinstance(query, Query) else text


@dataclass(frozen=True)
class SamFrame(Frame):
    """`Frame` of a SAM whose square is not 1024 pixels wide: masks are cut out of their padding at its side."""

    fine_side: int = 1024  # type: ignore[misc]


@dataclass(frozen=True)
class CropSpec:
    """How ``CLIPImageProcessor`` makes its square: shortest side to ``resize``, the middle ``side`` pixels of it."""

    resize: int
    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def pixels(self, image: np.ndarray, device: torch.device | None = None) -> torch.Tensor:
        """uint8 (H, W, 3) -> float32 (3, side, side), made on ``device``; None: the CPU."""
        short, long = sorted(image.shape[:2])
        scaled = int(self.resize * long / short)
        tall = image.shape[0] >= image.shape[1]
        height, width = (scaled, self.resize) if tall else (self.resize, scaled)
        resized = resize_on(device, image, height, width, "bicubic")
        top, left = (height - self.side) // 2, (width - self.side) // 2
        crop = resized[top : top + self.side, left : left + self.side]
        return normalised(crop, self.mean, self.std)


class ProtocolProcessor(LisaProcessor):
    """`LisaProcessor` under LISA's protocol.

    ``tokenizer``: `vocabulary.read_tokenizer`'s, or None: then tensors are taken (`from_tensors`), words not.
    ``clip``: CLIP's own crop; or, for a model whose one square serves the masks too, the padded square.
    """

    def __init__(
        self,
        tokenizer: Any | None,
        *,
        seg_token_id: int,
        start_end: bool,
        image_token_id: int,
        image_tokens: int,
        vocabulary: int,
        clip: CropSpec | ImageSpec,
        sam_side: int,
        mask_side: int,
        name: str,
    ) -> None:
        super().__init__(
            tokenizer,
            chat_template="",
            seg_token_id=seg_token_id,
            image_token=IMAGE,
            image_token_id=image_token_id,
            image_tokens=image_tokens,
            vocabulary=vocabulary,
            vlm_image=clip if isinstance(clip, ImageSpec) else None,
            sam_image=None
            if isinstance(clip, ImageSpec)
            else ImageSpec(side=sam_side, mean=SAM_MEAN, std=SAM_STD, interpolation="bilinear"),
            mask_side=mask_side,
        )
        self.start_end = start_end
        self.clip = clip
        self.sam_side = sam_side
        self.name = name

    def frame(self, height: int, width: int) -> Frame:
        """Where an image lies in SAM's square."""
        return Frame(height, width) if self.sam_side == 1024 else SamFrame(height, width, self.sam_side)

    def encode(self, text: str) -> list[int]:
        """Token ids of the prompt up to its last ``[SEG]``; the image's place is filled."""
        self._check_words(text)
        before, behind = prompt_parts(text, start_end=self.start_end)
        ids = self.tokenizer.encode(before)
        place = len(ids)
        # The original splits the prompt at the image and drops the second <s>.
        ids += [self.image_token_id] * self.image_tokens + self.tokenizer.encode(behind)[1:]
        check_length(len(ids), self.most_tokens)
        if self.seg_token_id not in ids[place:]:
            raise ModelLoadError(
                f"{self.name}: its tokenizer does not make {SEG} the token {self.seg_token_id}"
            )
        return ids[: len(ids) - ids[::-1].index(self.seg_token_id)]

    own_seg_token = True

    def dialogue_ids(self, question: str, answer: str = "") -> tuple[list[int], list[int]]:
        """As the original's: a question as it stands, ``ASSISTANT:``, the answer."""
        self._check_words(question)
        before, behind = question_parts(question, start_end=self.start_end)
        head = [*self.tokenizer.encode(before), *[self.image_token_id] * self.image_tokens]
        if not answer:
            return head + self._behind(behind), []
        tail, said = split_answer(self._behind, behind, answer.replace(SEG_TOKEN, SEG))
        return head + tail, said

    def follow_up_ids(self, question: str) -> list[int]:
        """LLaVA-v1's turns: an answer ends in ``</s>``, and the next one follows at once."""
        self._check_words(question)
        return self._behind(f"USER: {question} ASSISTANT:")

    def measured_question(self, text: str) -> str:
        return asked(text)

    def _check_words(self, text: str) -> None:
        if self.tokenizer is None:
            raise ModelLoadError(
                f"{self.name} came without a tokenizer, so that it cannot read words: put tokenizer.model (or "
                "tokenizer.json) and added_tokens.json into the checkpoint's folder and import it again, or import it "
                "with --tokenizer; processor.from_tensors takes token ids"
            )
        if isinstance(text, str) and any(token in text for token in (IMAGE, IM_START, IM_END)):
            raise ConfigError(f"the query contains {IMAGE}, {IM_START} or {IM_END}; leave it out")

    def _behind(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text)[1:]  # without its <s>
        return ids

    def vlm_squares(
        self, arrays: list[np.ndarray], frames: list[Frame], device: torch.device | None = None
    ) -> torch.Tensor | None:
        """float32 (B, 3, S, S) for CLIP."""
        if isinstance(self.clip, ImageSpec):
            return super().vlm_squares(arrays, frames, device)
        return torch.stack([self.clip.pixels(array, device) for array in arrays])

    def from_tensors(
        self,
        input_ids: torch.Tensor,
        images_clip: torch.Tensor,
        images: torch.Tensor,
        original_sizes: Sequence[tuple[int, int]],
        *,
        seg_token_id: int | None = None,
    ) -> ModelInputs:
        """What the original's ``model_forward`` takes, as `ModelInputs`.

        Args:
            input_ids: int64 (B, T); -200 in the place of the image, once in each row.
            images_clip: float32 (B, 3, S, S), or (1, 3, S, S) for all rows.
            images: float32 (B, 3, 1024, 1024), or (1, ...): SAM's, normalised and padded.
            original_sizes: (height, width) of each user's image, or of the one.
            seg_token_id: of ``[SEG]``; it must be the one that the model was loaded with.

        Raises ConfigError for what does not fit.
        """
        if isinstance(self.clip, ImageSpec):
            raise ConfigError(
                "these are the original's tensors, and this model has one encoder: use a 'dual' one"
            )
        if seg_token_id is not None and seg_token_id != self.seg_token_id:
            raise ConfigError(
                f"[SEG] is {seg_token_id} here and {self.seg_token_id} in the model; load it with seg_token_id={seg_token_id}"
            )
        is_image, is_seg = input_ids == IMAGE_INDEX, input_ids == self.seg_token_id
        if input_ids.ndim != 2 or not len(input_ids) or not bool((is_image.sum(dim=1) == 1).all()):
            raise ConfigError(
                f"input_ids {tuple(input_ids.shape)} must be (B, T) with {IMAGE_INDEX} once in each row"
            )
        known = is_image | ((input_ids >= 0) & (input_ids < self.vocabulary))
        if input_ids.is_floating_point() or not bool(known.all()):
            raise ConfigError(
                f"input_ids is {input_ids.dtype} from {input_ids.min()} to {input_ids.max()}; it must hold whole numbers "
                f"from 0 to {self.vocabulary - 1}, and {IMAGE_INDEX}"
            )
        if not bool(is_seg.any(dim=1).all()) or bool((is_seg & (is_image.cumsum(dim=1) == 0)).any()):
            raise ConfigError(
                f"each row of input_ids must hold [SEG], which is {self.seg_token_id}, and only behind the image"
            )
        count = len(input_ids)
        for what, side, pixels in (
            ("images_clip", self.clip.side, images_clip),
            ("images", self.sam_side, images),
        ):
            if tuple(pixels.shape[1:]) != (3, side, side) or len(pixels) not in (1, count):
                raise ConfigError(
                    f"{what} is {tuple(pixels.shape)}; ({count}, 3, {side}, {side}) or one for all is expected"
                )
        sizes = [(int(height), int(width)) for height, width in original_sizes]
        if len(sizes) not in (1, count):
            raise ConfigError(f"got {len(sizes)} original_sizes for {count} rows")
        if len({row.index(IMAGE_INDEX) for row in input_ids.tolist()}) > 1:
            raise ConfigError(
                "the image stands at different places in the rows of input_ids; give them one by one"
            )
        rows = []
        for row in input_ids.tolist():
            place = row.index(IMAGE_INDEX)
            rows.append(row[:place] + [self.image_token_id] * self.image_tokens + row[place + 1 :])
        return self.assemble(
            rows,
            [self.frame(*size) for size in (sizes if len(sizes) == count else sizes * count)],
            images_clip.float().expand(count, -1, -1, -1),
            images.float().expand(count, -1, -1, -1),
        )
