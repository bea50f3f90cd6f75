"""Where the objects stand: apart or one before the other, never hidden beyond recognition."""

from dataclasses import dataclass

import cv2
import numpy as np

from modified_lisa.data.scenes.patches import Look, Patch, draw_patch

__all__ = ["Placed", "place"]

_MOST_HIDDEN = 0.4  # of any object; well above half must stay visible
_GAP = np.ones((9, 9), np.uint8)  # objects that do not overlap keep about four pixels apart
_HIGH = ("cloud", "sun", "moon", "star", "bird", "kite", "balloon", "rocket", "butterfly")
Rng = np.random.Generator


@dataclass(frozen=True)
class Placed:
    """``x``, ``y``: the pixel of the image under the patch's top left corner."""

    patch: Patch
    x: int
    y: int


def place(
    rng: Rng, looks: list[Look], height: int, width: int, horizon: int | None
) -> tuple[list[Placed], np.ndarray]:
    """Draw and place what fits, back to front, and say who owns which pixel: uint8 (H, W), i + 1 for object i."""
    owner = np.zeros((height, width), np.uint8)
    placed: list[Placed] = []
    hidden: list[int] = []
    in_row = rng.random() < 0.22
    grounded = horizon is not None and rng.random() < 0.6
    may_overlap = rng.random() < 0.45
    side = float(np.sqrt(height * width))
    base = side * float(rng.uniform(0.22, 0.34)) * float(np.sqrt(5 / (len(looks) + 1.5)))
    spread = float(rng.uniform(0.1, 0.75))
    for number, look in enumerate(looks):
        extent = base * float(np.exp(rng.uniform(-spread, spread) - spread / 4))
        for shrink in (1.0, 0.75, 0.55):
            size = float(np.clip(extent * shrink, 0.085 * side, 0.5 * side))
            patch = draw_patch(look, size, 0.62 * min(height, width), rng)
            spot = None
            for attempt in range(14):
                overlap = may_overlap and bool(placed) and attempt < 6 and rng.random() < 0.6
                if overlap:
                    x, y = _beside(rng, patch, placed[int(rng.integers(len(placed)))])
                elif in_row:
                    x, y = _in_row(rng, patch, number, len(looks), height, width)
                else:
                    x, y = _anywhere(rng, patch, height, width, horizon if grounded else None)
                if _fits(patch, x, y, owner, placed, hidden, overlap):
                    spot = (x, y)
                    break
            if spot is not None:
                _stamp(patch, *spot, owner, placed, hidden)
                break
    return placed, owner


def _anywhere(rng: Rng, patch: Patch, height: int, width: int, horizon: int | None) -> tuple[int, int]:
    h, w = patch.cover.shape
    x, y = int(rng.integers(0, max(width - w, 0) + 1)), int(rng.integers(0, max(height - h, 0) + 1))
    if horizon is not None and patch.look.kind not in _HIGH:  # it stands on the ground
        foot = int(rng.integers(horizon + 4, height + 1)) if horizon + 4 < height else height
        y = foot - h
    return x, y


def _in_row(rng: Rng, patch: Patch, number: int, count: int, height: int, width: int) -> tuple[int, int]:
    h, w = patch.cover.shape
    x = (number + 0.5 + float(rng.uniform(-0.15, 0.15))) * width / count - w / 2
    y = height * 0.55 - h / 2 + float(rng.uniform(-0.1, 0.1)) * height
    return int(x), int(y)


def _beside(rng: Rng, patch: Patch, other: Placed) -> tuple[int, int]:
    """Near the edge of ``other``, so that this one covers a part of it."""
    (h, w), (oh, ow) = patch.cover.shape, other.patch.cover.shape
    angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.28, 0.46)
    x = other.x + ow / 2 + np.cos(angle) * reach * (ow + w) - w / 2
    y = other.y + oh / 2 + np.sin(angle) * reach * (oh + h) - h / 2
    return int(x), int(y)


def _fits(
    patch: Patch, x: int, y: int, owner: np.ndarray, placed: list[Placed], hidden: list[int], overlap: bool
) -> bool:
    h, w = patch.cover.shape
    if x < 0 or y < 0 or x + w > owner.shape[1] or y + h > owner.shape[0]:
        return False
    under = owner[y : y + h, x : x + w]
    if not under.any():
        return True
    if not overlap:
        return not under[cv2.dilate(patch.cover.astype(np.uint8), _GAP) > 0].any()
    lost = np.bincount(under[patch.cover], minlength=len(placed) + 1)[1:]
    return all(
        gone == 0 or (gone / item.patch.area > 0.05 and (gone + before) / item.patch.area <= _MOST_HIDDEN)
        for gone, before, item in zip(lost, hidden, placed, strict=True)
    )


def _stamp(patch: Patch, x: int, y: int, owner: np.ndarray, placed: list[Placed], hidden: list[int]) -> None:
    h, w = patch.cover.shape
    under = owner[y : y + h, x : x + w]
    lost = np.bincount(under[patch.cover], minlength=len(placed) + 1)[1:]
    for index, gone in enumerate(lost):
        hidden[index] += int(gone)
    placed.append(Placed(patch, x, y))
    hidden.append(0)
    under[patch.cover] = len(placed)
