"""What is measured, in which order: one precision, one architecture, one way of running after another."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch

from modified_lisa.benchmark.agreement import compare, sample_logits
from modified_lisa.benchmark.alone import measure_alone
from modified_lisa.benchmark.arguments import BenchmarkConfig
from modified_lisa.benchmark.flops import count_flops, parameters_by_module
from modified_lisa.benchmark.memory import memory_now, start_memory
from modified_lisa.benchmark.original import GivenAnswer, OriginalPipeline
from modified_lisa.benchmark.parts import Parts, free_memory
from modified_lisa.benchmark.pipelines import Pipeline, RunnerPipeline, StagedPipeline
from modified_lisa.benchmark.stages import measure_latency, measure_stages, picture, query_of
from modified_lisa.benchmark.throughput import measure_batch, measure_session
from modified_lisa.benchmark.training import measure_training
from modified_lisa.errors import ConfigError

__all__ = ["Bench", "NothingToMeasure", "Step"]

SESSIONS = ((16, 1), (32, 1), (48, 1), (16, 4))
"""Tokens of a further query, and how many at once."""
ORIGINAL_BATCHES = (1, 2, 4)
"""SAM ViT-H's attention writes out 0.5 GiB for each image and layer; LISA itself encodes images one by one. Compiled,
each batch size is 15 s of waiting, and only the first is measured."""
GIVEN = "original, answer given"


class NothingToMeasure(Exception):
    """A step before this one failed, so that there is no model."""


class Step(NamedTuple):
    """One measurement; ``call`` gives values that are added to ``keys``, or None."""

    keys: dict[str, Any]
    call: Callable[[], dict[str, Any] | None]

    @property
    def label(self) -> str:
        return " ".join(str(value) for value in self.keys.values())


class Bench:
    """Holds the one model that is being measured. `steps` has to be run in order."""

    def __init__(self, config: BenchmarkConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.on_gpu = device.type == "cuda"
        self.parts: Parts | None = None
        self.model: Any = None
        self.pipeline: Any = None
        self.staged: Any = None
        self.logits: dict[tuple[str, str], list[torch.Tensor]] = {}

    def steps(self) -> Iterator[Step]:
        if "memory" in self.config.what and self.on_gpu:  # before anything is loaded here
            for precision in [name for name in self.config.quantization if name != "int8"]:
                for source in self.config.sources:
                    keys = {"what": "memory", "precision": self._name(precision), "arm": source}
                    yield Step(keys, partial(measure_alone, self.config, precision, source, self.device))
        for precision in self.config.quantization:
            name = self._name(precision)
            yield Step({"what": "load", "precision": name}, partial(self._load, precision))
            # LLM.int8 waits for the GPU in every product, and cannot be captured.
            for mode in ("eager", "fast") if self.on_gpu and precision != "int8" else ("eager",):
                if mode == "fast":
                    if self.config.ablate:
                        yield from self._ablation(name, precision)
                    yield Step({"what": "kernels", "precision": name}, self._use_own_kernels)
                for source in self.config.sources:
                    yield from self._source(name, source, mode)
        yield Step({"what": "end"}, self._drop)
        if "none" in self.config.quantization and "latency" in self.config.what:
            for precision in [name for name in self.config.quantization if name != "none"]:
                for source in self.config.sources:
                    arm = GIVEN if source == "original" else source
                    keys = {"what": "precision", "precision": precision, "arm": arm}
                    yield Step(keys, partial(self._against_plain, precision, arm))

    def _name(self, precision: str) -> str:
        return {"none": self.config.dtype}.get(precision, precision)

    def _source(self, precision: str, source: str, mode: str) -> Iterator[Step]:
        what, fast = self.config.what, mode == "fast"
        architectures = ["original", GIVEN] if source == "original" else [source]
        yield Step({"what": "build", "precision": precision, "arm": source}, partial(self._build, source))
        for arm in architectures:
            keys = {"precision": precision, "arm": arm, "mode": mode}
            if {"latency", "throughput", "session", "flops"} & set(what):
                yield Step({"what": "prepare", **keys}, partial(self._open, arm, fast))
            if "latency" in what:
                yield Step({"what": "latency", **keys}, self._latency)
                yield Step({"what": "agreement", **keys}, partial(self._agreement, precision, arm, fast))
            if "throughput" in what and arm != GIVEN:
                sizes = self.config.batch_sizes
                counted = ORIGINAL_BATCHES[:1] if fast else ORIGINAL_BATCHES
                for size in [n for n in sizes if source != "original" or n in counted]:
                    yield Step({"what": "throughput", **keys, "batch": size}, partial(self._batch, size))
            if "session" in what and source != "original":
                for tokens, queries in SESSIONS[:: 3 if self.config.quick else 1]:
                    case: dict[str, Any] = {"tokens": tokens, "queries": queries}
                    yield Step({"what": "session", **keys, **case}, partial(self._session, tokens, queries))
            if "latency" in what:
                yield Step({"what": "stages", **keys}, partial(self._stages, arm, fast))
            if "flops" in what and not fast:
                yield Step({"what": "flops", **keys}, partial(self._flops, arm))
        if "training" in what and source != "sam":
            ways = ["full", "checkpointed"] if not fast or precision == "nf4" else []  # other kernels
            if source != "original":  # LISA has no frozen prefix: its projections and LoRA train everywhere
                ways.append("captured" if fast else "split")
            for way in ways:
                case = {"precision": precision, "arm": source, "mode": mode, "way": way}
                yield Step({"what": "training", **case}, partial(self._train, way))

    def _ablation(self, precision: str, quantization: str) -> Iterator[Step]:
        """With bitsandbytes' kernels still in place."""
        yield Step({"what": "build", "precision": precision, "arm": "vlm"}, partial(self._build, "vlm"))
        cases = [("fused elementwise work", False)]
        if quantization == "nf4":
            cases.insert(0, ("own 4-bit kernels", True))
        for off, fuse in cases:
            keys = {"what": "ablation", "precision": precision, "off": off}
            yield Step(keys, partial(self._ablated, fuse))

    # ------------------------------------------------------------------------------------- what steps do

    def _load(self, precision: str) -> dict[str, Any]:
        self._drop()
        self.parts = None
        start_memory(self.device)
        start = time.perf_counter()
        self.parts = Parts(self.config, precision, self.device)
        if self.on_gpu:
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - start
        return {"seconds": round(seconds, 3), "report": str(self.parts.report), **memory_now(self.device)}

    def _use_own_kernels(self) -> dict[str, Any]:
        own, other = self._parts.use_own_kernels()
        return {"own": own, "bitsandbytes": other}

    def _build(self, source: str) -> None:
        self._drop()
        self.model = self._parts.arm(source)

    def _open(self, arm: str, fast: bool) -> None:
        self._close()
        if arm == "original":
            self.pipeline = OriginalPipeline(self._model, self._parts.lm_head, fast=fast)
        elif arm == GIVEN:
            self.pipeline = GivenAnswer(self._model, fast=fast)
        else:
            self.pipeline = RunnerPipeline(self._model, fast=fast)

    def _latency(self) -> dict[str, Any]:
        return measure_latency(self._pipeline, self.config.counted_repeats)

    def _stages(self, arm: str, fast: bool) -> dict[str, Any]:
        pipeline = self._pipeline
        if not isinstance(pipeline, StagedPipeline):  # ours is one graph: cut it open to look inside
            self._close()
            self.staged = pipeline = StagedPipeline(self._model, fast=fast)
        stages = measure_stages(pipeline, self.config.counted_repeats)
        return {"stages_ms": stages}

    def _agreement(self, precision: str, arm: str, fast: bool) -> dict[str, Any] | None:
        found = sample_logits(self._pipeline)
        if not fast:
            self.logits[precision, arm] = found
            return None
        reference = self.logits.get((precision, arm))
        if reference is None:
            raise NothingToMeasure("there are no masks of the eager way to compare with")
        return compare(found, reference)

    def _against_plain(self, precision: str, arm: str) -> dict[str, Any]:
        """Masks of a quantised language model against those of the same weights unquantised, both eager."""
        plain = self._name("none")
        ours, reference = self.logits.get((precision, arm)), self.logits.get((plain, arm))
        if ours is None or reference is None:
            raise NothingToMeasure(f"there are no masks of {precision if ours is None else plain}")
        return {"against": plain, **compare(ours, reference)}

    def _batch(self, size: int) -> dict[str, Any]:
        return measure_batch(self._pipeline, size, self.config.counted_repeats)

    def _session(self, tokens: int, queries: int) -> dict[str, Any]:
        pipeline = self._pipeline
        if not isinstance(pipeline, RunnerPipeline):
            raise ConfigError("the original architecture keeps nothing of an image")
        return measure_session(pipeline, tokens, queries, self.config.counted_repeats)

    def _flops(self, arm: str) -> dict[str, Any]:
        pipeline = self.pipeline if isinstance(self.pipeline, StagedPipeline) else None
        pipeline = pipeline or StagedPipeline(self._model, fast=False)
        head = self._parts.lm_head if arm == "original" else None
        return {
            "flops": count_flops(pipeline, [picture()], [query_of(self._model.processor)]),
            "parameters": parameters_by_module(self._model, head),
        }

    def _train(self, way: str) -> dict[str, Any]:
        self._close()
        return measure_training(self._model, way, self.config.counted_repeats)

    def _ablated(self, fuse: bool) -> dict[str, Any]:
        self._close()
        self.pipeline = RunnerPipeline(self._model, fast=True, fuse=fuse)
        return measure_latency(self.pipeline, self.config.counted_repeats)

    # ------------------------------------------------------------------------------- the model in memory

    @property
    def _parts(self) -> Parts:
        return _there(self.parts, "its parts were not loaded")

    @property
    def _model(self) -> Any:
        return _there(self.model, "it was not built")

    @property
    def _pipeline(self) -> Pipeline:
        return _there(self.pipeline, "it was not prepared")

    def _close(self) -> None:
        for pipeline in (self.pipeline, self.staged):
            if pipeline is not None:
                pipeline.close()
        self.pipeline = self.staged = None
        free_memory(self.device)

    def _drop(self) -> None:
        self._close()
        self.model = None
        free_memory(self.device)


def _there(value: Any, why: str) -> Any:
    if value is None:
        raise NothingToMeasure(f"there is no model to measure: {why}")
    return value
