"""One optimizer step at batch 1 with the specification's defaults, in the ways in which it can be run."""

import contextlib
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from modified_lisa.benchmark.measure import GIB, time_calls
from modified_lisa.benchmark.memory import memory_now, start_memory
from modified_lisa.benchmark.stages import picture, query_of
from modified_lisa.config import TrainingConfig
from modified_lisa.data.collate import Batch, Collator
from modified_lisa.data.sample import Sample
from modified_lisa.metrics import SegmentationMetrics
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.training.captured import capture_parts, release_parts
from modified_lisa.training.run import deterministic
from modified_lisa.training.step import Stepper

__all__ = ["WAYS", "measure_training", "one_sample", "run_as"]

WAYS = {
    "full": "ordinary backward pass through the whole prompt",
    "checkpointed": "the same with gradient checkpointing",
    "split": "prompt before <SEG> without gradient",
    "captured": "the same as CUDA graphs, and so the bridge and the mask head",
}


def measure_training(model: ModifiedLISA, way: str, repeats: int) -> dict[str, Any]:
    """Milliseconds of forward, backward, metrics, clipping and AdamW of one sample; and peak memory.

    Under deterministic algorithms, as `training.run.train` runs. The weights change: nothing else may need them.
    """
    device = model.device
    config = TrainingConfig(model=model.config)
    alone: Any = SimpleNamespace(device=device, num_processes=1)  # what a step asks an Accelerator for
    stepper = Stepper(model, config, alone)
    batch = one_sample(model)
    metrics = SegmentationMetrics()
    state = {"step": 0}

    def step() -> None:
        state["step"] += 1
        stepper.step([batch], 1, 1e-6, metrics)

    with run_as(model, way):
        start_memory(device)
        before = torch.cuda.memory_allocated(device) / GIB if device.type == "cuda" else None
        start = time.perf_counter()
        with deterministic():
            step()
        first = time.perf_counter() - start
        timing = time_calls([_deterministic(step)] * repeats, device=device, warmup=min(2, repeats - 1))
        memory = memory_now(device, process=True)
    model.zero_grad(set_to_none=True)
    return {
        "way": way,
        "ms": round(1000 * timing.median, 3),
        "first_call_s": round(first, 3),
        "weights_gib": None if before is None else round(before, 3),
        **memory,
    }


def one_sample(model: ModifiedLISA) -> Batch:
    """A batch of one image, one query and one rectangle."""
    target = np.zeros(picture().shape[:2], np.uint8)
    target[100:300, 200:400] = 1
    return Collator(model.processor)([Sample("benchmark/0", picture(), query_of(model.processor), target)])


def _deterministic(call: Callable[[], None]) -> Callable[[], None]:
    def run() -> None:
        with deterministic():
            call()

    return run


@contextlib.contextmanager
def run_as(model: ModifiedLISA, way: str) -> Iterator[None]:
    """Meanwhile, ``model`` trains in one of the `WAYS`."""
    language_model: Any = model.language_model
    model.train()
    try:
        if way in ("full", "checkpointed"):
            model.split_forward = _full_forward
        if way == "checkpointed":
            # The model itself refuses it where nothing before <SEG> trains; here it is what is compared with.
            enable = getattr(language_model, "activation_checkpointing_enable", None)
            (enable or language_model.gradient_checkpointing_enable)({"use_reentrant": False})
            language_model.train(True)
        if way == "captured":
            capture_parts(model)
        yield
    finally:
        release_parts(model)
        if way == "checkpointed":
            disable = getattr(language_model, "activation_checkpointing_disable", None)
            (disable or language_model.gradient_checkpointing_disable)()
        model.eval()


def _full_forward(language_model: Any, embeds: torch.Tensor, cut: int) -> torch.Tensor:
    """As `split_forward`, with a gradient through everything."""
    hidden: torch.Tensor = language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    return hidden[:, cut:]
