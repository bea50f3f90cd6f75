"""Attention of a few new tokens over a prefix whose keys and values are kept, as one Triton kernel. No gradients.

Rotating the positions of queries and keys, writing keys and values behind the prefix's, and attention are four kernels
otherwise, of which the last has a program for each head alone. Here a program has 16 queries of a head; it rotates what it
needs in its registers, and nothing is written but the result. Import only where Triton is.
"""

import torch
import triton
import triton.language as tl

from modified_lisa.model.nf4.runtime_compiler import shared_memory

__all__ = ["attend", "serves"]

LONGEST = 256
"""New tokens; beyond that, many programs would rotate the same keys."""
_ROWS = 16
_BLOCK = 64


def serves(x: torch.Tensor, keys: torch.Tensor) -> bool:
    """Whether `attend` takes as many new tokens as x (B, R, Dl) has, over these keys (B, G, P, D)."""
    return (
        x.dtype in (torch.float16, torch.bfloat16)
        and x.shape[1] <= LONGEST
        and keys.dtype == x.dtype
        and 32 <= keys.shape[-1] <= 256
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
    query, key, value, kept_keys, kept_values, cos, sin, bias, out, P, R, scale,
    query_row, query_item, key_row, key_item, value_row, value_item,
    keys_row, keys_head, keys_item, values_row, values_head, values_item,
    angle_row, angle_item, bias_row, bias_item,
    GROUP: tl.constexpr, HALF: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program (head, 16 queries, b)."""
    head, row = tl.program_id(0), tl.program_id(2).to(tl.int64)
    group = head // GROUP
    own = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    asked = (own < R)[:, None]
    lanes, wide_lanes = tl.arange(0, HALF), tl.arange(0, 2 * HALF)
    angle = row * angle_row + own[:, None] * angle_item + lanes[None]
    place = query + row * query_row + own[:, None] * query_item + head * (2 * HALF) + lanes[None]
    q_first, q_second = _turned(place, cos + angle, sin + angle, asked, HALF)
    biases = bias + row * bias_row + own[:, None] * bias_item
    best = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, 2 * HALF), tl.float32)
    kept_keys += row * keys_row + group * keys_head
    kept_values += row * values_row + group * values_head
    for start in range(0, P, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < P
        keys_at = kept_keys + at[None] * keys_item + lanes[:, None]
        first = tl.load(keys_at, mask=inside[None], other=0.0)
        second = tl.load(keys_at + HALF, mask=inside[None], other=0.0)
        scores = (tl.dot(q_first, first) + tl.dot(q_second, second)) * scale
        scores += tl.load(biases + at[None], mask=asked & inside[None], other=0.0).to(tl.float32)
        given = tl.load(
            kept_values + at[:, None] * values_item + wide_lanes[None], mask=inside[:, None], other=0.0
        )
        best, total, mixed = _mixed(best, total, mixed, tl.where(inside[None], scores, float("-inf")), given)
    key += row * key_row + group * (2 * HALF)
    value += row * value_row + group * (2 * HALF)
    for start in range(0, R, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < R
        turn = row * angle_row + at[None] * angle_item + lanes[:, None]
        keys_at = key + at[None] * key_item + lanes[:, None]
        first, second = _turned(keys_at, cos + turn, sin + turn, inside[None], HALF)
        scores = (tl.dot(q_first, first) + tl.dot(q_second, second)) * scale
        scores += tl.load(biases + P + at[None], mask=asked & inside[None], other=0.0).to(tl.float32)
        given = tl.load(value + at[:, None] * value_item + wide_lanes[None], mask=inside[:, None], other=0.0)
        best, total, mixed = _mixed(best, total, mixed, tl.where(inside[None], scores, float("-inf")), given)
    heads = tl.num_programs(0)
    place = out + ((row * R + own[:, None]) * heads + head) * (2 * HALF) + wide_lanes[None]
    tl.store(place, (mixed / total[:, None]).to(out.dtype.element_ty), mask=asked)


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
) -> torch.Tensor:
    """Attention of R new tokens over P kept ones and themselves, with rotary positions; (B, R, H, D).

    Args:
        query: (B, R, H, D), not rotated; the heads of a token side by side.
        key: (B, R, G, D), not rotated, and ``value`` likewise; H is a multiple of G.
        kept_keys: (B or 1, G, P, D), rotated, and ``kept_values`` likewise.
        cos: (B or 1, R, D), and ``sin`` with the same strides.
        bias: (B or 1, 1, R, P + R), added to the scores.
        scale: of the scores, before the bias.

    All of one 16-bit dtype; scores, their softmax and sums are float32.
    """
    rows, tokens, heads, width = query.shape

    def row_of(x: torch.Tensor) -> int:
        return 0 if len(x) == 1 else x.stride(0)

    out = torch.empty((rows, tokens, heads, width), dtype=query.dtype, device=query.device)
    stages = 3 if _room(query.device) >= 160_000 and width <= 128 else 2 if width <= 128 else 1
    _attend_kernel[(heads, triton.cdiv(tokens, _ROWS), rows)](
        query, key, value, kept_keys, kept_values, cos, sin, bias, out, kept_keys.shape[2], tokens, scale,
        query.stride(0), query.stride(1), key.stride(0), key.stride(1), value.stride(0), value.stride(1),
        row_of(kept_keys), kept_keys.stride(1), kept_keys.stride(2),
        row_of(kept_values), kept_values.stride(1), kept_values.stride(2),
        row_of(cos), cos.stride(1), row_of(bias), bias.stride(2),
        heads // key.shape[2], width // 2, _ROWS, _BLOCK, num_warps=4, num_stages=stages,
    )  # fmt: skip
    return out


def _room(device: torch.device) -> int:
    """Bytes of shared memory that a block may have."""
    return shared_memory(device)[0]
