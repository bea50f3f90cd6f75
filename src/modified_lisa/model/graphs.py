"""CUDA graphs of a function of tensors, one for each combination of shapes.

At batch 1 a 7B model waits for Python to launch its two thousand kernels. A graph launches them all at once;
it can only be replayed on tensors of the same shapes at the same addresses, so the inputs are copied in.
"""

import contextlib
import functools
import inspect
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from modified_lisa.model.fused import fused
from modified_lisa.model.nf4.ahead import DecodeAhead

__all__ = ["Graphs", "Pool", "bucket"]

KEEP = 24
"""Graphs that are kept of one function; the one that was not used for longest goes first."""


def bucket(length: int, step: int = 32) -> int:
    """``length`` rounded up to a multiple of ``step``, so that few graphs serve all lengths."""
    return -(-length // step) * step


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all captures: cuBLAS keeps 32 MiB for each stream that it has ever seen, 1 GiB for the 32 that
    torch hands out in turn."""
    # Before whatever else a graph does beside it (`DecodeAhead`).
    return torch.cuda.Stream(device, priority=-1)


class Pool:
    """Memory that graphs work in. torch frees it with the last graph in it, and does not take its handle after that."""

    def __init__(self) -> None:
        self.graphs = 0
        """How many are in it."""
        self._handle: Any = None

    @property
    def handle(self) -> Any:
        """For a capture."""
        if not self.graphs:
            self._handle = torch.cuda.graph_pool_handle()
        return self._handle


class Graphs:
    """``function``, captured at its first call with each combination of shapes and replayed afterwards.

    Args:
        function: tensors (or None) to a nest of tensors. It may not wait for the GPU, nor use gradients. A method does
            not keep its object alive: so an owner of graphs is freed with the last reference to it.
        model: its elementwise work is fused while capturing (`fused`). Moved or cast, it is captured anew.
        fuse: False: leave that work as transformers writes it, and decode 4-bit weights one after another.
        pool: memory that several `Graphs` may share if they are never replayed at the same time.

    The result of a call is overwritten by the next call of any graph of the same pool; clone what must stay.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        model: nn.Module,
        pool: Pool | None = None,
        keep: int = KEEP,
        *,
        fuse: bool = True,
    ) -> None:
        self._function = weakref.WeakMethod(function) if inspect.ismethod(function) else lambda: function
        self.model, self.keep, self.fuse = model, keep, fuse
        self.pool = Pool() if pool is None else pool
        self.capture_seconds = 0.0
        """Spent on capturing so far, compilation included."""
        self._graphs: OrderedDict[Any, tuple[torch.cuda.CUDAGraph, list[Any], Any]] = OrderedDict()
        self._static: dict[Any, torch.Tensor] = {}
        """Inputs of the graphs. Those of one shape share one: no two graphs are replayed at once."""
        self._captured_on: Any = None
        """Where the model was when they were captured."""

    def __len__(self) -> int:
        return len(self._graphs)

    def __call__(self, *inputs: torch.Tensor | None) -> Any:
        key = tuple(None if x is None else (tuple(x.shape), x.dtype) for x in inputs)
        first = next(self.model.parameters())
        here = first.device, first.dtype, first.data_ptr()
        if self._graphs and here != self._captured_on:
            self.clear()  # they would read where the weights were before
        self._captured_on = here
        if key not in self._graphs:
            self._capture(key, inputs)
        self._graphs.move_to_end(key)
        graph, static, outputs = self._graphs[key]
        with torch.no_grad():
            for place, value in zip(static, inputs, strict=True):
                if place is not None and place is not value:
                    place.copy_(value, non_blocking=True)
        graph.replay()
        return outputs

    def clear(self) -> None:
        """Forget all graphs and free their memory."""
        self.pool.graphs -= len(self._graphs)
        self._graphs.clear()
        self._static.clear()

    def _place(self, number: int, x: torch.Tensor | None, device: torch.device) -> torch.Tensor | None:
        """Where a graph reads its input of this number: filled with ``x``."""
        if x is None:
            return None
        key = (number, tuple(x.shape), x.dtype)
        if key in self._static:
            self._static[key].copy_(x)
        else:
            self._static[key] = x.to(device, copy=True)
        return self._static[key]

    def _capture(self, key: Any, inputs: tuple[torch.Tensor | None, ...]) -> None:
        while len(self._graphs) >= self.keep:
            self._graphs.popitem(last=False)
            self.pool.graphs -= 1
        start = time.perf_counter()
        device = next(self.model.parameters()).device
        fusing = fused(self.model) if self.fuse else contextlib.nullcontext()
        # Not as inference tensors, even where the caller makes such: those could not be written to elsewhere.
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device), fusing:
            static = [self._place(number, x, device) for number, x in enumerate(inputs)]
            function = self._function()
            assert function is not None, "the object whose method is captured is gone"
            side = _side_stream(device)
            ahead = DecodeAhead(device)
            side.wait_stream(torch.cuda.current_stream())
            for _ in range(2):  # compiles, chooses algorithms, allocates workspaces
                with torch.cuda.stream(side), ahead.learning():
                    function(*static)
            torch.cuda.current_stream().wait_stream(side)
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            following = ahead.following() if self.fuse else contextlib.nullcontext()
            before = torch.cuda.current_stream()
            try:
                # What other threads do meanwhile, such as allocating pinned memory, is none of the capture's business.
                capturing = torch.cuda.graph(
                    graph, pool=self.pool.handle, stream=side, capture_error_mode="thread_local"
                )
                with capturing, following:
                    outputs = function(*static)
            except BaseException:
                # torch stays on the other stream where it cannot end what was captured.
                torch.cuda.set_stream(before)
                raise
        self._graphs[key] = (graph, static, outputs)
        self.pool.graphs += 1
        self.capture_seconds += time.perf_counter() - start
