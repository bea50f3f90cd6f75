"""A Triton kernel that quantises activations to fp8 in one pass: `arithmetic.quantise_rows`, bit by bit.

Import only where Triton is.
"""

import triton
import triton.language as tl

from modified_lisa.model.fp8 import arithmetic

__all__ = ["quantise_kernel"]

_LARGEST = tl.constexpr(arithmetic.LARGEST)
_INVERSE = tl.constexpr(1 / arithmetic.LARGEST)
_FLOOR = tl.constexpr(arithmetic.FLOOR)


@triton.jit
def quantise_kernel(x, codes, scales, K, STRIDE, COLUMNS: tl.constexpr):
    """Program i: row i of x, (M, K) with STRIDE between rows -> codes float8 (M, K), scales float32 (M,).

    COLUMNS >= K, a power of two: the row stays in registers between the largest number and the cast.
    """
    row = tl.program_id(0).to(tl.int64)
    lanes = tl.arange(0, COLUMNS)[None]
    inside = lanes < K
    values = tl.load(x + row * STRIDE + lanes, mask=inside, other=0.0).to(tl.float32)
    largest = tl.maximum(tl.max(tl.abs(values), axis=1), tl.full((1,), _FLOOR, tl.float32))
    inverse = tl.div_rn(tl.full((1,), _LARGEST, tl.float32), largest)
    tl.store(codes + row * K + lanes, (values * inverse[:, None]).to(codes.dtype.element_ty), mask=inside)
    tl.store(scales + row + tl.arange(0, 1), largest * _INVERSE)
