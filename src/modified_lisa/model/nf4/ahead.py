"""Each 4-bit matrix decoded while the product before it runs: the order of the layers is learned, then followed.

For many tokens an `NF4Linear` decodes its matrix and multiplies by it. A product seldom fills the GPU to its end: its
tiles are no multiple of the processors. In a CUDA graph the decoding of the next matrix can stand beside the product
of this one, on a stream of lower priority, and take the processors that are left over.
"""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

import torch

__all__ = ["DecodeAhead", "current"]


class _Active(threading.local):
    """Another thread's products are none of a capture's."""

    ahead: "DecodeAhead | None" = None


_active = _Active()


def current() -> "DecodeAhead | None":
    """The one that decoding goes through now in this thread, if any."""
    return _active.ahead


@functools.cache
def _low_priority(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device, priority=0)


class DecodeAhead:
    """Learns in which order a function multiplies by which layers, and then decodes each one product early.

    >>> ahead = DecodeAhead(device)
    >>> with ahead.learning():
    ...     function()
    >>> with torch.cuda.graph(graph, stream=stream), ahead.following():
    ...     function()

    Two buffers of the graph's pool take turns, each as large as the largest matrix that it holds. Nothing but the time
    of decoding changes: the values are the same bits.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._order: list[Any] = []
        self._learns = False
        self._place = 0
        self._buffers: list[torch.Tensor] = []
        self._decoded: torch.cuda.Event | None = None

    @contextlib.contextmanager
    def learning(self) -> Iterator[None]:
        """Within it, layers decode when they multiply, and their order is noted, from the beginning."""
        self._order, self._learns = [], True
        with self._current():
            yield

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Within it, what was learned is called once more, while a graph is captured."""
        self._learns, self._place = False, 0
        try:
            if self._order:
                self._buffers = [
                    torch.empty(
                        max((_bytes(layer) for layer in part), default=0),
                        dtype=torch.uint8,
                        device=self.device,
                    )
                    for part in (self._order[0::2], self._order[1::2])
                ]
                self._start(0)
            with self._current():
                yield
        finally:
            # A capture that ends by an error must end with its streams joined, or nothing can be captured after it.
            if self._decoded is not None:
                torch.cuda.current_stream(self.device).wait_event(self._decoded)
            self._buffers, self._decoded = [], None

    @contextlib.contextmanager
    def _current(self) -> Iterator[None]:
        before, _active.ahead = _active.ahead, self
        try:
            yield
        finally:
            _active.ahead = before

    def weight(self, layer: Any) -> torch.Tensor:
        """The matrix of ``layer`` (out_features, in_features); the one before may not be used any more."""
        if self._learns:
            self._order.append(layer)
            decoded: torch.Tensor = layer.decoded()
            return decoded
        if self._decoded is None or self._order[self._place] is not layer:
            raise RuntimeError(
                "a captured function multiplied by 4-bit layers in another order than when it was tried; load the "
                "model with nf4_kernels=False, and report this"
            )
        torch.cuda.current_stream(self.device).wait_event(self._decoded)
        self._decoded = None
        self._place += 1
        if self._place < len(self._order):
            self._start(self._place)
        return self._matrix(self._place - 1)

    def _start(self, place: int) -> None:
        """Decode number ``place`` once all is done that was launched so far. The last product to read the same buffer is
        part of that; the product that is about to be launched is not."""
        low, free, decoded = _low_priority(self.device), torch.cuda.Event(), torch.cuda.Event()
        free.record(torch.cuda.current_stream(self.device))
        low.wait_event(free)
        with torch.cuda.stream(low):
            self._order[place].decoded(self._matrix(place))
        decoded.record(low)
        self._decoded = decoded

    def _matrix(self, place: int) -> torch.Tensor:
        layer = self._order[place]
        flat = self._buffers[place % 2][: _bytes(layer)].view(layer.dtype)
        return flat.view(layer.out_features, layer.in_features)


def _bytes(layer: Any) -> int:
    """Of its decoded matrix."""
    size: int = layer.out_features * layer.in_features * layer.dtype.itemsize
    return size
