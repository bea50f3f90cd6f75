"""Outlines that drawings are made of.

Every outline is a float array (K, 2), x before y, y pointing down, closed by itself. Drawings live in a
frame of their own, about -1..1 on both axes; `render.py` scales, turns and places them.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

__all__ = [
    "Drawing",
    "Outline",
    "Part",
    "arc",
    "ellipse",
    "flip",
    "move",
    "polygon",
    "rect",
    "regular",
    "rounded",
    "smooth",
    "star",
    "stroke",
    "turn",
]

Outline = np.ndarray


class Part(NamedTuple):
    """One filled outline; ``tone`` says which of the object's colours fills it, or ``hole`` to cut it out."""

    outline: Outline
    tone: str = "main"


Drawing = list[Part]


def polygon(*points: tuple[float, float]) -> Outline:
    return np.array(points, dtype=np.float64)


def rect(x0: float, y0: float, x1: float, y1: float) -> Outline:
    return polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def ellipse(
    x: float, y: float, rx: float, ry: float | None = None, start: float = 0, stop: float = 360, n: int = 40
) -> Outline:
    """The part of an ellipse from ``start`` to ``stop`` degrees (0 is right, 90 is down), closed by its chord."""
    angles = np.radians(np.linspace(start, stop, n, endpoint=stop - start < 360))
    return np.stack([x + rx * np.cos(angles), y + (rx if ry is None else ry) * np.sin(angles)], axis=1)


def rounded(x0: float, y0: float, x1: float, y1: float, r: float) -> Outline:
    """A rectangle with corners of radius ``r``."""
    r = min(r, abs(x1 - x0) / 2, abs(y1 - y0) / 2)
    corners = ((x1 - r, y1 - r, 0), (x0 + r, y1 - r, 90), (x0 + r, y0 + r, 180), (x1 - r, y0 + r, 270))
    return np.concatenate([ellipse(x, y, r, r, start, start + 90, 7) for x, y, start in corners])


def regular(n: int, r: float = 1.0, phase: float = -90.0, x: float = 0.0, y: float = 0.0) -> Outline:
    """``n`` equal sides; the first corner at ``phase`` degrees."""
    angles = np.radians(phase + np.arange(n) * 360.0 / n)
    return np.stack([x + r * np.cos(angles), y + r * np.sin(angles)], axis=1)


def star(n: int, r: float, inner: float, phase: float = -90.0) -> Outline:
    """``n`` points at radius ``r``, the notches between them at radius ``inner``."""
    radii = np.where(np.arange(2 * n) % 2 == 0, r, inner)
    angles = np.radians(phase + np.arange(2 * n) * 180.0 / n)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def arc(x: float, y: float, r: float, width: float, start: float, stop: float, n: int = 24) -> Outline:
    """A bent bar: radius ``r`` to its middle line."""
    outer = ellipse(x, y, r + width / 2, r + width / 2, start, stop, n)
    inner = ellipse(x, y, r - width / 2, r - width / 2, start, stop, n)
    return np.concatenate([outer, inner[::-1]])


def stroke(points: Sequence[tuple[float, float]] | Outline, width: float) -> Outline:
    """A line of even ``width`` through ``points``."""
    line = np.asarray(points, dtype=np.float64)
    along = np.gradient(line, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    side = np.stack([-along[:, 1], along[:, 0]], axis=1) * (width / 2)
    return np.concatenate([line + side, (line - side)[::-1]])


def smooth(points: Iterable[tuple[float, float]] | Outline, n: int = 6) -> Outline:
    """A closed round curve through ``points`` (Catmull-Rom)."""
    p1 = np.array(list(points), dtype=np.float64)
    p0, p2, p3 = np.roll(p1, 1, axis=0), np.roll(p1, -1, axis=0), np.roll(p1, -2, axis=0)
    t = (np.arange(n) / n)[None, :, None]
    a, b, c, d = (value[:, None, :] for value in (p0, p1, p2, p3))
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return curve.reshape(-1, 2)


def move(outline: Outline, x: float, y: float) -> Outline:
    return outline + np.array([x, y])


def turn(outline: Outline, degrees: float, x: float = 0.0, y: float = 0.0) -> Outline:
    """Turned clockwise on the screen about (x, y)."""
    angle = np.radians(degrees)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return (outline - (x, y)) @ matrix + (x, y)


def flip(outline: Outline) -> Outline:
    """Mirrored left to right."""
    return outline * np.array([-1.0, 1.0])
