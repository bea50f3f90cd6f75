"""Images and queries in, `Segmentation` out: the friendly face of the one forward pass."""

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.images import ImageSource, read_image
from modified_lisa.inference.segmentation import Segmentation

if TYPE_CHECKING:
    from modified_lisa.model.lisa import ModifiedLISA

__all__ = ["Segmenter"]


class Segmenter:
    """Answers queries about images with masks.

    >>> segmenter = Segmenter.from_pretrained("checkpoints/best_model_epoch_20.pt")
    >>> result = segmenter.segment("street.jpg", "the vehicle that carries the most people")
    >>> result.save("overlay.png")
    """

    def __init__(self, model: "ModifiedLISA") -> None:
        """Take a model as it is, on the device where it is, and put it in evaluation mode."""
        self.model = model.eval()

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        **overrides: Any,
    ) -> "Segmenter":
        """Load a trained model.

        Args:
            source: a checkpoint (``.pt``) of the training, or a folder of `ModifiedLISA.save_pretrained`.
                None: the tiny model that comes trained with this package.
            device: None: the GPU if there is one, else the CPU.
            **overrides: fields of `ModelConfig` that replace those of the checkpoint, such as
                ``quantize=False`` or ``vlm_name="folder/of/the/vlm"``.

        Raises:
            CheckpointError: the checkpoint is missing, torn, or does not fit the model.
            ModelLoadError: the VLM or the SAM that it was trained on cannot be found.
            ConfigError: an override that does not exist or does not go with the rest; no such device.
        """
        from modified_lisa.model.lisa import ModifiedLISA

        return cls(ModifiedLISA.from_pretrained("tiny" if source is None else source, device, **overrides))

    def segment(self, image: ImageSource, query: str, *, threshold: float = 0.0) -> Segmentation:
        """Find what ``query`` asks for in ``image``.

        Args:
            image: a path, a PIL image or an array, of any mode.
            query: words; ``<SEG>`` is appended if it is not in them. Each ``<SEG>`` gives a mask.
            threshold: in logits; a pixel is in the mask if its logit is above. 0 = a probability of 1/2.

        Raises:
            ConfigError: an empty query, or a threshold that is not a finite number.
            ImageError: not an image, or one that cannot be read.
        """
        return self.segment_batch([image], [query], threshold=threshold)[0]

    def segment_batch(
        self,
        images: ImageSource | list[ImageSource] | tuple[ImageSource, ...],
        queries: str | list[str] | tuple[str, ...],
        *,
        threshold: float = 0.0,
    ) -> list[Segmentation]:
        """Answer one query about each image, all in one forward pass; memory grows with their number.

        ``images`` and ``queries`` are lists of one length. A single image (not in a list) goes with each
        query, a single query (a string) with each image. The results are in the order of the lists and equal
        those of `segment`, up to rounding.
        """
        if (
            isinstance(threshold, bool)
            or not isinstance(threshold, int | float)
            or not math.isfinite(threshold)
        ):
            raise ConfigError(f"the threshold is {threshold!r}; it must be a finite number, in logits")
        pictures, texts = _pair(images, queries)
        if not texts:
            return []
        inputs = self.model.processor(pictures, texts).to(self.model.device)
        with torch.inference_mode():
            outputs = self.model(inputs)
            return [
                self._result(*parts, threshold)
                for parts in zip(
                    pictures,
                    texts,
                    inputs.frames,
                    outputs["pred_masks"],
                    outputs["iou_predictions"],
                    strict=True,
                )
            ]

    @staticmethod
    def _result(
        picture: NDArray[np.uint8],
        text: str,
        frame: Any,
        logits: torch.Tensor,
        scores: torch.Tensor,
        threshold: float,
    ) -> Segmentation:
        if not (bool(logits.isfinite().all()) and bool(scores.isfinite().all())):
            raise ModelLoadError(
                f"the model's answer to {text!r} is not finite (NaN or infinite); its frozen parts may"
                " overflow in this precision: try dtype='bf16' or 'fp32' (--dtype), or another checkpoint"
            )
        masks = frame.mask_to_image(logits) > threshold
        return Segmentation(
            masks=masks.cpu().numpy(),
            scores=scores.clamp(0, 1).float().cpu().numpy(),
            text=text,
            size=picture.shape[:2],
            image=picture,
        )


def _pair(images: Any, queries: Any) -> tuple[list[NDArray[np.uint8]], list[str]]:
    """Lists of one length; a lone image or query is repeated, and each image is read once."""
    many_images, many_queries = isinstance(images, list | tuple), isinstance(queries, list | tuple)
    pictures = [read_image(image) for image in (images if many_images else [images])]
    texts = list(queries) if many_queries else [queries]
    if many_queries and not many_images:
        pictures = pictures * len(texts)
    elif many_images and not many_queries:
        texts = texts * len(pictures)
    if len(pictures) != len(texts):
        raise ConfigError(
            f"got {len(pictures)} images and {len(texts)} queries; give lists of one length, or a single"
            " image (not in a list) for all queries, or a single query for all images"
        )
    return pictures, texts
