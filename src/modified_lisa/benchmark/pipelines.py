"""One image and query through an architecture, stage by stage or in one go, eager or as CUDA graphs.

Shapes: B images, P tokens of the prompt, N masks, Dl the language model's width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from modified_lisa.errors import ConfigError
from modified_lisa.inference.runner import GraphRunner, PlainRunner
from modified_lisa.inference.segmentation import Segmentation
from modified_lisa.inference.segmenter import Segmenter
from modified_lisa.model.graphs import Graphs, Pool
from modified_lisa.model.inputs import ModelInputs
from modified_lisa.model.lisa import ModifiedLISA

__all__ = ["Run", "RunnerPipeline", "StagedPipeline"]

Stage = Callable[["Run"], None]


@dataclass
class Run:
    """One answer in the making."""

    images: list[Any]
    texts: list[str]
    inputs: ModelInputs | None = None
    encoding: Any = None
    state: Any = None
    """Hidden states (N, Dl), and what else the next stage needs."""
    logits: torch.Tensor | None = None
    iou: torch.Tensor | None = None
    answers: list[Segmentation] | None = None

    @property
    def ready(self) -> ModelInputs:
        if self.inputs is None:
            raise ConfigError("the images of this run were not prepared; run its first stage first")
        return self.inputs


class Pipeline:
    """What every way of running a model has in common: the images before, and the masks after."""

    prepares_on: torch.device | None = None
    """Where images are resized; None: the CPU."""

    def __init__(self, model: ModifiedLISA) -> None:
        self.model = model
        self.prepares_on = model.device
        self.segmenter = Segmenter(model, fast=False)

    def prepare(self, images: list[Any], texts: list[str]) -> ModelInputs:
        """Decoded images uint8 (H, W, 3) and queries to what the model takes."""
        return self.model.processor(images, texts, self.prepares_on)

    def masks(self, inputs: ModelInputs) -> tuple[torch.Tensor, torch.Tensor]:
        """Prepared inputs to logits (N, 256, 256) and predicted IoU (N,) on the device."""
        raise NotImplementedError

    def answer(self, images: list[Any], texts: list[str]) -> list[Segmentation]:
        """Decoded images and queries to bool masks of the images' sizes on the host."""
        run = Run(images, texts, self.prepare(images, texts))
        with torch.inference_mode():
            run.logits, run.iou = self.masks(run.ready)
            self._finish(run)
        return run.answers or []

    def _finish(self, run: Run) -> None:
        if run.logits is None or run.iou is None:
            raise ConfigError("this run has no masks yet; run the stages before first")
        counts = run.ready.seg_counts
        run.answers = self.segmenter.results(
            run.images, run.texts, run.ready.frames, run.logits.split(counts), run.iou.split(counts), 0.0
        )

    def close(self) -> None:
        """Free what was captured."""


class RunnerPipeline(Pipeline):
    """As users run it: a `Segmenter`'s runner.

    Args:
        fuse: as in `GraphRunner`.
    """

    def __init__(self, model: ModifiedLISA, *, fast: bool, fuse: bool = True) -> None:
        super().__init__(model)
        self.runner = GraphRunner(model, fuse=fuse) if fast else PlainRunner(model)
        self.segmenter.runner = self.runner

    def masks(self, inputs: ModelInputs) -> tuple[torch.Tensor, torch.Tensor]:
        return self.runner.masks(inputs)

    def answer(self, images: list[Any], texts: list[str]) -> list[Segmentation]:
        return self.segmenter.segment_batch(images, texts)


class StagedPipeline(Pipeline):
    """The same computation cut into stages, each eager or a graph of its own; the answer (``<SEG>``) is given."""

    def __init__(self, model: ModifiedLISA, *, fast: bool) -> None:
        super().__init__(model)
        self.fast = fast
        self.pool = Pool() if fast else None
        self.place = slice(0, 0)
        # All graphs share one pool of memory. They are captured in the order in which they are replayed, and
        # the result of each is held, so that none overwrites what a later one reads.
        self._encode_call = self._captured(self._encode)
        self._prefill_call = self._captured(self._prefill)
        self._head_call = self._captured(self._head)

    def _captured(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if not self.fast:
            return function
        return Graphs(function, self.model, pool=self.pool, keep=1)

    @property
    def stages(self) -> dict[str, Stage]:
        """By name, in order."""
        return {
            "preprocess": self._stage_prepare,
            "encode": self._stage_encode,
            "prefill": self._stage_prefill,
            "mask head": self._stage_head,
            "post-processing": self._finish,
        }

    def masks(self, inputs: ModelInputs) -> tuple[torch.Tensor, torch.Tensor]:
        run = Run([], [], inputs.to(self.model.device))
        for name, stage in self.stages.items():
            if name not in ("preprocess", "post-processing"):
                stage(run)
        if run.logits is None or run.iou is None:
            raise ConfigError("the stages of this pipeline made no masks")
        return run.logits, run.iou

    def _stage_prepare(self, run: Run) -> None:
        run.inputs = self.prepare(run.images, run.texts).to(self.model.device)

    def _stage_encode(self, run: Run) -> None:
        self.place = run.ready.image_place
        run.encoding = self._encode_call(run.ready.vlm_pixels, run.ready.sam_pixels)

    def _stage_prefill(self, run: Run) -> None:
        inputs = run.ready
        run.state = self._prefill_call(run.encoding[0], inputs.input_ids, inputs.is_seg, inputs.segs)

    def _stage_head(self, run: Run) -> None:
        run.logits, run.iou = self._head_call(run.state, run.encoding[1], run.ready.segs[0])

    # Tensors in, tensors out, and never a wait for the device: these can be captured.

    def _encode(self, vlm_pixels: torch.Tensor | None, sam_pixels: torch.Tensor | None) -> Any:
        with torch.no_grad():
            encoding = self.model.vision(vlm_pixels, sam_pixels)
        return encoding.tokens, encoding.embedding

    def _prefill(
        self, tokens: torch.Tensor, ids: torch.Tensor, is_seg: torch.Tensor, segs: torch.Tensor
    ) -> torch.Tensor:
        with torch.no_grad():
            return self.model.seg_states(tokens, self._text(ids, is_seg, segs))

    def _text(self, ids: torch.Tensor, is_seg: torch.Tensor, segs: torch.Tensor) -> ModelInputs:
        return ModelInputs([], ids, self.place, is_seg, segs, [], 0, None, None)

    def _head(
        self, states: torch.Tensor, embedding: torch.Tensor, rows: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with torch.no_grad():
            prompts = self.model.seg_projection(states.float())
            logits, iou = self.model.mask_head(embedding[rows], prompts)
        return logits, iou
