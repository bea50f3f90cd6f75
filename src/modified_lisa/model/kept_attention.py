"""Attention of a few new tokens over a prefix whose keys and values are kept, by two Triton kernels. No gradients.

Rotating the positions of queries and keys, writing keys and values behind the prefix's, and attention are four kernels
otherwise, of which the last has a program for each head alone. Here a program has some of the keys of a head, rotates what it
needs in its registers, and leaves its part of the sum for the second kernel. Import only where Triton is.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl

from modified_lisa.model.nf4.few_tokens import processors

__all__ = ["attend", "serves"]

LONGEST = 256
"""New tokens; beyond that, many programs would rotate the same keys."""
_BLOCK = 64
"""Keys of one step."""


def serves(x: torch.Tensor, keys: torch.Tensor) -> bool:
    """Whether `attend` takes as many new tokens as x (B, R, Dl) has, over these keys (B, G, P, D)."""
    return (
        x.dtype in (torch.float16, torch.bfloat16)
        and 0 < x.shape[1] <= LONGEST
        and keys.dtype == x.dtype
        and keys.shape[-1] in (32, 64, 128, 256)
        and keys.stride(-1) == 1
    )


@triton.jit
def _turned(place, cos, sin, inside, HALF: tl.constexpr):
    """Both halves of what is at ``place``, rotated by the angles at ``cos`` and ``sin``."""
    first = tl.load(place, mask=inside, other=0.0)
    second = tl.load(place + HALF, mask=inside, other=0.0)
    wide, other = first.to(tl.float32), second.to(tl.float32)
    turned = wide * tl.load(cos, mask=inside, other=0.0) - other * tl.load(sin, mask=inside, other=0.0)
    beside = other * tl.load(cos + HALF, mask=inside, other=0.0) + wide * tl.load(
        sin + HALF, mask=inside, other=0.0
    )
    return turned.to(first.dtype), beside.to(first.dtype)


@triton.jit
def _mixed(best, total, mixed, scores, given):
    """One step of a softmax that sees its scores block by block (Milakov and Gimelshein 2018)."""
    top = tl.maximum(best, tl.max(scores, 1))
    weights, shrunk = tl.exp(scores - top[:, None]), tl.exp(best - top)
    mixed = mixed * shrunk[:, None] + tl.dot(weights.to(given.dtype), given)
    return top, total * shrunk + tl.sum(weights, 1), mixed


@triton.jit
def _attend_kernel(
    query, key, value, kept_keys, kept_values, cos, sin, bias, sums, tops, P, R, scale, steps,
    query_row, query_item, key_row, key_item, value_row, value_item,
    keys_row, keys_head, keys_item, values_row, values_head, values_item,
    angle_row, angle_item, bias_row, bias_item,
    GROUP: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Program (head, part of the keys, part of the queries and b): ``steps`` blocks of keys, the prefix's before the new."""
    head, part = tl.program_id(0), tl.program_id(1)
    tiles = tl.cdiv(R, ROWS)
    row = (tl.program_id(2) // tiles).to(tl.int64)
    own = tl.program_id(2) % tiles * ROWS + tl.arange(0, ROWS)
    group = head // GROUP
    asked = (own < R)[:, None]
    lanes, wide_lanes = tl.arange(0, HALF), tl.arange(0, 2 * HALF)
    angle = row * angle_row + own[:, None] * angle_item + lanes[None]
    place = query + row * query_row + own[:, None] * query_item + head * (2 * HALF) + lanes[None]
    q_first, q_second = _turned(place, cos + angle, sin + angle, asked, HALF)
    best = tl.full((ROWS,), -1e30, tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, 2 * HALF), tl.float32)
    kept_keys += row * keys_row + group * keys_head
    kept_values += row * values_row + group * values_head
    begin, blocks = part * steps, tl.cdiv(P, BLOCK)
    for start in range(begin * BLOCK, min(P, (begin + steps) * BLOCK), BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < P
        keys_at = kept_keys + at[None] * keys_item + lanes[:, None]
        first = tl.load(keys_at, mask=inside[None], other=0.0)
        second = tl.load(keys_at + HALF, mask=inside[None], other=0.0)
        scores = (tl.dot(q_first, first) + tl.dot(q_second, second)) * scale
        given = tl.load(
            kept_values + at[:, None] * values_item + wide_lanes[None], mask=inside[:, None], other=0.0
        )
        best, total, mixed = _mixed(best, total, mixed, tl.where(inside[None], scores, float("-inf")), given)
    key += row * key_row + group * (2 * HALF)
    value += row * value_row + group * (2 * HALF)
    biases = bias + row * bias_row + own[:, None] * bias_item
    for start in range(max(0, begin - blocks) * BLOCK, min(R, (begin + steps - blocks) * BLOCK), BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < R
        turn = row * angle_row + at[None] * angle_item + lanes[:, None]
        keys_at = key + at[None] * key_item + lanes[:, None]
        first, second = _turned(keys_at, cos + turn, sin + turn, inside[None], HALF)
        scores = (tl.dot(q_first, first) + tl.dot(q_second, second)) * scale
        scores += tl.load(biases + at[None], mask=asked & inside[None], other=0.0).to(tl.float32)
        given = tl.load(value + at[:, None] * value_item + wide_lanes[None], mask=inside[:, None], other=0.0)
        best, total, mixed = _mixed(best, total, mixed, tl.where(inside[None], scores, float("-inf")), given)
    index = ((row * R + own) * tl.num_programs(0) + head) * PARTS + part
    tl.store(sums + index[:, None] * (2 * HALF) + wide_lanes[None], mixed, mask=asked)
    tl.store(tops + index * 2, best, mask=own < R)
    tl.store(tops + index * 2 + 1, total, mask=own < R)


@triton.jit
def _join_kernel(sums, tops, out, WIDTH: tl.constexpr, PARTS: tl.constexpr, SOME: tl.constexpr):
    """Program (head of a token): the parts of its sum, each with another maximum taken out, become one."""
    program = tl.program_id(0).to(tl.int64)
    parts, lanes = tl.arange(0, SOME), tl.arange(0, WIDTH)
    index = program * PARTS + parts
    best = tl.load(tops + index * 2, mask=parts < PARTS, other=float("-inf"))
    weights = tl.exp(best - tl.max(best, 0))
    total = tl.sum(weights * tl.load(tops + index * 2 + 1, mask=parts < PARTS, other=0.0), 0)
    given = tl.load(sums + index[:, None] * WIDTH + lanes[None], mask=(parts < PARTS)[:, None], other=0.0)
    mixed = tl.sum(given * weights[:, None], 0) / total
    tl.store(out + program * WIDTH + lanes, mixed.to(out.dtype.element_ty))


class _Cut(NamedTuple):
    """How the work is cut into programs."""

    rows: int
    """Queries of one program."""
    steps: int
    """Blocks of keys of one program."""
    parts: int
    """Programs for the same queries of a head."""


def _cut(rows: int, heads: int, tokens: int, prefix: int, width: int, device: torch.device) -> _Cut:
    size = 16 if tokens <= 16 else 32 if tokens <= 32 or width > 128 else 64
    blocks = -(-prefix // _BLOCK) - (-tokens // _BLOCK)
    programs = rows * heads * -(-tokens // size)
    steps = -(-blocks // max(1, min(blocks, 2 * processors(device) // programs)))
    return _Cut(size, steps, -(-blocks // steps))


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    kept_keys: torch.Tensor,
    kept_values: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    bias: torch.Tensor,
    scale: float,
    cut: _Cut | None = None,
) -> torch.Tensor:
    """Attention of R new tokens over P kept ones, which all of them see, and themselves, with rotary positions.

    Args:
        query: (B, R, H, D), not rotated; the heads of a token side by side.
        key: (B, R, G, D), not rotated, and ``value`` likewise; H is a multiple of G.
        kept_keys: (B or 1, G, P, D), rotated, and ``kept_values`` likewise.
        cos: (B or 1, R, D), and ``sin`` with the same strides.
        bias: (B or 1, 1, R, R), added to the scores of the new keys.
        scale: of the scores, before the bias.
        cut: None: what suits these sizes.

    Returns (B, R, H, D). All of one 16-bit dtype; scores, their softmax and sums are float32, and added up in the same
    order in every call.
    """
    rows, tokens, heads, width = query.shape
    prefix, device = kept_keys.shape[2], query.device
    cut = cut or _cut(rows, heads, tokens, prefix, width, device)

    def row_of(x: torch.Tensor) -> int:
        return 0 if len(x) == 1 else x.stride(0)

    out = torch.empty((rows, tokens, heads, width), dtype=query.dtype, device=device)
    sums = torch.empty((rows, tokens, heads, cut.parts, width), device=device)
    tops = torch.empty((rows, tokens, heads, cut.parts, 2), device=device)
    _attend_kernel[(heads, cut.parts, rows * -(-tokens // cut.rows))](
        query, key, value, kept_keys, kept_values, cos, sin, bias, sums, tops, prefix, tokens, scale, cut.steps,
        query.stride(0), query.stride(1), key.stride(0), key.stride(1), value.stride(0), value.stride(1),
        row_of(kept_keys), kept_keys.stride(1), kept_keys.stride(2),
        row_of(kept_values), kept_values.stride(1), kept_values.stride(2),
        row_of(cos), cos.stride(1), row_of(bias), bias.stride(2),
        heads // key.shape[2], width // 2, cut.rows, _BLOCK, cut.parts, num_warps=4, num_stages=1,
    )  # fmt: skip
    _join_kernel[(rows * tokens * heads,)](
        sums, tops, out, width, cut.parts, triton.next_power_of_2(cut.parts), num_warps=1
    )
    return out
