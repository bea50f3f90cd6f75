"""An NF4 matrix in 16 bit, by `decode.cu`: for many tokens, whose product a library makes."""

import functools
from pathlib import Path

import torch

from modified_lisa.model.nf4.packing import GROUP, NF4_VALUES, Packed
from modified_lisa.model.nf4.runtime_compiler import Kernel, compile_cubin

__all__ = ["decode_fast", "why_not_decoded"]

WARPS, ROWS = 8, 16
"""Of a block, each for a pair of blocks of weights; and the rows of W that it decodes."""


@functools.cache
def why_not_decoded(device: torch.device, dtype: torch.dtype) -> str | None:
    """What keeps ``device`` from `decode_fast`, in words; None if nothing does."""
    try:
        _kernel(device, dtype)
    except (OSError, RuntimeError) as error:
        return f"a kernel could not be compiled: {str(error).splitlines()[0]}"
    return None


def decode_fast(packed: Packed, dtype: torch.dtype, out: torch.Tensor | None = None) -> torch.Tensor:
    """`packing.decode` by one kernel, in bf16 or fp16: the same bits. ``out``: (rows, columns) to write to."""
    rows, columns = packed.codes.shape[0], 8 * packed.codes.shape[1]
    if out is None:
        out = torch.empty(rows, columns, dtype=dtype, device=packed.codes.device)
    _kernel(out.device, dtype)(
        (-(-columns // (GROUP * WARPS)), -(-rows // ROWS)), 32 * WARPS, 1,
        (*packed, out, rows, columns, packed.scale_codes.stride(0)),
    )  # fmt: skip
    return out


@functools.cache
def _kernel(device: torch.device, dtype: torch.dtype) -> Kernel:
    major, minor = torch.cuda.get_device_capability(device)
    values = ",".join(f"{value!r}f" for value in NF4_VALUES)
    defines: dict[str, object] = {"WARPS": WARPS, "VALUES": values}
    if dtype == torch.bfloat16:
        defines["BF16"] = 1
    source = Path(__file__).with_name("decode.cu").read_text(encoding="utf-8")
    with torch.cuda.device(device):
        return Kernel(compile_cubin(source, f"sm_{major}{minor}", defines), "decode", 0)
