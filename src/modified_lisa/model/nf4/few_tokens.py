"""x W^T for few tokens by `few_tokens.cu`, on GPUs whose blocks can share memory in clusters (Hopper and later)."""

import functools
from pathlib import Path

import torch

from modified_lisa.model.nf4 import lookup
from modified_lisa.model.nf4.packing import GROUP, Packed
from modified_lisa.model.nf4.runtime_compiler import Kernel, compile_cubin

__all__ = ["MOST_TOKENS", "multiply", "parts_of", "suits", "why_not_clusters"]

MOST_TOKENS = 64
TILES = (1, 2, 4, 6, 8)
"""Numbers of eight tokens that a kernel is compiled for."""
ROWS = 128
PARTS = (1, 2, 3, 4, 5, 6, 7, 8)
"""Blocks of a cluster; more than eight are not portable."""
CAPABILITY = (9, 0)
SOURCE = Path(__file__).with_name("few_tokens.cu")


@functools.cache
def why_not_clusters(device: torch.device) -> str | None:
    """What keeps ``device`` from this kernel, in words; None if nothing does."""
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        return f"compute capability {found[0]}.{found[1]}, and clusters of blocks come with 9.0"
    try:
        _kernel(device, TILES[0], torch.bfloat16)
    except (OSError, RuntimeError) as error:
        return f"it could not be compiled: {str(error).splitlines()[0]}"
    return None


def suits(x: torch.Tensor, packed: Packed) -> bool:
    """Whether sizes and places are what the kernel reads in pieces of 16 bytes."""
    aligned = all(one.data_ptr() % 16 == 0 for one in (x, packed.codes, packed.scale_codes))
    return aligned and packed.codes.shape[0] % 16 == 0 and packed.scale_codes.stride(0) % 16 == 0


def multiply(x: torch.Tensor, packed: Packed, out: torch.Tensor, parts: int | None = None) -> None:
    """``out`` (M, N) = x (M, K) W^T, both bf16 or both fp16 and contiguous, M at most `MOST_TOKENS`.

    The same bits in every call with the same number of ``parts``, which K is cut into (None: `parts_of`).
    """
    tokens, columns = x.shape
    rows = packed.codes.shape[0]
    tiles = next(n for n in TILES if 8 * n >= tokens)
    parts = parts or parts_of(rows, columns, _processors(x.device))
    _kernel(x.device, tiles, x.dtype)(
        (parts, -(-rows // ROWS)), threads(tiles), parts,
        (x, *packed, out, tokens, rows, columns, packed.scale_codes.stride(0)),
    )  # fmt: skip


def parts_of(rows: int, columns: int, processors: int) -> int:
    """How many blocks share 256 rows: the fewest rounds of blocks, each as long as its columns and a start."""
    tiles, groups = -(-rows // ROWS), columns // GROUP
    return min(
        (parts for parts in PARTS if parts <= groups),
        key=lambda parts: -(-tiles * parts // (2 * processors)) * (-(-groups // parts) + 4),
    )


@functools.cache
def _kernel(device: torch.device, tiles: int, dtype: torch.dtype) -> Kernel:
    major, minor = torch.cuda.get_device_capability(device)
    defines: dict[str, object] = {"TILES": tiles, **lookup.table_of(dtype)}
    if dtype == torch.bfloat16:
        defines["BF16"] = 1
    with torch.cuda.device(device):
        cubin = compile_cubin(SOURCE.read_text(encoding="utf-8"), f"sm_{major}{minor}", defines)
        return Kernel(cubin, "few_tokens", shared_bytes(tiles))


def threads(tiles: int) -> int:
    """Of a block: each warp has 16 rows, or 32 where there are many tokens."""
    return 2 * ROWS if tiles <= 2 else ROWS


def shared_bytes(tiles: int) -> int:
    """As the source lays it out: the table of pairs, that of scales, and of each stage words, tokens and scales."""
    stage = ROWS * GROUP // 2 + 8 * tiles * (2 * GROUP + 16) + 2 * ROWS
    return 256 * 128 + 256 * 4 + (3 if tiles > 4 else 4) * stage


@functools.cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
