"""x W^T for few tokens by `few_tokens.cu`, on GPUs whose blocks can share memory in clusters (Hopper and later)."""

import functools
from pathlib import Path
from typing import NamedTuple

import torch

from modified_lisa.model.nf4 import lookup
from modified_lisa.model.nf4.packing import GROUP, Packed
from modified_lisa.model.nf4.runtime_compiler import Kernel, compile_cubin, shared_memory

__all__ = ["MOST_TOKENS", "multiply", "parts_of", "processors", "suits", "why_not_clusters"]

MOST_TOKENS = 64
ROWS = 128
"""Of W, of a block."""


class Shape(NamedTuple):
    """How a kernel is cut; see `few_tokens.cu`."""

    row_tiles: int
    """Of 16 rows, of a warp. With two, what is read of the tokens serves twice, and there are half as many warps."""
    stages: int
    """Groups of columns in shared memory; one is multiplied while the others come."""
    blocks: int = 2
    """On a processor at once, as far as registers and shared memory are concerned."""


SHAPES = {1: Shape(1, 3, 3), 2: Shape(1, 3, 3), 4: Shape(2, 4), 6: Shape(2, 3), 8: Shape(2, 3)}
"""By the eights of tokens that a kernel is compiled for."""
PARTS = (1, 2, 6)
"""Blocks of a cluster that are chosen from: up to eight are portable, others than these were slower (H100)."""
CAPABILITY = (9, 0)
RESERVED = 1024
"""Bytes of shared memory that the system keeps of each block."""


@functools.cache
def why_not_clusters(device: torch.device) -> str | None:
    """What keeps ``device`` from this kernel, in words; None if nothing does."""
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        return f"compute capability {found[0]}.{found[1]}, and clusters of blocks come with 9.0"
    room = shared_memory(device)
    if any(fitted(tiles, *room) is None for tiles in SHAPES):
        return f"a block may have {room[0]} bytes of shared memory, which are too few"
    source = _source()
    try:
        _kernel(device, 1, _shape(device, 1), torch.bfloat16, source)
    except (OSError, RuntimeError) as error:
        return f"it could not be compiled: {str(error).splitlines()[0]}"
    return None


def fitted(tiles: int, block: int, processor: int) -> Shape | None:
    """The shape for so many eights of tokens where a block may have ``block`` bytes of shared memory and the blocks of a
    processor ``processor`` (some GPUs have half of what others have): fewer stages, fewer blocks. None: too few."""
    shape = SHAPES[tiles]
    for stages in range(shape.stages, 1, -1):
        if (bytes_used := shared_bytes(tiles, stages)) <= block:
            blocks = max(1, processor // (bytes_used + RESERVED))
            return shape._replace(stages=stages, blocks=min(shape.blocks, blocks))
    return None


def suits(x: torch.Tensor, packed: Packed) -> bool:
    """Whether sizes and places are what the kernel reads in pieces of 16 bytes."""
    aligned = all(one.data_ptr() % 16 == 0 for one in (x, packed.codes, packed.scale_codes))
    return aligned and packed.codes.shape[0] % 16 == 0 and packed.scale_codes.stride(0) % 16 == 0


def multiply(
    x: torch.Tensor, packed: Packed, out: torch.Tensor, parts: int | None = None, shape: Shape | None = None
) -> None:
    """``out`` (M, N) = x (M, K) W^T, both bf16 or both fp16 and contiguous, M at most `MOST_TOKENS`.

    The same bits in every call with the same number of ``parts``, which K is cut into. ``parts`` and ``shape`` are for
    measuring others than `parts_of` and `SHAPES` choose.
    """
    tokens, columns = x.shape
    rows = packed.codes.shape[0]
    tiles = next(n for n in SHAPES if 8 * n >= tokens)
    shape = shape or _shape(x.device, tiles)
    parts = parts or parts_of(rows, columns, processors(x.device), shape.blocks)
    _kernel(x.device, tiles, shape, x.dtype, _source())(
        (parts, -(-rows // ROWS)), 2 * ROWS // shape.row_tiles, parts,
        (x, *packed, out, tokens, rows, columns, packed.scale_codes.stride(0)),
    )  # fmt: skip


def parts_of(rows: int, columns: int, processors: int, blocks: int) -> int:
    """How many blocks share `ROWS` rows of W, with so many ``blocks`` on each of the ``processors`` at once.

    By what was measured (docs/performance.md): a group of columns costs 1 where a block has a processor for itself, 0.8
    where it shares one; a cluster's start and end cost 5 or 6, in each round of blocks.
    """
    tiles, groups = -(-rows // ROWS), columns // GROUP

    def cost(parts: int) -> float:
        in_a_row = -(-tiles * parts // processors)
        rounds = -(-tiles * parts // (blocks * processors))
        each = 1.0 if in_a_row == 1 else 0.8
        return in_a_row * -(-groups // parts) * each + rounds * {1: 0, 2: 5, 6: 6}[parts]

    return min((parts for parts in PARTS if parts <= groups), key=cost)


@functools.cache
def _shape(device: torch.device, tiles: int) -> Shape:
    shape = fitted(tiles, *shared_memory(device))
    if shape is None:
        raise RuntimeError(f"the kernel for few tokens needs more shared memory than {device} has")
    return shape


@functools.cache
def _source() -> str:
    return Path(__file__).with_name("few_tokens.cu").read_text(encoding="utf-8")


@functools.cache
def _kernel(device: torch.device, tiles: int, shape: Shape, dtype: torch.dtype, source: str) -> Kernel:
    major, minor = torch.cuda.get_device_capability(device)
    sizes = {"TILES": tiles, "ROWS": ROWS} | {name.upper(): value for name, value in shape._asdict().items()}
    defines: dict[str, object] = {**sizes, **lookup.table_of(dtype)}
    if dtype == torch.bfloat16:
        defines["BF16"] = 1
    with torch.cuda.device(device):
        cubin = compile_cubin(source, f"sm_{major}{minor}", defines)
        return Kernel(cubin, "few_tokens", shared_bytes(tiles, shape.stages))


def shared_bytes(tiles: int, stages: int) -> int:
    """As the source lays it out: the table of pairs, that of scales, and of each stage words, tokens and scales."""
    stage = ROWS * GROUP // 2 + 8 * tiles * (2 * GROUP + 16) + 2 * ROWS
    return 256 * 128 + 256 * 4 + stages * stage


@functools.cache
def processors(device: torch.device) -> int:
    """How many a GPU has."""
    return torch.cuda.get_device_properties(device).multi_processor_count
