"""Triton kernels for NF4 matrices, in the order of `packing`. Import only where Triton is.

Three products, W being (N, K) in 4 bit and M the number of tokens:

- `decode_kernel`: W itself, in 16 bit, for many tokens: a 16-bit product follows;
- `forward_kernel`: x W^T for few tokens: each weight is read once, in 4 bit, and multiplied from registers;
- `backward_kernel`: y W for few tokens, the way back of the gradient.

A weight is value[code] * scale, in float32, rounded to the 16-bit type: exactly bitsandbytes' decoding (the
kernels are launched without fused multiply-add, or a scale could differ in its last bit).
The long axis of a product is cut into SPLIT parts, so that a narrow matrix occupies the whole GPU. Each part
writes its sums, and the last of them to finish adds all in a fixed order: no second launch, and the same
bits in every run.
"""

import triton
import triton.language as tl

__all__ = ["backward_kernel", "decode_kernel", "forward_kernel"]


@triton.jit
def _scales(scale_codes, scale_scales, scale_values, offset, block, mask):
    code = tl.load(scale_codes + block, mask=mask, other=0).to(tl.int32)
    shared = tl.load(scale_scales + block // 256, mask=mask, other=0.0)
    return tl.load(scale_values + code) * shared + tl.load(offset)


@triton.jit
def decode_kernel(
    codes, scale_codes, scale_scales, scale_values, offset, values, out,
    N, K, ROWS: tl.constexpr,
):  # fmt: skip
    """Program (i, g): rows ROWS * i on, group g of 128 weights -> out (N, K)."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    group = tl.program_id(1)
    inside = rows < N
    lanes = tl.arange(0, 64)
    rows64 = rows.to(tl.int64)
    byte = tl.load(
        codes + rows64[:, None] * (K // 2) + group * 64 + lanes[None], mask=inside[:, None], other=0
    )
    byte = byte.to(tl.int32)
    block = rows64 * (K // 64) + 2 * group
    high = _scales(scale_codes, scale_scales, scale_values, offset, block, inside)
    low = _scales(scale_codes, scale_scales, scale_values, offset, block + 1, inside)
    place = out + rows64[:, None] * K + group * 128 + lanes[None]
    tl.store(
        place, (tl.load(values + (byte >> 4)) * high[:, None]).to(out.dtype.element_ty), mask=inside[:, None]
    )
    tl.store(
        place + 64,
        (tl.load(values + (byte & 15)) * low[:, None]).to(out.dtype.element_ty),
        mask=inside[:, None],
    )


@triton.jit
def _finish(acc, out, place, mask, partial, slot, size, lock, part, SPLIT: tl.constexpr):
    """Store ``acc`` at ``out + place``; with parts, the last one to come adds them all in order."""
    if SPLIT == 1:
        tl.store(out + place, acc.to(out.dtype.element_ty), mask=mask)
    else:
        tl.store(partial + part * size + slot, acc)
        tl.debug_barrier()
        arrived = tl.atomic_add(lock, 1)
        tl.debug_barrier()
        if arrived == SPLIT - 1:
            total = tl.load(partial + slot, cache_modifier=".cg")
            for other in range(1, SPLIT):
                total += tl.load(partial + other * size + slot, cache_modifier=".cg")
            tl.store(out + place, total.to(out.dtype.element_ty), mask=mask)
            tl.atomic_xchg(lock, 0)


@triton.jit
def forward_kernel(
    x, codes, scale_codes, scale_scales, scale_values, offset, values, out, partial, locks,
    M, N, K, TOKENS: tl.constexpr, ROWS: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Program (i, s): rows ROWS * i on of W, part s of K -> out (M, N) = x (M, K) W^T.

    TOKENS >= M, a power of two. partial: float32 (SPLIT, tiles, ROWS, TOKENS); locks: int32 zeros (tiles,).
    """
    tile, part = tl.program_id(0), tl.program_id(1)
    rows = tile * ROWS + tl.arange(0, ROWS)
    tokens = tl.arange(0, TOKENS)
    lanes = tl.arange(0, 64)
    inside = rows < N
    rows64 = rows.to(tl.int64)
    row_bytes = codes + rows64[:, None] * (K // 2) + lanes[None]
    x_place = x + tokens[None, :] * K + lanes[:, None]
    real = (tokens < M)[None, :]
    groups = K // 128
    each = (groups + SPLIT - 1) // SPLIT
    acc = tl.zeros((ROWS, TOKENS), dtype=tl.float32)
    for group in tl.range(part * each, tl.minimum(part * each + each, groups), num_stages=STAGES):
        byte = tl.load(row_bytes + group * 64, mask=inside[:, None], other=0).to(tl.int32)
        x_high = tl.load(x_place + group * 128, mask=real, other=0.0)
        x_low = tl.load(x_place + group * 128 + 64, mask=real, other=0.0)
        block = rows64 * (K // 64) + 2 * group
        high = _scales(scale_codes, scale_scales, scale_values, offset, block, inside)
        low = _scales(scale_codes, scale_scales, scale_values, offset, block + 1, inside)
        w_high = (tl.load(values + (byte >> 4)) * high[:, None]).to(x.dtype.element_ty)
        w_low = (tl.load(values + (byte & 15)) * low[:, None]).to(x.dtype.element_ty)
        acc = tl.dot(w_high, x_high, acc)
        acc = tl.dot(w_low, x_low, acc)
    size = tl.num_programs(0) * ROWS * TOKENS
    slot = (tile * ROWS + tl.arange(0, ROWS))[:, None] * TOKENS + tokens[None]
    place = tokens[None, :] * N + rows[:, None]
    _finish(acc, out, place, inside[:, None] & real, partial, slot, size, locks + tile, part, SPLIT)


@triton.jit
def backward_kernel(
    y, codes, scale_codes, scale_scales, scale_values, offset, values, out, partial, locks,
    M, N, K, TOKENS: tl.constexpr, ROWS: tl.constexpr, SPLIT: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Program (g, s): group g of 128 columns of W, part s of its rows -> out (M, K) = y (M, N) W.

    As `forward_kernel`, with partial float32 (SPLIT, K / 128, 2, TOKENS, 64) and locks (K / 128,).
    """
    group, part = tl.program_id(0), tl.program_id(1)
    tokens = tl.arange(0, TOKENS)
    lanes = tl.arange(0, 64)
    real = (tokens < M)[:, None]
    steps = tl.cdiv(N, ROWS)
    each = (steps + SPLIT - 1) // SPLIT
    acc_high = tl.zeros((TOKENS, 64), dtype=tl.float32)
    acc_low = tl.zeros((TOKENS, 64), dtype=tl.float32)
    for step in tl.range(part * each, tl.minimum(part * each + each, steps), num_stages=STAGES):
        rows = step * ROWS + tl.arange(0, ROWS)
        inside = rows < N
        rows64 = rows.to(tl.int64)
        byte = tl.load(
            codes + rows64[:, None] * (K // 2) + group * 64 + lanes[None], mask=inside[:, None], other=0
        ).to(tl.int32)
        tile = tl.load(y + tokens[:, None] * N + rows[None], mask=real & inside[None], other=0.0)
        block = rows64 * (K // 64) + 2 * group
        high = _scales(scale_codes, scale_scales, scale_values, offset, block, inside)
        low = _scales(scale_codes, scale_scales, scale_values, offset, block + 1, inside)
        w_high = (tl.load(values + (byte >> 4)) * high[:, None]).to(y.dtype.element_ty)
        w_low = (tl.load(values + (byte & 15)) * low[:, None]).to(y.dtype.element_ty)
        acc_high = tl.dot(tile, w_high, acc_high)
        acc_low = tl.dot(tile, w_low, acc_low)
    both = tl.num_programs(0) * 2 * TOKENS * 64
    slot = group * 2 * TOKENS * 64 + tokens[:, None] * 64 + lanes[None]
    place = tokens[:, None] * K + group * 128 + lanes[None]
    if SPLIT == 1:
        tl.store(out + place, acc_high.to(out.dtype.element_ty), mask=real)
        tl.store(out + place + 64, acc_low.to(out.dtype.element_ty), mask=real)
    else:
        tl.store(partial + part * both + slot, acc_high)
        tl.store(partial + part * both + slot + TOKENS * 64, acc_low)
        tl.debug_barrier()
        arrived = tl.atomic_add(locks + group, 1)
        tl.debug_barrier()
        if arrived == SPLIT - 1:
            sum_high = tl.load(partial + slot, cache_modifier=".cg")
            sum_low = tl.load(partial + slot + TOKENS * 64, cache_modifier=".cg")
            for other in range(1, SPLIT):
                sum_high += tl.load(partial + other * both + slot, cache_modifier=".cg")
                sum_low += tl.load(partial + other * both + slot + TOKENS * 64, cache_modifier=".cg")
            tl.store(out + place, sum_high.to(out.dtype.element_ty), mask=real)
            tl.store(out + place + 64, sum_low.to(out.dtype.element_ty), mask=real)
            tl.atomic_xchg(locks + group, 0)
