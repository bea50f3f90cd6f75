"""Triton kernels for NF4 matrices, in the order of `packing`. Import only where Triton is.

Two products of few tokens, W being (N, K) in 4 bit, M the number of tokens, and STRIDE that of the scales' codes
(the kernels are launched without fused multiply-add, or a scale could differ in its last bit):

- `forward_kernel`: x W^T for few tokens: each weight is read once, in 4 bit. The values are multiplied as 16-bit
  numbers and summed in float32 over a block, and the sums by the block's scale;
- `backward_kernel`: y W for few tokens, the way back of the gradient; here y is scaled, block by block.

The long axis of a product is cut into SPLIT parts, so that a narrow matrix occupies the whole GPU. Each part
writes its sums, and the last of them to finish adds all in a fixed order: no second launch, and the same
bits in every run.
"""

import triton
import triton.language as tl

from modified_lisa.model.nf4 import lookup

__all__ = ["backward_kernel", "forward_kernel"]

_BF16 = tl.constexpr(lookup.BF16_ASM)
_FP16 = tl.constexpr(lookup.FP16_ASM)
_OUT = tl.constexpr("=h,=h,=h,=h,=h,=h,=h,=h,r")


@triton.jit
def _four(a, b, c, d, ROWS: tl.constexpr):
    """(ROWS, 16) each -> (ROWS, 64): a, b, c, d of word 0, then of word 1, ..."""
    return tl.reshape(tl.join(tl.join(a, c), tl.join(b, d)), (ROWS, 64))


