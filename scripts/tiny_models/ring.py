"""Scenes rendered by worker processes into a ring on the device, from which batches are drawn again and again.

Rendering is slower than training: about 60 to 90 scenes a second and core. With a ring the device never waits,
and a scene is still seen only a few times, with other questions each time. Pixels and labels stay on the device.

Workers write into anonymous shared memory, which needs no space in /dev/shm; they are forked, so a ring
must be made before the GPU is used for the first time.
"""

import contextlib
import mmap
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from data import LABEL_SIDE, Example, Words

# A process forked from one whose cv2 has threads would wait for them for ever.
cv2.setNumThreads(1)

_SLOTS = 192  # examples on their way
_TAKEN = 48  # at most, at once
_SPARED = 1024  # places that are overwritten next are not drawn: the device may be some steps behind


class Ring:
    """``capacity`` examples on ``device`` (set by `start`), and ``val`` more of the split val, which stay.

    Args:
        make: called in the workers with a random generator and a split.
        side: pixels of the squares' side.
    """

    def __init__(
        self,
        make: Callable[[np.random.Generator, str], Example],
        side: int,
        *,
        seed: int,
        workers: int,
        capacity: int,
        val: int,
    ) -> None:
        self.side, self.capacity, self.wanted_val = side, capacity, val
        self._size = 3 * side * side + LABEL_SIDE * LABEL_SIDE
        self._arena = mmap.mmap(-1, _SLOTS * self._size)
        context = multiprocessing.get_context("fork")
        self._free, self._ready = context.SimpleQueue(), context.SimpleQueue()
        for slot in range(_SLOTS):
            self._free.put(slot)
        share = -(-val // workers)
        self._processes = [
            context.Process(target=self._work, args=(make, seed, number, share), daemon=True)
            for number in range(workers)
        ]
        for process in self._processes:
            process.start()
        self.made = 0
        self.words: list[Words] = []
        self.val_words: list[Words] = []
        self._lock = threading.Lock()
        self._stop = False
        self._error: BaseException | None = None

    def _work(self, make: Any, seed: int, number: int, val: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        torch.set_num_threads(1)
        slots = np.frombuffer(self._arena, np.uint8).reshape(_SLOTS, self._size)
        rngs = {
            split: np.random.default_rng([seed, number, row]) for row, split in enumerate(("train", "val"))
        }
        count = 0
        while True:
            slot = self._free.get()
            if slot is None:
                return
            split = "val" if count < val else "train"
            example = make(rngs[split], split)
            slots[slot, : example.square.size] = example.square.ravel()
            slots[slot, example.square.size :] = example.labels.ravel()
            self._ready.put((slot, split, example.words))
            count += 1

    def start(self, device: torch.device, first: int) -> None:
        """Begin to fill; returns when the val examples and the ``first`` others are there."""
        self.device = device
        pin = device.type == "cuda"
        shapes = ((3, self.side, self.side), (LABEL_SIDE, LABEL_SIDE))
        self._squares, self._labels = (
            torch.empty(self.capacity, *shape, dtype=torch.uint8, device=device) for shape in shapes
        )
        self._val = tuple(
            torch.empty(self.wanted_val, *shape, dtype=torch.uint8, device=device) for shape in shapes
        )
        self._staging = torch.empty(_TAKEN, self._size, dtype=torch.uint8, pin_memory=pin)
        self._stream = torch.cuda.Stream(device) if pin else None
        self.began = time.monotonic()
        threading.Thread(target=self._feed, daemon=True).start()
        while self.made < first or len(self.val_words) < self.wanted_val:
            time.sleep(0.05)
            self.check()

    def check(self) -> None:
        """Raise what went wrong in a thread or a worker."""
        if self._error is not None:
            raise self._error
        if not self._stop and any(not process.is_alive() for process in self._processes):
            raise RuntimeError("a worker that renders scenes has died; its error is above")

    def _feed(self) -> None:
        try:
            slots = np.frombuffer(self._arena, np.uint8).reshape(_SLOTS, self._size)
            with torch.cuda.stream(self._stream) if self._stream else contextlib.nullcontext():
                while not self._stop:
                    taken = [self._ready.get()]
                    while len(taken) < _TAKEN and not self._ready.empty():
                        taken.append(self._ready.get())
                    for split in ("val", "train"):
                        self._put(split, [item for item in taken if item[1] == split], slots)
        except BaseException as error:
            self._error = error

    def _put(self, split: str, items: Sequence[tuple[int, str, Words]], slots: np.ndarray) -> None:
        if split == "val":
            room = self.wanted_val - len(self.val_words)
            for slot, _, _ in items[room:]:
                self._free.put(slot)
            items = items[:room]
        if not items:
            return
        staged = self._staging.numpy()
        for row, (slot, _, _) in enumerate(items):
            staged[row] = slots[slot]
            self._free.put(slot)
        first = len(self.val_words) if split == "val" else self.made
        places = (np.arange(len(items)) + first) % (self.capacity if split == "train" else self.wanted_val)
        squares, labels = self._val if split == "val" else (self._squares, self._labels)
        index = torch.from_numpy(places).to(self.device)
        block = self._staging[: len(items)].to(self.device, non_blocking=True)
        cut = 3 * self.side * self.side
        squares[index] = block[:, :cut].view(-1, 3, self.side, self.side)
        labels[index] = block[:, cut:].view(-1, LABEL_SIDE, LABEL_SIDE)
        if self._stream is not None:
            self._stream.synchronize()
        with self._lock:
            if split == "val":
                self.val_words += [words for _, _, words in items]
                return
            for place, (_, _, words) in zip(places.tolist(), items, strict=True):
                self.words[place : place + 1] = [words]
            self.made += len(items)

    def draw(self, rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[Words]]:
        """Places of ``count`` random examples, and their words."""
        with self._lock:
            held = len(self.words)
            full = self.made >= self.capacity
            spared = min(_SPARED, self.capacity // 4) if full else 0
            start = self.made % self.capacity + spared if full else 0
            places = (start + rng.integers(0, held - spared, count)) % self.capacity
            return places, [self.words[place] for place in places.tolist()]

    def pixels(self, places: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Squares uint8 (N, 3, side, side) and labels int64 (N, 256, 256)."""
        return self._squares[places], self._labels[places].long()

    def val_pixels(self, first: int, last: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self._val[0][first:last], self._val[1][first:last].long()

    @property
    def rate(self) -> float:
        """Scenes a second since `start`."""
        return self.made / max(1e-6, time.monotonic() - self.began)

    def close(self) -> None:
        self._stop = True
        for process in self._processes:
            process.terminate()


class Ahead:
    """Batches prepared by a thread while the device computes. ``prepare()`` gives a dict, its tensors on the CPU."""

    def __init__(self, prepare: Callable[[], dict[str, Any]], device: torch.device, depth: int = 3) -> None:
        self.device, self._prepare = device, prepare
        self._stop = False
        self._queue: queue.Queue[dict[str, Any] | BaseException] = queue.Queue(depth)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            while not self._stop:
                batch = self._prepare()
                if self.device.type == "cuda":
                    batch = {
                        key: value.pin_memory() if isinstance(value, torch.Tensor) else value
                        for key, value in batch.items()
                    }
                self._queue.put(batch)
        except BaseException as error:
            self._queue.put(error)

    def close(self) -> None:
        """Let the thread end."""
        self._stop = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._queue.get_nowait()

    def next(self) -> dict[str, Any]:
        """The next batch; its tensors are on the device."""
        batch = self._queue.get()
        if isinstance(batch, BaseException):
            raise batch
        return on_device(batch, self.device)


def on_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The same with all tensors on ``device``."""
    return {
        key: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for key, value in batch.items()
    }


def default_workers() -> int:
    return max(1, (os.cpu_count() or 2) // 2)
