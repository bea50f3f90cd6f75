"""What is said around a long load: sizes before it, progress with the time left during it, the outcome after it."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from modified_lisa.model.quantization import binary_size
from modified_lisa.model.shards import FileTensor

__all__ = ["Announcer", "expected_bytes"]

LARGE = 5e8
"""Bytes; a model below is loaded in no time, and silently."""

# NF4 with double quantisation (QLoRA, section 3): 4 bits, an 8-bit scale for each 64 weights, and a 32-bit one
# for each 256 of those. LLM.int8 and fp8: 8 bits; their one scale a row is not worth counting.
_BYTES = {"nf4": 0.5 + 1 / 64 + 4 / (64 * 256), "int8": 1.0, "fp8": 1.0}

_LOG = logging.getLogger(__name__)


def expected_bytes(name: str, shape: tuple[int, ...], quantization: str, dtype: torch.dtype) -> float:
    """Bytes that a weight will take; ``name`` as in the files, of this or an older layout of LLaVA."""
    count = 1
    for side in shape:
        count *= side
    language = "language_model" in name and ".layers." in name and len(shape) == 2
    return count * (_BYTES[quantization] if language and quantization != "none" else dtype.itemsize)


class Announcer:
    """Tells a user of one load: by the log at level INFO, and on stderr where somebody is waiting there.

    Args:
        name: of the model.
        quantization: ``nf4``, ``int8``, ``fp8`` or ``none``.
        dtype: of what is not quantised.
        verbose: say it on stderr; None: on a terminal, for models above `LARGE`.
    """

    def __init__(self, name: str, quantization: str, dtype: torch.dtype, verbose: bool | None) -> None:
        self.name, self.quantization, self.dtype, self.verbose = name, quantization, dtype, verbose
        self._start = time.monotonic()
        self._shown = bool(verbose)

    def say(self, text: str) -> None:
        """One line, now."""
        _LOG.info(text)
        if self._shown:
            print(text, file=sys.stderr, flush=True)

    def _decide(self, size: float) -> None:
        if self.verbose is None:  # and of several processes, one speaks
            self._shown = size > LARGE and sys.stderr.isatty() and os.environ.get("LOCAL_RANK", "0") == "0"

    def done(self, outcome: str = "") -> None:
        """Say how long it took, and the outcome."""
        seconds = time.monotonic() - self._start
        self.say(f"{self.name}: ready in {seconds:.1f} s" + (f"; {outcome}" if outcome else ""))

    @contextlib.contextmanager
    def reading(self, files: Iterable[Path], tensors: Mapping[str, FileTensor]) -> Iterator[None]:
        """Announce ``tensors`` of ``files`` first, and show the progress of reading them; transformers is quiet."""
        total = sum(tensor.nbytes for tensor in tensors.values())
        sizes = [file.stat().st_size for file in files]
        where = f"{len(sizes)} file(s) of {binary_size(sum(sizes))}, {binary_size(total)} of which are needed"
        shapes = {name: tensor.shape for name, tensor in tensors.items()}
        with self.progress(where, shapes, total, "B") as bar, _quiet_transformers():
            for tensor in tensors.values():
                tensor.bar = bar
            yield

    @contextlib.contextmanager
    def progress(
        self, where: str, shapes: Mapping[str, tuple[int, ...]], total: int, unit: str
    ) -> Iterator[object]:
        """Announce weights of ``shapes``, and give a bar of ``total`` units with the time left."""
        from tqdm import tqdm

        kept = sum(
            expected_bytes(name, shape, self.quantization, self.dtype) for name, shape in shapes.items()
        )
        count = sum(int(torch.Size(shape).numel()) for shape in shapes.values())
        self._decide(total)
        how = str(self.dtype).removeprefix("torch.")
        if self.quantization != "none":
            how = f"the language model's linear layers in {self.quantization}, the rest in {how}"
        self.say(
            f"{self.name}: {where}; {_count(count)} parameters, {how}: about {binary_size(kept)} on the device"
        )
        style = {"unit": unit, "unit_scale": True, "leave": False, "dynamic_ncols": True}
        with tqdm(total=total, desc="loading", file=sys.stderr, disable=not self._shown, **style) as bar:
            yield bar

    @contextlib.contextmanager
    def drawing(self, model: torch.nn.Module) -> Iterator[object]:
        """Announce the weights of ``model``, an empty shell, and give the bar of drawing them."""
        shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
        total = sum(parameter.numel() for parameter in model.parameters())
        with self.progress("random weights", shapes, total, " weights") as bar:
            yield bar

    @contextlib.contextmanager
    def transformers_bars(self, source: str) -> Iterator[None]:
        """transformers' own progress bars, where something would be shown here."""
        size = sum(file.stat().st_size for file in Path(source).glob("*.bin"))
        self._decide(size)
        with contextlib.nullcontext() if self._shown else _quiet_transformers():
            yield


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} billion" if number >= 1e9 else f"{number / 1e6:.1f} million"


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    from transformers.utils import logging as theirs

    if not theirs.is_progress_bar_enabled():
        yield
        return
    theirs.disable_progress_bar()
    try:
        yield
    finally:
        theirs.enable_progress_bar()
