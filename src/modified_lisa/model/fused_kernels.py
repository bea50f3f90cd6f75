"""Triton kernels for elementwise work of a language model that a compiler makes slow. Import only where Triton is.

torch.compile for any length divides and takes remainders for each number that it reads: at 640 tokens its rotation of
queries and keys took 25 us a layer (H100), as much as a small product. Here a program has whole rows. No gradients.
"""

import torch
import triton
import triton.language as tl

__all__ = ["add_and_norm", "rotate", "silu_times"]


@triton.jit
def _rotate_kernel(
    query, key, cos, sin, query_out, key_out, T, query_row, query_item, query_head, key_row, key_item, key_head,
    angle_row, angle_item, QUERY_HEADS: tl.constexpr, KEY_HEADS: tl.constexpr, HALF: tl.constexpr, HEADS: tl.constexpr,
):  # fmt: skip
    """Program (t, b, 0 or 1): all heads of one token of the queries or of the keys."""
    token, row = tl.program_id(0), tl.program_id(1).to(tl.int64)
    lanes, heads = tl.arange(0, HALF), tl.arange(0, HEADS)
    angle = row * angle_row + token * angle_item + lanes
    cos_first, cos_second = tl.load(cos + angle).to(tl.float32), tl.load(cos + angle + HALF).to(tl.float32)
    sin_first, sin_second = tl.load(sin + angle).to(tl.float32), tl.load(sin + angle + HALF).to(tl.float32)
    if tl.program_id(2) == 0:
        inside = (heads < QUERY_HEADS)[:, None]
        given = query + row * query_row + token * query_item + heads[:, None] * query_head + lanes[None]
        place = query_out + ((row * T + token) * QUERY_HEADS + heads[:, None]) * (2 * HALF) + lanes[None]
    else:
        inside = (heads < KEY_HEADS)[:, None]
        given = key + row * key_row + token * key_item + heads[:, None] * key_head + lanes[None]
        place = key_out + ((row * T + token) * KEY_HEADS + heads[:, None]) * (2 * HALF) + lanes[None]
    first = tl.load(given, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(given + HALF, mask=inside, other=0.0).to(tl.float32)
    kind = query_out.dtype.element_ty
    tl.store(place, (first * cos_first[None] - second * sin_first[None]).to(kind), mask=inside)
    tl.store(place + HALF, (second * cos_second[None] + first * sin_second[None]).to(kind), mask=inside)


def rotate(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary positions (Su et al. 2021, RoFormer) as LLaMA applies them: x cos + (-x2, x1) sin, halves x1 and x2.

    Queries (B, H, T, D) and keys (B, G, T, D) of one dtype, D a power of two; cos and sin (B or 1, T, D), with the same
    strides. Returned in new memory, token by token.
    """
    rows, heads, tokens, width = query.shape
    groups = key.shape[1]
    outs = [query.new_empty(rows, tokens, count, width) for count in (heads, groups)]
    shared = 0 if len(cos) == 1 else cos.stride(0)
    _rotate_kernel[(tokens, rows, 2)](
        query, key, cos, sin, *outs, tokens,
        query.stride(0), query.stride(2), query.stride(1), key.stride(0), key.stride(2), key.stride(1),
        shared, cos.stride(1), heads, groups, width // 2, triton.next_power_of_2(max(heads, groups)), num_warps=4,
    )  # fmt: skip
    return outs[0].transpose(1, 2), outs[1].transpose(1, 2)


@triton.jit
def _silu_times_kernel(gate, up, out, gate_row, up_row, width, WIDTH: tl.constexpr):
    """Program (row, part of the columns)."""
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = columns < width
    x = tl.load(gate + row * gate_row + columns, mask=inside, other=0.0).to(tl.float32)
    y = tl.load(up + row * up_row + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * width + columns, (x * tl.sigmoid(x) * y).to(out.dtype.element_ty), mask=inside)


def silu_times(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """silu(gate) * up, (..., W) each, in new memory; the rows of each lie at equal distances."""
    flat, other = gate.flatten(0, -2), up.flatten(0, -2)
    rows, width = flat.shape
    out = torch.empty(gate.shape, dtype=gate.dtype, device=gate.device)
    _silu_times_kernel[(rows, triton.cdiv(width, 2048))](
        flat, other, out, flat.stride(0), other.stride(0), width, 2048, num_warps=8
    )
    return out


@triton.jit
def _add_and_norm_kernel(x, more, weight, total, out, width, epsilon, ADD: tl.constexpr, WIDTH: tl.constexpr):
    """Program (row)."""
    lanes = tl.arange(0, WIDTH)
    inside = lanes < width
    places = tl.program_id(0).to(tl.int64) * width + lanes
    given = tl.load(x + places, mask=inside, other=0.0)
    kind = given.dtype
    if ADD:
        other = tl.load(more + places, mask=inside, other=0.0).to(tl.float32)
        given = (given.to(tl.float32) + other).to(kind)
        tl.store(total + places, given, mask=inside)
    wide = given.to(tl.float32)
    scale = tl.rsqrt(tl.sum(wide * wide, 0) / width + epsilon)
    normed = (wide * scale).to(kind).to(tl.float32)
    weights = tl.load(weight + lanes, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + places, (weights * normed).to(kind), mask=inside)


def add_and_norm(
    x: torch.Tensor, more: torch.Tensor | None, weight: torch.Tensor, epsilon: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """x + more, and its norm by root mean square (Zhang and Sennrich 2019) times weight (W), as LLaMA rounds them.

    x and more (..., W), contiguous, of one dtype; more None: the norm of x, and x itself. Returned in new memory.
    """
    width = x.shape[-1]
    total, out = x if more is None else torch.empty_like(x), torch.empty_like(x)
    size = triton.next_power_of_2(width)
    _add_and_norm_kernel[(x.numel() // width,)](
        x,
        more,
        weight,
        total,
        out,
        width,
        epsilon,
        more is not None,
        size,
        num_warps=max(1, min(16, size // 512)),
    )
    return total, out
