"""Latency at batch 1: from a decoded image and a query to bool masks on the host; in all, and by stage."""

import statistics
import time
from typing import Any

import numpy as np
import torch

from modified_lisa.benchmark.measure import time_calls, usual_algorithms
from modified_lisa.benchmark.memory import memory_now, start_memory
from modified_lisa.benchmark.pipelines import Pipeline, Run, StagedPipeline

__all__ = ["PICTURE", "measure_latency", "measure_stages", "picture", "query_of"]

PICTURE = (480, 640)
"""Height and width of the images, COCO's usual ones."""
TEXT_TOKENS = 60
"""Tokens of a prompt beside the image's."""


def picture(seed: int = 0) -> np.ndarray:
    """A smooth random image, uint8 (480, 640, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    return coarse.repeat(PICTURE[0] // 12, axis=0).repeat(PICTURE[1] // 16, axis=1)


def query_of(processor: Any, tokens: int = TEXT_TOKENS) -> str:
    """The longest query of the form "what is it? what is it? ..." whose prompt has at most ``tokens`` beside the
    image's; one word at least."""
    words: list[str] = []
    for word in ["what", "could", "one", "sit", "on", "or", "eat", "from"] * (tokens + 1):
        longer = " ".join([*words, word])
        if words and len(processor.encode(longer)) - processor.image_tokens > tokens:
            break
        words.append(word)
    return " ".join(words)


def measure_latency(pipeline: Pipeline, repeats: int) -> dict[str, Any]:
    """``total_ms``, ``model_ms`` (prepared inputs to logits), ``first_call_s`` (compiles and captures), memory."""
    device = pipeline.model.device
    images, texts = [picture()], [query_of(pipeline.model.processor)]
    start_memory(device)
    start = time.perf_counter()
    pipeline.answer(images, texts)
    first = time.perf_counter() - start
    warmup = min(3, repeats - 1)  # the first call was one
    total = time_calls([lambda: pipeline.answer(images, texts)] * repeats, device=device, warmup=warmup)
    inputs = pipeline.prepare(images, texts)

    def run_model() -> None:
        with torch.inference_mode():
            pipeline.masks(inputs)

    model = time_calls([run_model] * repeats, device=device, warmup=min(1, repeats - 1))
    return {
        "total_ms": _ms(total.median),
        "model_ms": _ms(model.median),
        "first_call_s": round(first, 3),
        "tokens": int(inputs.length),
        **memory_now(device, process=True),
    }


def measure_stages(pipeline: StagedPipeline, repeats: int) -> dict[str, float]:
    """Milliseconds of each stage, by name; the device is waited for after each, so that their sum is a little
    more than the total."""
    device = pipeline.model.device
    images, texts = [picture()], [query_of(pipeline.model.processor)]
    warmup = min(3, repeats) if pipeline.fast else min(3, repeats - 1)  # the first run may capture
    seconds: dict[str, list[float]] = {name: [] for name in pipeline.stages}
    with usual_algorithms(), torch.inference_mode():
        for number in range(warmup + repeats):
            run = Run(images, texts)
            for name, stage in pipeline.stages.items():
                _wait(device)
                start = time.perf_counter()
                stage(run)
                _wait(device)
                if number >= warmup:
                    seconds[name].append(time.perf_counter() - start)
    return {name: _ms(statistics.median(values)) for name, values in seconds.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _ms(seconds: float) -> float:
    return round(1000 * seconds, 4)
