"""Images and queries in, `Segmentation` out: the friendly face of the one forward pass."""

import os
import time
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.geometry import Frame
from modified_lisa.images import ImageSource, read_image
from modified_lisa.inference.answer import Answer, answer_of
from modified_lisa.inference.fetching import fetch_masks
from modified_lisa.inference.runner import GraphRunner, PlainRunner
from modified_lisa.inference.segmentation import Segmentation, check_threshold
from modified_lisa.inference.session import Session, query_rows
from modified_lisa.model.availability import why_not_captured
from modified_lisa.model.graphs import bucket
from modified_lisa.prompts import with_seg

if TYPE_CHECKING:
    from modified_lisa.model.lisa import ModifiedLISA

__all__ = ["Segmenter"]


class Segmenter:
    """Answers queries about images with masks. Several threads may call it; on a GPU it answers them one after another.

    >>> segmenter = Segmenter.from_pretrained("checkpoints/best_model_epoch_20.pt")
    >>> result = segmenter.segment("street.jpg", "the vehicle that carries the most people")
    >>> result.save("overlay.png")
    """

    def __init__(self, model: "ModifiedLISA", *, fast: bool | None = None) -> None:
        """Take a model as it is, on the device where it is, and put it in evaluation mode.

        Args:
            fast: run it as CUDA graphs, captured at the first call with each shape (seconds to a minute, see
                `warm_up`) and replayed afterwards. None: where the model is on a CUDA device.

        Raises ConfigError for ``fast=True`` where that cannot be: another device, or no compiler.
        """
        obstacle = why_not_captured(model)
        if fast and obstacle:
            raise ConfigError(f"fast=True needs CUDA graphs: {obstacle}")
        if fast is None and obstacle and model.device.type == "cuda":
            warnings.warn(f"running without CUDA graphs, several times slower: {obstacle}", stacklevel=2)
        self.model = model.eval()
        self.runner = PlainRunner(model) if obstacle or fast is False else GraphRunner(model)

    def open(self, image: ImageSource) -> Session:
        """Read ``image`` once, for many queries about it."""
        with torch.inference_mode():
            return Session(self, image)

    def warm_up(self, query_tokens: int = 48, batch_sizes: list[int] | tuple[int, ...] = (1,)) -> float:
        """Do now what the first calls would do: compile, and capture graphs.

        Args:
            query_tokens: lengths of prompts up to the image and this many tokens are prepared, and those of a session's
                queries, one at a time; several at once are captured at the first call with their number and length.
            batch_sizes: numbers of images, each rounded up to a power of two.

        Returns the seconds that it took; 0 where there is nothing to warm up (no CUDA device, or
        ``fast=False``). Progress is shown on a terminal.
        """
        if not isinstance(self.runner, GraphRunner):
            return 0.0
        picture = np.zeros((64, 64, 3), np.uint8)
        inputs = self.model.processor([picture], ["warm up"])
        image_end = inputs.image_place.stop
        lengths = sorted({bucket(image_end + extra) for extra in range(1, query_tokens + 1)})
        with self.runner.lock, torch.inference_mode():
            seconds = self.runner.warm_up(lengths, list(batch_sizes), inputs)
            start = time.perf_counter()
            queries = self.model.processor.queries(["warm up"])
            with self.open(picture) as session:
                # A template may say more behind the image than the shortest query of another.
                for tokens in range(bucket(queries.length, 16), bucket(query_tokens, 16) + 1, 16):
                    self.runner.answer(session, queries.padded(tokens))
        return seconds + time.perf_counter() - start

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] | None = None,
        *,
        device: str | torch.device | None = None,
        fast: bool | None = None,
        **overrides: Any,
    ) -> "Segmenter":
        """Load a trained model.

        Args:
            source: a checkpoint (``.pt``) of the training, or a folder of `ModifiedLISA.save_pretrained`.
                None: the tiny model that comes trained with this package.
            device: None: the GPU if there is one, else the CPU.
            fast: as in `Segmenter`.
            **overrides: fields of `ModelConfig` that replace those of the checkpoint, such as
                ``quantize=False`` or ``vlm_name="folder/of/the/vlm"``.

        Raises:
            CheckpointError: the checkpoint is missing, torn, or does not fit the model.
            ModelLoadError: the VLM or the SAM that it was trained on cannot be found.
            ConfigError: an override that does not exist or does not go with the rest; no such device.
        """
        from modified_lisa.model.lisa import ModifiedLISA

        model = ModifiedLISA.from_pretrained("tiny" if source is None else source, device, **overrides)
        return cls(model, fast=fast)

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

        ``images`` and ``queries`` are lists of one length. A single query (a string) goes with each image. A single image (not
        in a list) goes with each query, and is read once, in a `Session` of its own. The results are in the
        order of the lists and equal those of `segment`, up to rounding.
        """
        check_threshold(threshold)
        for text in queries if isinstance(queries, list | tuple) else [queries]:
            with_seg(text)  # raises for what is no query before a GPU is put to work
        if not isinstance(images, list | tuple) and isinstance(queries, list | tuple) and len(queries) > 1:
            rows = query_rows(self.model.processor, queries)
            with self.open(images) as session:
                return session.answer_rows(queries, rows, threshold)
        pictures, texts = _pair(images, queries)
        if not texts:
            return []
        processor = self.model.processor
        with torch.inference_mode():
            looked = processor.look(pictures, self.model.device)
            with self.runner.lock:
                inputs, logits, iou = self.runner.masks_of(looked, lambda: processor.ask(looked, texts))
            return self.results(
                pictures,
                texts,
                inputs.frames,
                logits.split(inputs.seg_counts),
                iou.split(inputs.seg_counts),
                threshold,
            )

    def answer(self, image: ImageSource, question: str, *, threshold: float = 0.0, **options: Any) -> Answer:
        """Answer a question about ``image`` in words, with a mask for each ``<SEG>`` in the answer.

        Args:
            question: words, without ``<SEG>``.
            threshold: as in `segment`.
            options: as in `ModifiedLISA.generate`, such as ``max_new_tokens`` and ``streamer``.

        Raises:
            ConfigError: a model that was not trained to answer (``--ce_weight``), an empty question, unknown options.
            ImageError: not an image, or one that cannot be read.
        """
        return self.answer_batch([image], [question], threshold=threshold, **options)[0]

    def answer_batch(
        self,
        images: ImageSource | list[ImageSource] | tuple[ImageSource, ...],
        questions: str | list[str] | tuple[str, ...],
        *,
        threshold: float = 0.0,
        **options: Any,
    ) -> list[Answer]:
        """As `answer`, for lists as in `segment_batch`, all in one batch."""
        pictures, texts = _pair(images, questions)
        check_threshold(threshold)
        if not texts:
            return []
        with self.runner.lock:
            said = self.model.generate(pictures, texts, **options)
        frames = [self.model.processor.frame(*picture.shape[:2]) for picture in pictures]
        found = self.results(pictures, said.texts, frames, said.pred_masks, said.iou_predictions, threshold)
        parts = zip(found, texts, said.spans, said.complete, strict=True)
        return [answer_of(one, text, spans, complete) for one, text, spans, complete in parts]

    def results(
        self,
        pictures: Sequence[NDArray[np.uint8]],
        texts: Sequence[str],
        frames: Sequence[Frame],
        logits: Sequence[torch.Tensor],
        scores: Sequence[torch.Tensor],
        threshold: float,
    ) -> list[Segmentation]:
        """Decoded masks (N_i, 256, 256) and predicted IoU (N_i,) of each query as its `Segmentation`."""
        check_threshold(threshold)
        if not texts:
            return []
        with torch.inference_mode():
            masks, sums, values = fetch_masks(frames, logits, scores, float(threshold))
        if not np.isfinite(np.concatenate((sums, *values))).all():
            wrong = next(
                text
                for text, one, score in zip(texts, sums, values, strict=True)
                if not (np.isfinite(one) and np.isfinite(score).all())
            )
            raise ModelLoadError(
                f"the model's answer to {wrong!r} is not finite (NaN or infinite); its frozen parts may"
                " overflow in this precision: try dtype='bf16' or 'fp32' (--dtype), or another checkpoint"
            )
        parts = zip(pictures, texts, masks, values, strict=True)
        return [
            Segmentation(mask, score.clip(0, 1), text, picture.shape[:2], _read_only(picture))
            for picture, text, mask, score in parts
        ]


def _read_only(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Several answers share one picture: who draws into one's must not draw into the others'."""
    view = picture.view()
    view.setflags(write=False)
    return view


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