@triton.jit
def _scale(packed_codes, shared, values, offset, rows, block, STRIDE, K, inside):
    """float32 scales of block number ``block`` of the rows."""
    code = tl.load(packed_codes + block * STRIDE + rows, mask=inside, other=0).to(tl.int32)
    number = (rows.to(tl.int64) * (K // 64) + block) // 256
    scale = tl.load(values + code) * tl.load(shared + number, mask=inside, other=0.0)
    return scale + tl.load(offset + rows, mask=inside, other=0.0)


@triton.jit
def _values(words, ROWS: tl.constexpr, dtype: tl.constexpr):
    """The values of (ROWS, 16) words, without scales: of the first block and of the second, (ROWS, 64) each."""
    if dtype == tl.bfloat16:
        a, b, c, d, e, f, g, h = tl.inline_asm_elementwise(
            _BF16, _OUT, [words], dtype=(tl.bfloat16,) * 8, is_pure=True, pack=1
        )
    else:
        a, b, c, d, e, f, g, h = tl.inline_asm_elementwise(
            _FP16, _OUT, [words], dtype=(tl.float16,) * 8, is_pure=True, pack=1
        )
    return _four(a, b, c, d, ROWS), _four(e, f, g, h, ROWS)


@triton.jit
def _last_to_come(lock, SPLIT: tl.constexpr):
    """Whether all other parts have written what they had; orders their writes before our reads."""
    tl.debug_barrier()
    arrived = tl.atomic_add(lock, 1)
    tl.debug_barrier()
    return arrived == SPLIT - 1


@triton.jit
def _sum(partial, place, size, SPLIT: tl.constexpr):
    total = tl.load(partial + place, cache_modifier=".cg")
    for other in range(1, SPLIT):
        total += tl.load(partial + other * size + place, cache_modifier=".cg")
    return total


@triton.jit
def forward_kernel(
    x, codes, scale_codes, scale_scales, scale_values, offset, out, partial, locks,
    M, N, K, STRIDE, TOKENS: tl.constexpr, ROWS: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Program (i, s): rows ROWS * i on of W, part s of K -> out (M, N) = x (M, K) W^T.

    TOKENS >= M, a power of two. partial: float32 (SPLIT, tiles, ROWS, TOKENS); locks: int32 zeros (tiles,).
    """
    tile, part = tl.program_id(0), tl.program_id(1)
    rows = tile * ROWS + tl.arange(0, ROWS)
    tokens = tl.arange(0, TOKENS)
    inside = rows < N
    word_place = codes + rows.to(tl.int64)[:, None] * (K // 8) + tl.arange(0, 16)[None]
    x_place = x + tokens[None, :] * K + tl.arange(0, 64)[:, None]
    real = (tokens < M)[None, :]
    groups = K // 128
    each = (groups + SPLIT - 1) // SPLIT
    begin, end = part * each, tl.minimum(part * each + each, groups)
    acc = tl.zeros((ROWS, TOKENS), dtype=tl.float32)
    # What the next step reads is asked for before this one computes: its way from memory is the longest.
    words = tl.load(word_place + begin * 16, mask=inside[:, None], other=0)
    x_first = tl.load(x_place + begin * 128, mask=real, other=0.0)
    x_second = tl.load(x_place + begin * 128 + 64, mask=real, other=0.0)
    s = _scale(scale_codes, scale_scales, scale_values, offset, rows, 2 * begin, STRIDE, K, inside)
    t = _scale(scale_codes, scale_scales, scale_values, offset, rows, 2 * begin + 1, STRIDE, K, inside)
    for group in tl.range(begin, end, num_stages=1):
        after = tl.minimum(group + 1, groups - 1)
        next_words = tl.load(word_place + after * 16, mask=inside[:, None], other=0)
        next_first = tl.load(x_place + after * 128, mask=real, other=0.0)
        next_second = tl.load(x_place + after * 128 + 64, mask=real, other=0.0)
        next_s = _scale(scale_codes, scale_scales, scale_values, offset, rows, 2 * after, STRIDE, K, inside)
        next_t = _scale(
            scale_codes, scale_scales, scale_values, offset, rows, 2 * after + 1, STRIDE, K, inside
        )
        first, second = _values(words, ROWS, x.dtype.element_ty)
        acc += tl.dot(first, x_first) * s[:, None]
        acc += tl.dot(second, x_second) * t[:, None]
        words, x_first, x_second, s, t = next_words, next_first, next_second, next_s, next_t
    place = out + tokens[None, :] * N + rows[:, None]
    mask = inside[:, None] & real
    if SPLIT == 1:
        tl.store(place, acc.to(out.dtype.element_ty), mask=mask)
    else:
        size = tl.num_programs(0) * ROWS * TOKENS
        slot = (tile * ROWS + tl.arange(0, ROWS))[:, None] * TOKENS + tokens[None]
        tl.store(partial + part * size + slot, acc)
        if _last_to_come(locks + tile, SPLIT):
            tl.store(place, _sum(partial, slot, size, SPLIT).to(out.dtype.element_ty), mask=mask)
            tl.atomic_xchg(locks + tile, 0)


@triton.jit
def backward_kernel(
    y, codes, scale_codes, scale_scales, scale_values, offset, out, partial, locks,
    M, N, K, STRIDE, TOKENS: tl.constexpr, ROWS: tl.constexpr, SPLIT: tl.constexpr,
):  # fmt: skip
    """Program (g, s): pair g of columns' blocks of W, part s of its rows -> out (M, K) = y (M, N) W.

    As `forward_kernel`, with partial float32 (SPLIT, K / 128, 2, TOKENS, 64) and locks (K / 128,).
    """
    group, part = tl.program_id(0), tl.program_id(1)
    tokens = tl.arange(0, TOKENS)
    lanes = tl.arange(0, 64)
    real = (tokens < M)[:, None]
    steps = tl.cdiv(N, ROWS)
    each = (steps + SPLIT - 1) // SPLIT
    acc_first = tl.zeros((TOKENS, 64), dtype=tl.float32)
    acc_second = tl.zeros((TOKENS, 64), dtype=tl.float32)
    begin, end = part * each, tl.minimum(part * each + each, steps)
    span = tl.arange(0, ROWS)
    word_place = codes + group * 16 + tl.arange(0, 16)[None]
    rows = begin * ROWS + span
    inside = rows < N
    words = tl.load(word_place + rows.to(tl.int64)[:, None] * (K // 8), mask=inside[:, None], other=0)
    given = tl.load(y + tokens[:, None] * N + rows[None], mask=real & inside[None], other=0.0)
    s = _scale(scale_codes, scale_scales, scale_values, offset, rows, 2 * group, STRIDE, K, inside)
    t = _scale(scale_codes, scale_scales, scale_values, offset, rows, 2 * group + 1, STRIDE, K, inside)
    for step in tl.range(begin, end, num_stages=1):
        rows = (step + 1) * ROWS + span
        inside = rows < N
        next_words = tl.load(
            word_place + rows.to(tl.int64)[:, None] * (K // 8), mask=inside[:, None], other=0
        )
        next_given = tl.load(y + tokens[:, None] * N + rows[None], mask=real & inside[None], other=0.0)
        next_s = _scale(scale_codes, scale_scales, scale_values, offset, rows, 2 * group, STRIDE, K, inside)
        next_t = _scale(
            scale_codes, scale_scales, scale_values, offset, rows, 2 * group + 1, STRIDE, K, inside
        )
        first, second = _values(words, ROWS, y.dtype.element_ty)
        wide = given.to(tl.float32)
        acc_first = tl.dot((wide * s[None]).to(y.dtype.element_ty), first, acc_first)
        acc_second = tl.dot((wide * t[None]).to(y.dtype.element_ty), second, acc_second)
        words, given, s, t = next_words, next_given, next_s, next_t
    place = out + tokens[:, None] * K + group * 128 + lanes[None]
    if SPLIT == 1:
        tl.store(place, acc_first.to(out.dtype.element_ty), mask=real)
        tl.store(place + 64, acc_second.to(out.dtype.element_ty), mask=real)
    else:
        half: tl.constexpr = TOKENS * 64
        size = tl.num_programs(0) * 2 * half
        slot = group * 2 * half + tokens[:, None] * 64 + lanes[None]
        tl.store(partial + part * size + slot, acc_first)
        tl.store(partial + part * size + slot + half, acc_second)
        if _last_to_come(locks + group, SPLIT):
            tl.store(place, _sum(partial, slot, size, SPLIT).to(out.dtype.element_ty), mask=real)
            tl.store(place + 64, _sum(partial, slot + half, size, SPLIT).to(out.dtype.element_ty), mask=real)
            tl.atomic_xchg(locks + group, 0)
