"""A function of a batch as one CUDA graph: small models spend most of a step on launching kernels otherwise."""

from collections.abc import Callable
from typing import Any

import torch

Batch = dict[str, torch.Tensor]


class Captured:
    """``function`` of batches that have the shapes of ``example``; what it returns is overwritten by the next call.

    It may leave gradients: those stay where they were at the capture, and each call writes them anew.
    """

    def __init__(self, function: Callable[[Batch], Any], example: Batch) -> None:
        self._given = {name: value.clone() for name, value in example.items()}
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                function(self._given)
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads go on preparing batches, which allocates pinned memory.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._returned = function(self._given)

    def __call__(self, batch: Batch) -> Any:
        for name, value in batch.items():
            self._given[name].copy_(value, non_blocking=True)
        self._graph.replay()
        return self._returned
