"""Pillow's resizing as two Triton kernels, the second of which also normalises and pads. Import only where Triton is.

Made of torch's operations (`resize.resize_like_pillow`) it takes 26 launches, a millisecond of the host, while the GPU
waits. The sums are whole numbers of 32 bits, as in Pillow's ``Resample.c``, so that the bytes are the same.
"""

import torch
import triton
import triton.language as tl

__all__ = ["square"]


# A kernel for each size of image that is a multiple of 16, or 1, would be compiled at the first request of such a size.
@triton.jit(do_not_specialize=["OLD", "NEW", "TAPS"])
def _across_kernel(image, firsts, shares, out, OLD, NEW, TAPS, DIGITS: tl.constexpr, WIDTH: tl.constexpr):
    """Program (row, part): uint8 (H, OLD, 3) -> uint8 (H, NEW, 3)."""
    row = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = place < 3 * NEW
    column, channel = place // 3, place % 3
    first = tl.load(firsts + column, mask=inside, other=0)
    total = tl.full((WIDTH,), 1 << (DIGITS - 1), tl.int32)
    for tap in range(TAPS):
        share = tl.load(shares + column * TAPS + tap, mask=inside, other=0)
        pixel = tl.load(
            image + row * (3 * OLD) + (first + tap) * 3 + channel, mask=inside & (first + tap < OLD), other=0
        )
        total += share * pixel.to(tl.int32)
    value = tl.minimum(tl.maximum(total >> DIGITS, 0), 255)
    tl.store(out + row * (3 * NEW) + place, value.to(tl.uint8), mask=inside)


@triton.jit(do_not_specialize=["OLD", "NEW", "COLUMNS", "TAPS"])
def _down_kernel(
    image, firsts, shares, out, OLD, NEW, COLUMNS, TAPS, SIDE, mean0, mean1, mean2, std0, std1, std2,
    DIGITS: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Program (row, part, channel): uint8 (OLD, COLUMNS, 3) -> float32 (3, SIDE, SIDE), of which NEW x COLUMNS are the image
    and the rest is 0."""
    row, channel = tl.program_id(0), tl.program_id(2)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    inside = (column < COLUMNS) & (row < NEW)
    first = tl.load(firsts + tl.minimum(row, NEW - 1))
    total = tl.full((WIDTH,), 1 << (DIGITS - 1), tl.int32)
    for tap in range(TAPS):
        share = tl.load(shares + tl.minimum(row, NEW - 1) * TAPS + tap)
        below = (first + tap).to(tl.int64)
        pixel = tl.load(
            image + (below * COLUMNS + column) * 3 + channel, mask=inside & (below < OLD), other=0
        )
        total += share * pixel.to(tl.int32)
    value = tl.minimum(tl.maximum(total >> DIGITS, 0), 255).to(tl.float32)
    mean = tl.where(channel == 0, mean0, tl.where(channel == 1, mean1, mean2))
    std = tl.where(channel == 0, std0, tl.where(channel == 1, std1, std2))
    value = tl.div_rn(tl.div_rn(value, 255.0) - mean, std)
    tl.store(
        out + (channel * SIDE + row) * SIDE + column,
        tl.where(inside, value, 0.0),
        mask=(column < SIDE) & (row < SIDE),
    )


def square(
    image: torch.Tensor,
    across: tuple[torch.Tensor, torch.Tensor] | None,
    down: tuple[torch.Tensor, torch.Tensor],
    side: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    digits: int,
) -> torch.Tensor:
    """uint8 (H, W, 3) -> float32 (3, side, side): resized into the upper left corner, normalised, the rest 0.

    Args:
        across, down: of each new column and row the first old one, int32 (n,), and the shares of it and of those that
            follow, int32 (n, taps), in ``2**-digits``. None: the columns stay as they are.
    """
    height, width, _ = image.shape
    if across is not None:
        firsts, shares = across
        new = len(firsts)
        narrow = image.new_empty(height, new, 3)
        _across_kernel[(height, triton.cdiv(3 * new, 512))](
            image, firsts, shares, narrow, width, new, shares.shape[1], digits, 512
        )
        image, width = narrow, new
    firsts, shares = down
    out = torch.empty(3, side, side, dtype=torch.float32, device=image.device)
    _down_kernel[(side, triton.cdiv(side, 512), 3)](
        image,
        firsts,
        shares,
        out,
        height,
        len(firsts),
        width,
        shares.shape[1],
        side,
        *mean,
        *std,
        digits,
        512,
    )
    return out
