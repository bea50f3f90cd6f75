"""`images.resize_image` as products of matrices, so that a GPU can do it: the same bytes, on any device.

Pillow resizes rows, then columns, each time with coefficients of 22 binary digits behind the point and a result
rounded to 8 bit (``Resample.c``). As whole numbers these sums stay far below 2**53, so float64 holds them
exactly, in any order of summing.
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F

from modified_lisa.devices import why_not
from modified_lisa.images import resize_image

__all__ = ["normalised", "resize_like_pillow", "resize_on", "square_on"]

MOST_PINNED = 64 * 2**20
"""Bytes of an image up to which it goes to a GPU through pinned memory, which torch never gives back."""
_DIGITS = 22
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0}


def resize_on(
    device: torch.device | None, image: np.ndarray, height: int, width: int, interpolation: str
) -> torch.Tensor:
    """uint8 (H, W, 3) -> uint8 (height, width, 3) on ``device``, and made there; None: the CPU. The same bytes."""
    if device is None or device.type == "cpu":
        return torch.tensor(resize_image(image, height, width, interpolation))
    return resize_like_pillow(_uploaded(image, device), height, width, interpolation)


def _uploaded(image: np.ndarray, device: torch.device) -> torch.Tensor:
    """A copy of ``image`` on ``device``, which a GPU fetches by itself while the host goes on."""
    if device.type != "cuda" or image.nbytes > MOST_PINNED:
        return torch.tensor(image, device=device)
    pinned = torch.empty(image.shape, dtype=torch.uint8, pin_memory=True)
    pinned.numpy()[...] = image
    return pinned.to(device, non_blocking=True)


def square_on(
    device: torch.device | None,
    image: np.ndarray,
    content: tuple[int, int],
    side: int,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    interpolation: str,
) -> torch.Tensor:
    """uint8 (H, W, 3) -> float32 (3, side, side) on ``device``, and made there (None: the CPU): resized to the height and
    width of ``content`` in the upper left corner, `normalised`, and 0 beside it."""
    height, width = content
    if device is not None and why_not(device) is None:
        from modified_lisa.resize_kernels import square

        old_height, old_width, _ = image.shape
        across = None if old_width == width else _taps(old_width, width, interpolation, device)
        down = _taps(old_height, height, interpolation, device)
        with torch.cuda.device(device):
            return square(_uploaded(image, device), across, down, side, mean, std, _DIGITS)
    pixels = normalised(resize_on(device, image, height, width, interpolation), mean, std)
    return F.pad(pixels, (0, side - width, 0, side - height))


def normalised(
    image: torch.Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> torch.Tensor:
    """uint8 (H, W, 3) -> float32 (3, H, W), of values in 0..1 less each channel's mean, in deviations."""
    centre, spread = (_on(image.device, values) for values in (mean, std))
    return (image.permute(2, 0, 1).float().div_(255) - centre) / spread


@functools.lru_cache(maxsize=32)
def _on(device: torch.device, values: tuple[float, float, float]) -> torch.Tensor:
    return torch.tensor(values, device=device)[:, None, None]


def resize_like_pillow(image: torch.Tensor, height: int, width: int, interpolation: str) -> torch.Tensor:
    """uint8 (H, W, C) on any device -> uint8 (height, width, C); ``bilinear`` or ``bicubic``, antialiased."""
    for axis, size in ((1, width), (0, height)):
        if image.shape[axis] != size:
            image = _resize_axis(image, axis, size, interpolation)
    return image


def _resize_axis(image: torch.Tensor, axis: int, size: int, interpolation: str) -> torch.Tensor:
    weights = _weights(image.shape[axis], size, interpolation, image.device)
    sums = torch.tensordot(image.double(), weights, dims=([axis], [1])).movedim(-1, axis)
    rounded = torch.floor((sums + 2.0 ** (_DIGITS - 1)) / 2.0**_DIGITS)
    return rounded.clamp_(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=32)
def _weights(old: int, new: int, interpolation: str, device: torch.device) -> torch.Tensor:
    """float64 (new, old): whole numbers, ``2**22`` times each pixel's share."""
    return torch.from_numpy(_table(old, new, interpolation)).to(device)


@functools.lru_cache(maxsize=64)
def _taps(old: int, new: int, interpolation: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """The same for `resize_kernels.square`: int32 (new,), the first pixel that counts, and its and the next ones' shares."""
    if old == new:
        return torch.arange(new, dtype=torch.int32, device=device), torch.full(
            (new, 1), 2**_DIGITS, dtype=torch.int32, device=device
        )
    table = _table(old, new, interpolation)
    counts = table != 0
    firsts, ends = counts.argmax(axis=1), old - counts[:, ::-1].argmax(axis=1)
    places = firsts[:, None] + np.arange((ends - firsts).max())
    shares = np.where(places < old, np.take_along_axis(table, np.minimum(places, old - 1), axis=1), 0)
    return tuple(torch.from_numpy(part.astype(np.int32)).to(device) for part in (firsts, shares))  # type: ignore[return-value]


def _table(old: int, new: int, interpolation: str) -> np.ndarray:
    """As `_weights`."""
    scale = old / new
    stretch = max(scale, 1.0)  # a filter is widened where pixels get fewer
    support = _SUPPORT[interpolation] * stretch
    table = np.zeros((new, old))
    for place in range(new):
        centre = (place + 0.5) * scale
        first = max(0, int(centre - support + 0.5))
        last = min(old, int(centre + support + 0.5))
        shares = [_filter((x - centre + 0.5) / stretch, interpolation) for x in range(first, last)]
        total = sum(shares)
        for x, share in zip(range(first, last), shares, strict=True):
            value = share * (1.0 / total) if total else share
            table[place, x] = int(value * 2.0**_DIGITS + (0.5 if value >= 0 else -0.5))
    return table


def _filter(x: float, interpolation: str) -> float:
    x = abs(x)
    if interpolation == "bilinear":
        return max(0.0, 1.0 - x)
    a = -0.5
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    if x < 2.0:
        return (((x - 5) * x + 8) * x - 4) * a
    return 0.0
