"""Images and queries -> the tensors that `ModifiedLISA` takes. Holds no weights; workers can pickle it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.geometry import Frame
from modified_lisa.images import ImageSource, read_image
from modified_lisa.model.sources import class_tokens, not_found, read_config
from modified_lisa.model.tiny import CHAT_TEMPLATE
from modified_lisa.prompts import SEG_TOKEN, user_turn, with_seg
from modified_lisa.tokens import add_seg_token

__all__ = ["ImageSpec", "LisaProcessor", "ModelInputs", "build_processor"]


@dataclass(frozen=True)
class ImageSpec:
    """How an encoder wants its square image."""

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str


@dataclass(frozen=True)
class ModelInputs:
    """B images with one text each."""

    frames: list[Frame]
    input_ids: torch.Tensor
    """int64 (B, T), padded on the right; the image's place is filled with P copies of the image token."""
    is_image: torch.Tensor
    """bool (B, T)."""
    is_seg: torch.Tensor
    """bool (B, T); every row has one or more."""
    vlm_pixels: torch.Tensor | None
    """float32 (B, 3, S, S) for the VLM's encoder."""
    sam_pixels: torch.Tensor | None
    """float32 (B, 3, S, S) for SAM's encoder."""

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def first_seg(self) -> int:
        """Position of the earliest ``<SEG>`` of the batch."""
        return int(self.is_seg.any(dim=0).int().argmax())

    @property
    def seg_counts(self) -> list[int]:
        """Masks of each text."""
        return [int(count) for count in self.is_seg.sum(dim=1)]

    def to(self, device: torch.device | str) -> "ModelInputs":
        moved: dict[str, Any] = {
            entry.name: value.to(device, non_blocking=True)
            for entry in fields(self)
            if isinstance(value := getattr(self, entry.name), torch.Tensor)
        }
        return replace(self, **moved)


