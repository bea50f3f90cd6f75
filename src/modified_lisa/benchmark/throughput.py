"""Many images at once, and many queries about one image."""

import time
from typing import Any

import torch

from modified_lisa.benchmark.flops import stored_bytes
from modified_lisa.benchmark.measure import time_calls
from modified_lisa.benchmark.memory import memory_now, start_memory
from modified_lisa.benchmark.pipelines import Pipeline, RunnerPipeline
from modified_lisa.benchmark.stages import picture, query_of

__all__ = ["measure_batch", "measure_session"]


def measure_batch(pipeline: Pipeline, size: int, repeats: int) -> dict[str, Any]:
    """``size`` images with one query each: from prepared tensors on the host to logits on the device."""
    device = pipeline.model.device
    images = [picture(seed) for seed in range(size)]
    inputs = pipeline.prepare(images, [query_of(pipeline.model.processor)] * size)

    def call() -> None:
        with torch.inference_mode():
            pipeline.masks(inputs)

    start_memory(device)
    start = time.perf_counter()
    call()
    first = time.perf_counter() - start
    seconds = time_calls([call] * repeats, device=device, warmup=min(1, repeats - 1)).median
    return {
        "batch": size,
        "ms": round(1000 * seconds, 3),
        "images_per_s": round(size / seconds, 3),
        "first_call_s": round(first, 3),
        **memory_now(device),
    }


def measure_session(pipeline: RunnerPipeline, tokens: int, queries: int, repeats: int) -> dict[str, Any]:
    """Further queries, of up to ``tokens`` tokens each, about an image that was read before.

    ``model_ms``: from prepared queries to logits; ``total_ms``: from the words to bool masks on the host;
    ``open_ms``: reading the image. ``bytes``: of weights and remembered keys and values, which have to be read.
    """
    model, device, segmenter = pipeline.model, pipeline.model.device, pipeline.segmenter
    processor = model.processor
    text = _query_of(processor, tokens)
    texts = [text] * queries
    image = picture()
    start_memory(device)
    opening = time_calls(
        [lambda: segmenter.open(image).close()] * repeats, device=device, warmup=min(1, repeats - 1)
    )
    with segmenter.open(image) as session:
        prepared = processor.queries(texts)

        def call() -> None:
            with torch.no_grad():
                segmenter.runner.answer(session, prepared)

        start = time.perf_counter()
        call()
        first = time.perf_counter() - start
        answering = time_calls([call] * repeats, device=device, warmup=min(3, repeats - 1))
        total = time_calls(
            [lambda: session.segment_many(texts)] * repeats, device=device, warmup=min(1, repeats - 1)
        )
        return {
            "tokens": tokens,
            "tokens_used": prepared.length,
            "queries": queries,
            "model_ms": round(1000 * answering.median, 4),
            "total_ms": round(1000 * total.median, 4),
            "open_ms": round(1000 * opening.median, 4),
            "session_gib": round(session.nbytes / 2**30, 4),
            "bytes": stored_bytes(model.language_model) + session.nbytes,
            "first_call_s": round(first, 3),
            **memory_now(device),
        }


def _query_of(processor: Any, tokens: int) -> str:
    """The longest query of at most ``tokens`` tokens after the image."""
    before = len(processor.encode("x")) - processor.queries(["x"]).length
    return query_of(processor, before - processor.image_tokens + tokens)
