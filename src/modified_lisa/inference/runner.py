"""How a `Segmenter` runs its model: call by call, or as CUDA graphs. The same functions either way."""

import contextlib
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from modified_lisa.model.graphs import Graphs, bucket
from modified_lisa.model.inputs import ModelInputs, Pictures, QueryInputs
from modified_lisa.model.merged import merge_projections
from modified_lisa.model.reading import ImageState, answer, read_image
from modified_lisa.model.vision import Encoding

if TYPE_CHECKING:
    from modified_lisa.model.lisa import ModifiedLISA

__all__ = ["ROOM", "GraphRunner", "PlainRunner", "StateHolder"]

LARGEST_BATCH = 16
"""Images of one graph; more are run one graph after another."""


ROOM = 128
"""Tokens of a session's queries that are written behind the image's, and so answered at once; longer ones copy the image's
first."""


class StateHolder:
    """A session's memory of its image: here, or, for one session at a time, in the runner's own buffers."""

    state: ImageState | None = None
    closed = False


class PlainRunner:
    """Calls the model as it is: any device, any shape, nothing to warm up."""

    lock: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    """Held by whoever uses the runner, or the model beside it, in one of several threads."""

    def __init__(self, model: "ModifiedLISA") -> None:
        self.model = model

    def masks(self, inputs: ModelInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits float32 (N, 256, 256) and predicted IoU float32 (N,), on the model's device."""
        outputs = self.model(inputs.to(self.model.device))
        return torch.cat(outputs["pred_masks"]), torch.cat(outputs["iou_predictions"])

    def masks_of(
        self, pictures: Pictures, ask: Callable[[], ModelInputs]
    ) -> tuple[ModelInputs, torch.Tensor, torch.Tensor]:
        """What ``ask`` gives, the words to ``pictures``, and its `masks`. A GPU may see the pictures meanwhile."""
        inputs = ask()
        return inputs, *self.masks(inputs)

    def open(self, holder: StateHolder, inputs: ModelInputs) -> int:
        """Read an image into ``holder``; returns the bytes that it takes on the device."""
        holder.state = read_image(self.model, inputs.to(self.model.device))
        return holder.state.nbytes

    def answer(self, holder: StateHolder, queries: QueryInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """As `masks`, for queries about the image of ``holder``."""
        assert holder.state is not None
        return answer(self.model, holder.state, queries.to(self.model.device))

    def state_of(self, holder: StateHolder) -> ImageState:
        """What ``holder`` remembers, to be read before the runner is called again."""
        assert holder.state is not None
        return holder.state

    def close(self, holder: StateHolder) -> None:
        """Free what ``holder`` remembers."""
        holder.state, holder.closed = None, True


class GraphRunner(PlainRunner):
    """Runs the model as captured graphs, one for each batch size and length, and keeps them.

    Lengths are rounded up to multiples of 32 (16 for queries of a session), numbers of masks to powers of
    two, and batches are cut into powers of two, so that few graphs serve everything and little is padded.
    Padding stands where nothing looks, and gives the same values.

    Args:
        fuse: False: leave elementwise work as transformers writes it, to measure what fusing it gains.
    """

    def __init__(self, model: "ModifiedLISA", *, fuse: bool = True) -> None:
        super().__init__(model)
        # Graphs share what they read and write, and while one is captured the model's parts are others.
        self.lock = threading.RLock()
        if fuse:
            merge_projections(model.language_model)
        # Two graphs for one answer: the GPU has the first while the host reads the query's words.
        self._see = Graphs(self._encode, model, fuse=fuse)
        self._forward = Graphs(self._compute, model, pool=self._see.pool, fuse=fuse)
        self._answer = Graphs(self._answer_state, model, pool=self._see.pool, fuse=fuse)
        # What it returns is kept from call to call, so that no other graph may use its memory.
        self._read = Graphs(self._read_state, model, keep=1, fuse=fuse)
        self._place = slice(0, 0)
        self._state: ImageState | None = None
        self._owner: weakref.ref[StateHolder] | None = None

    @property
    def capture_seconds(self) -> float:
        """Time spent so far on compiling and capturing."""
        return sum(graphs.capture_seconds for graphs in (self._see, self._forward, self._answer, self._read))

    def masks_of(
        self, pictures: Pictures, ask: Callable[[], ModelInputs]
    ) -> tuple[ModelInputs, torch.Tensor, torch.Tensor]:
        # Of several parts, one's graph would overwrite another's result.
        alone = len(_sizes(len(pictures.frames))) == 1
        seen = self._see(pictures.vlm_pixels, pictures.sam_pixels) if alone else None
        inputs = ask()
        return inputs, *self._masks(inputs, seen)

    def masks(self, inputs: ModelInputs) -> tuple[torch.Tensor, torch.Tensor]:
        return self._masks(inputs)

    def _masks(
        self, inputs: ModelInputs, encoding: Encoding | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        parts = []
        for chunk in _chunks(inputs.spread()):
            seen = encoding or self._see(chunk.vlm_pixels, chunk.sam_pixels)
            padded = _pad(chunk)
            self._place = padded.image_place
            logits, iou = self._forward(padded.input_ids, padded.is_seg, padded.segs, *seen)
            count = chunk.segs.shape[1]
            # The next replay overwrites the graph's own result.
            parts.append((logits[:count].clone(), iou[:count].clone()))
        if len(parts) == 1:
            return parts[0]
        return torch.cat([logits for logits, _ in parts]), torch.cat([iou for _, iou in parts])

    def _encode(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Encoding:
        with torch.autocast(self.model.device.type, enabled=False):
            encoding: Encoding = self.model.vision(vlm_pixels, sam_pixels)
        return encoding

    def _compute(
        self,
        ids: torch.Tensor,
        is_seg: torch.Tensor,
        segs: torch.Tensor,
        tokens: torch.Tensor,
        embedding: torch.Tensor,
    ) -> Any:
        inputs = ModelInputs([], ids, self._place, is_seg, segs, [], 0, None, None)
        return self.model.compute(inputs, encoding=Encoding(tokens, embedding))[1:]

    def open(self, holder: StateHolder, inputs: ModelInputs) -> int:
        self._save_owner()
        self._place = inputs.image_place
        keys_and_embedding = self._read(inputs.input_ids, inputs.is_seg, inputs.vlm_pixels, inputs.sam_pixels)
        if self._state is not keys_and_embedding:
            if self._state is not None:
                self._answer.clear()  # they were captured on the buffers of before
            self._state = keys_and_embedding
        self._owner = weakref.ref(holder)
        return self._state.nbytes if self._state is not None else 0

    def _read_state(
        self,
        ids: torch.Tensor,
        is_seg: torch.Tensor,
        vlm_pixels: torch.Tensor | None,
        sam_pixels: torch.Tensor | None,
    ) -> ImageState:
        none = is_seg.new_zeros((2, 0), dtype=torch.int64)
        inputs = ModelInputs([], ids, self._place, is_seg, none, [0], 0, vlm_pixels, sam_pixels)
        return read_image(self.model, inputs, room=ROOM)

    def answer(self, holder: StateHolder, queries: QueryInputs) -> tuple[torch.Tensor, torch.Tensor]:
        if self._owner is None or self._owner() is not holder:
            assert holder.state is not None
            assert self._state is not None
            self._save_owner()
            self._state.copy_(holder.state)
            holder.state, self._owner = None, weakref.ref(holder)
        count = queries.marks.shape[1]
        padded = queries.padded(bucket(queries.length, 16), _power(count))
        logits, iou = self._answer(padded.words, padded.marks)
        return logits[:count].clone(), iou[:count].clone()

    def state_of(self, holder: StateHolder) -> ImageState:
        if self._owner is not None and self._owner() is holder and self._state is not None:
            return self._state
        return super().state_of(holder)

    def _answer_state(self, words: torch.Tensor, marks: torch.Tensor) -> Any:
        assert self._state is not None
        return answer(self.model, self._state, QueryInputs(words, marks, []))

    def _save_owner(self) -> None:
        """The open session's memory is about to be overwritten: put it aside."""
        owner = self._owner() if self._owner is not None else None
        if owner is not None and not owner.closed and self._state is not None:
            owner.state = self._state.clone()
        self._owner = None

    def warm_up(self, lengths: list[int], batch_sizes: list[int], inputs: ModelInputs) -> float:
        """Capture the graphs of prompts of up to ``lengths`` tokens; returns the seconds that it took.

        Args:
            inputs: any one image with one query.
        """
        start = time.perf_counter()
        for size in batch_sizes:
            for length in lengths:
                row = _pad(inputs, length)
                self.masks(_repeat(row, size))
        torch.cuda.synchronize(self.model.device)
        return time.perf_counter() - start


def _sizes(left: int) -> list[int]:
    """A number as a sum of 16s, 8, 4, 2 and 1."""
    sizes = []
    while left:
        sizes.append(min(LARGEST_BATCH, 1 << (left.bit_length() - 1)))
        left -= sizes[-1]
    return sizes


def _chunks(inputs: ModelInputs) -> list[ModelInputs]:
    """Cut a batch into parts of so many images."""
    sizes = _sizes(len(inputs.input_ids))
    if len(sizes) == 1:
        return [inputs]
    chunks, begin = [], 0
    for size in sizes:
        chunks.append(inputs.rows(begin, begin + size))
        begin += size
    return chunks


def _power(count: int) -> int:
    return 1 << max(0, count - 1).bit_length()


def _pad(inputs: ModelInputs, least: int = 0) -> ModelInputs:
    return inputs.padded(bucket(max(inputs.length, least)), _power(inputs.segs.shape[1]))


def _repeat(inputs: ModelInputs, size: int) -> ModelInputs:
    """The same row ``size`` times."""
    rows = torch.arange(size).repeat_interleave(inputs.segs.shape[1])
    return replace(
        inputs,
        frames=inputs.frames * size,
        input_ids=inputs.input_ids.expand(size, -1),
        is_seg=inputs.is_seg.expand(size, -1),
        segs=torch.stack((rows, inputs.segs[1].repeat(size))),
        seg_counts=inputs.seg_counts * size,
        vlm_pixels=None if inputs.vlm_pixels is None else inputs.vlm_pixels.expand(size, -1, -1, -1),
        sam_pixels=None if inputs.sam_pixels is None else inputs.sam_pixels.expand(size, -1, -1, -1),
    )
