"""Images and queries -> the tensors that `ModifiedLISA` takes. Holds no weights; workers can pickle it."""

import itertools
import os
from collections.abc import Sequence
from dataclasses import asdict, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.geometry import Frame
from modified_lisa.images import ImageSource, read_image
from modified_lisa.model.answers.prompting import asked_ids, chat_dialogue, chat_follow_up
from modified_lisa.model.image_spec import ImageSpec
from modified_lisa.model.inputs import ModelInputs, Pictures, QueryInputs, check_length, whole_numbers
from modified_lisa.model.sources import first_line
from modified_lisa.prompts import SEG_TOKEN, user_turn, with_seg

__all__ = ["LisaProcessor"]


class LisaProcessor:
    """Built by `building.build_processor`; called with images and texts of equal number.

    ``vocabulary``: rows of the language model's embedding.
    ``mask_side``: cells of a mask's side as the decoder gives it (256 for every published SAM).
    """

    answers = False
    """Whether the model writes ``<SEG>`` in answers (`ModelConfig.answers`)."""
    own_seg_token = False
    """Whether the token of ``<SEG>`` is one of the VLM's own, with rows of its own."""
    most_tokens: int | None = None
    """The longest prompt that the language model has positions for; None: not said."""

    def __init__(
        self,
        tokenizer: Any,
        *,
        chat_template: str,
        seg_token_id: int,
        image_token: str,
        image_token_id: int,
        image_tokens: int,
        vocabulary: int,
        vlm_image: ImageSpec | None,
        sam_image: ImageSpec | None,
        mask_side: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.chat_template = chat_template
        self.seg_token_id = seg_token_id
        self.image_token = image_token
        self.image_token_id = image_token_id
        self.image_tokens = image_tokens
        self.vocabulary = vocabulary
        self.vlm_image = vlm_image
        self.sam_image = sam_image
        self.mask_side = mask_side

    def __call__(
        self,
        images: Sequence[ImageSource],
        texts: Sequence[str],
        device: torch.device | None = None,
        *,
        squares: bool = True,
    ) -> ModelInputs:
        """Args: images as paths, PIL images or arrays; texts with or without ``<SEG>``; where to resize the
        images and leave their pixels (None: the CPU), the same everywhere.

        ``squares=False`` leaves the pixels out, for images whose features are at hand.
        """
        if isinstance(images, str | os.PathLike | Image.Image) or isinstance(texts, str):
            what = "one string as the texts" if isinstance(texts, str) else "a single image"
            raise ConfigError(f"got {what}; give two lists of equal length")
        if len(images) != len(texts):
            raise ConfigError(
                f"got {len(images)} images and {len(texts)} texts; give two lists of equal length"
            )
        if not len(images):
            raise ConfigError("got no images; give at least one image and its text")
        return self.ask(self.look(images, device, squares=squares), texts)

    def look(
        self, images: Sequence[ImageSource], device: torch.device | None = None, *, squares: bool = True
    ) -> Pictures:
        """The part of a call that needs the images alone: a GPU resizes them, and may see them (`inference.runner`), while
        the words are read here."""
        arrays = [read_image(image) for image in images]
        frames = [self.frame(array.shape[0], array.shape[1]) for array in arrays]
        if not squares:
            return Pictures(frames, None, None)
        return Pictures(
            frames, self.vlm_squares(arrays, frames, device), self.sam_squares(arrays, frames, device)
        )

    def ask(self, pictures: Pictures, texts: Sequence[str]) -> ModelInputs:
        """The other part of a call: one text for each of ``pictures``."""
        return self.assemble([self.encode(text) for text in texts], *pictures)

    def assemble(
        self,
        rows: Sequence[Sequence[int]],
        frames: list[Frame],
        vlm_pixels: torch.Tensor | None,
        sam_pixels: torch.Tensor | None,
        image_of: Sequence[int] | None = None,
    ) -> ModelInputs:
        """Prompts as token ids, their images' place filled, the same in all, and pixels; ``image_of``: as in `ModelInputs`."""
        images_begin = rows[0].index(self.image_token_id)
        # Padding stands on the right, where a causal model never looks from a real token; so any id will do,
        # and 0, unlike a <pad> that was added later, is sure to have a row.
        ids = torch.nn.utils.rnn.pad_sequence([whole_numbers(row) for row in rows], batch_first=True)
        lengths = torch.tensor([len(row) for row in rows])
        is_seg = (ids == self.seg_token_id) & (torch.arange(ids.shape[1])[None] < lengths[:, None])
        segs = is_seg.nonzero().T.contiguous()
        return ModelInputs(
            frames=frames,
            input_ids=ids,
            image_place=slice(images_begin, images_begin + self.image_tokens),
            is_seg=is_seg,
            segs=segs,
            seg_counts=is_seg.sum(dim=1).tolist(),
            first_seg=int(segs[1].min()) if segs.numel() else ids.shape[1],
            vlm_pixels=vlm_pixels,
            sam_pixels=sam_pixels,
            image_of=None if image_of is None else torch.tensor(image_of),
        )

    @property
    def image_settings(self) -> dict[str, Any]:
        """All that decides which squares an image becomes, in plain values."""
        return {
            name: asdict(value)
            for name, value in vars(self).items()
            if is_dataclass(value) and not isinstance(value, type)
        }

    def prefix(self, image: ImageSource, device: torch.device | None = None) -> ModelInputs:
        """The prompt up to the end of the image, which every query about ``image`` begins with."""
        inputs = self([image], ["any query"], device)
        end = inputs.image_place.stop
        return replace(
            inputs,
            input_ids=inputs.input_ids[:, :end],
            is_seg=inputs.is_seg[:, :end],
            segs=inputs.segs[:, :0],
            seg_counts=[0],
            first_seg=end,
        )

    def queries(self, texts: Sequence[str]) -> QueryInputs:
        """What follows the image in the prompts of ``texts``, in one row."""
        (together,) = self.queries_in_rows(texts)
        return together

    def queries_in_rows(self, texts: Sequence[str], longest: int | None = None) -> list[QueryInputs]:
        """As `queries`, in as many rows as it takes for none to have more than ``longest`` tokens, but for a query that is
        longer by itself."""
        if not texts:
            raise ConfigError("got no queries; give at least one text")
        together: list[list[list[int]]] = [[]]
        for prompt in map(self.encode, texts):
            query = prompt[prompt.index(self.image_token_id) + self.image_tokens :]
            before = sum(map(len, together[-1]))
            if before and longest is not None and before + len(query) > longest:
                together.append([])
            together[-1].append(query)
        return [self._in_a_row(queries) for queries in together]

    def _in_a_row(self, rows: list[list[int]]) -> QueryInputs:
        lengths = [len(row) for row in rows]
        begins = np.repeat(np.cumsum(lengths) - lengths, lengths)
        words = np.empty((4, sum(lengths)), np.int64)
        words[0] = list(itertools.chain.from_iterable(rows))
        words[1] = words[0] == self.seg_token_id
        words[2] = np.repeat(np.arange(len(rows)), lengths)
        words[3] = np.arange(sum(lengths)) - begins
        segs = np.flatnonzero(words[1])
        return QueryInputs(
            words=torch.from_numpy(words),
            marks=torch.from_numpy(np.stack((segs, words[3, segs] == 0)).astype(np.int64)),
            seg_counts=[row.count(self.seg_token_id) for row in rows],
        )

    def frame(self, height: int, width: int) -> Frame:
        """Where an image of this size lies in the model's square."""
        return Frame(height, width)

    def vlm_squares(
        self, arrays: list[np.ndarray], frames: list[Frame], device: torch.device | None = None
    ) -> torch.Tensor | None:
        """float32 (B, 3, S, S) for the VLM's encoder; None where that does not run."""
        return self._squares(arrays, frames, self.vlm_image, device)

    def sam_squares(
        self, arrays: list[np.ndarray], frames: list[Frame], device: torch.device | None = None
    ) -> torch.Tensor | None:
        """float32 (B, 3, S, S) for SAM's encoder; None where that does not run."""
        return self._squares(arrays, frames, self.sam_image, device)

    def encode(self, text: str) -> list[int]:
        """Token ids of the whole prompt up to its last ``<SEG>``: what follows cannot change a mask.

        In answer mode ``<SEG>`` stands where such a model writes it, in the answer.
        """
        if self.answers:
            return asked_ids(self, text)
        query = with_seg(text)
        if self.image_token in query:
            raise ConfigError(
                f"the query contains {self.image_token!r}, which stands for the image; leave it out"
            )
        prompt = self.render(user_turn(query))
        ids = self.tokens_of(prompt)
        if self.seg_token_id not in ids:
            raise ModelLoadError(f"the VLM's chat template must keep {SEG_TOKEN}; it gave {prompt!r}")
        ids = self.fill_image(ids)
        if ids.index(self.image_token_id) > ids.index(self.seg_token_id):
            raise ModelLoadError(f"the VLM's chat template puts the image after the query: {prompt!r}")
        return ids[: len(ids) - ids[::-1].index(self.seg_token_id)]

    def dialogue_ids(self, question: str, answer: str = "") -> tuple[list[int], list[int]]:
        """(tokens of the prompt up to where the answer begins, those of the answer); see `answers.prompting`."""
        return chat_dialogue(self, question, answer)

    def follow_up_ids(self, question: str) -> list[int]:
        """Tokens of a further question, from behind the end of the last answer to where its own begins."""
        return chat_follow_up(self, question)

    def measured_question(self, text: str) -> str:
        """How a query of a data set is put to a model whose answer is measured."""
        return text

    def render(self, turns: Sequence[dict[str, object]], *, generation: bool = False) -> str:
        """A dialogue in the words of the chat template; ``generation``: up to where the assistant begins."""
        try:
            prompt: str = self.tokenizer.apply_chat_template(
                turns,
                chat_template=self.chat_template,
                tokenize=False,
                add_generation_prompt=generation,
            )
        except Exception as error:  # a template is a program: one for text alone fails as it likes
            raise ModelLoadError(
                f"the VLM's chat template cannot be used for an image and a text: {first_line(error)}"
            ) from error
        return prompt

    def tokens_of(self, prompt: str) -> list[int]:
        """Token ids of a whole prompt; one token stands for the image."""
        begins = self.tokenizer.bos_token
        ids: list[int] = self.tokenizer.encode(
            prompt, add_special_tokens=not (begins and prompt.startswith(begins))
        )
        return ids

    def fill_image(self, ids: list[int]) -> list[int]:
        """As many image tokens as the image has, in the place of the one. ModelLoadError for foreign tokens."""
        if ids.count(self.image_token_id) != 1:
            raise ModelLoadError(
                f"the VLM's chat template must give one {self.image_token!r}; it gave {self.tokenizer.decode(ids)!r}"
            )
        place = ids.index(self.image_token_id)
        others = (token for token in ids if token not in (self.image_token_id, self.seg_token_id))
        largest = max(others, default=0)
        if largest >= self.vocabulary:
            raise ModelLoadError(
                f"the VLM's tokenizer gives token {largest} ({self.tokenizer.convert_ids_to_tokens(largest)!r}), and its "
                f"language model has rows for 0 to {self.vocabulary - 1}; they do not belong together"
            )
        check_length(len(ids) - 1 + self.image_tokens, self.most_tokens)
        return ids[:place] + [self.image_token_id] * self.image_tokens + ids[place + 1 :]

    @staticmethod
    def _squares(
        arrays: list[np.ndarray], frames: list[Frame], spec: ImageSpec | None, device: torch.device | None
    ) -> torch.Tensor | None:
        if spec is None:
            return None
        squares = [
            frame.to_square(
                array,
                spec.side,
                mean=spec.mean,
                std=spec.std,
                interpolation=spec.interpolation,
                device=device,
            )
            for frame, array in zip(frames, arrays, strict=True)
        ]
        return torch.stack(squares) if len(squares) > 1 else squares[0][None]