class LisaProcessor:
    """Built by `build_processor`; called with images and texts of equal number.

    ``mask_side``: cells of a mask's side as the decoder gives it (256 for every published SAM).
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        chat_template: str,
        seg_token_id: int,
        image_token: str,
        image_token_id: int,
        image_tokens: int,
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
        self.vlm_image = vlm_image
        self.sam_image = sam_image
        self.mask_side = mask_side

    def __call__(self, images: Sequence[ImageSource], texts: Sequence[str]) -> ModelInputs:
        """Args: images as paths, PIL images or arrays; texts with or without ``<SEG>``."""
        if isinstance(texts, str) or len(images) != len(texts):
            number = "one string" if isinstance(texts, str) else f"{len(texts)} texts"
            raise ConfigError(f"got {len(images)} images and {number}; give two lists of equal length")
        if not len(images):
            raise ConfigError("got no images; give at least one image and its text")
        arrays = [read_image(image) for image in images]
        frames = [Frame(array.shape[0], array.shape[1]) for array in arrays]
        rows = [self.encode(text) for text in texts]
        filler = self.tokenizer.pad_token_id or 0
        # Padding stands on the right, where a causal model never looks from a real token.
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in rows], batch_first=True, padding_value=filler
        )
        lengths = torch.tensor([len(row) for row in rows])
        is_token = torch.arange(ids.shape[1])[None] < lengths[:, None]
        return ModelInputs(
            frames=frames,
            input_ids=ids,
            is_image=(ids == self.image_token_id) & is_token,
            is_seg=(ids == self.seg_token_id) & is_token,
            vlm_pixels=self._squares(arrays, frames, self.vlm_image),
            sam_pixels=self._squares(arrays, frames, self.sam_image),
        )

    def encode(self, text: str) -> list[int]:
        """Token ids of the whole prompt up to its last ``<SEG>``: what follows cannot change a mask."""
        query = with_seg(text)
        if self.image_token in query:
            raise ConfigError(
                f"the query contains {self.image_token!r}, which stands for the image; leave it out"
            )
        prompt = self.tokenizer.apply_chat_template(
            user_turn(query), chat_template=self.chat_template, tokenize=False, add_generation_prompt=False
        )
        begins = self.tokenizer.bos_token
        ids = self.tokenizer.encode(prompt, add_special_tokens=not (begins and prompt.startswith(begins)))
        if ids.count(self.image_token_id) != 1 or self.seg_token_id not in ids:
            raise ModelLoadError(
                f"the VLM's chat template must give one {self.image_token!r} and keep {SEG_TOKEN}; it gave {prompt!r}"
            )
        end = len(ids) - ids[::-1].index(self.seg_token_id)
        place = ids.index(self.image_token_id)
        if place > end:
            raise ModelLoadError(f"the VLM's chat template puts the image after the query: {prompt!r}")
        return ids[:place] + [self.image_token_id] * self.image_tokens + ids[place + 1 : end]

    @staticmethod
    def _squares(
        arrays: list[np.ndarray], frames: list[Frame], spec: ImageSpec | None
    ) -> torch.Tensor | None:
        if spec is None:
            return None
        squares = [
            frame.to_square(array, spec.side, mean=spec.mean, std=spec.std, interpolation=spec.interpolation)
            for frame, array in zip(frames, arrays, strict=True)
        ]
        return torch.stack(squares)


def build_processor(config: ModelConfig) -> LisaProcessor:
    """The tokenizer, chat template and image settings of the two models of ``config``.

    Raises ModelLoadError for files that are missing or of another kind of model.
    """
    from transformers import AutoImageProcessor, AutoProcessor

    source, vlm_config = read_config(config.vlm_name, "--vlm_name", "llava")
    processor = _from_pretrained(AutoProcessor, source, "--vlm_name", config.vlm_name)
    tokenizer = processor.tokenizer
    template = processor.chat_template or tokenizer.chat_template
    if not template:
        warnings.warn(
            f"--vlm_name {config.vlm_name} has no chat template; LLaVA-1.5's is used (put chat_template.jinja "
            "into the model's folder to use its own)",
            stacklevel=2,
        )
        template = CHAT_TEMPLATE
    vision = vlm_config.vision_config
    image_tokens = (vision.image_size // vision.patch_size) ** 2
    if vlm_config.vision_feature_select_strategy == "full" and config.vision_source != "sam":
        image_tokens += class_tokens(vision)
    image_token_id = int(vlm_config.image_token_id)
    sam_source, sam_config = read_config(config.sam_name, "--sam_name", "sam")
    sam_vision = sam_config.vision_config
    vlm_image = sam_image = None
    if config.vision_source in ("vlm", "dual"):
        vlm_image = _image_spec(processor.image_processor, vision.image_size, "bicubic")
    if config.vision_source in ("sam", "dual"):
        sam_processor = _from_pretrained(AutoImageProcessor, sam_source, "--sam_name", config.sam_name)
        sam_image = _image_spec(sam_processor, sam_vision.image_size, "bilinear")
    return LisaProcessor(
        tokenizer,
        chat_template=template,
        seg_token_id=add_seg_token(tokenizer),
        image_token=tokenizer.convert_ids_to_tokens(image_token_id),
        image_token_id=image_token_id,
        image_tokens=image_tokens,
        mask_side=4 * (sam_vision.image_size // sam_vision.patch_size),
        vlm_image=vlm_image,
        sam_image=sam_image,
    )


def _from_pretrained(kind: Any, source: str, flag: str, name: str) -> Any:
    try:
        return kind.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelLoadError(not_found(name, flag, error)) from error


def _image_spec(image_processor: Any, side: int, interpolation: str) -> ImageSpec:
    mean, std = (
        (*(float(value) for value in values),)
        for values in (image_processor.image_mean, image_processor.image_std)
    )
    return ImageSpec(side=int(side), mean=mean, std=std, interpolation=interpolation)  # type: ignore[arg-type]
