"""What is behind the objects. Muted, so that objects stand out; `Background.rgbs` names its colours."""

from dataclasses import dataclass

import cv2
import numpy as np

__all__ = ["BACKGROUNDS", "Background", "make_background"]

Rng = np.random.Generator


@dataclass(frozen=True)
class Background:
    """``image`` float32 (H, W, 3) RGB 0..255; ``horizon``: the y where the ground begins, or None."""

    name: str
    image: np.ndarray
    rgbs: np.ndarray
    horizon: int | None = None


def _tint(rng: Rng, low: float, high: float, spread: float = 14) -> np.ndarray:
    return (rng.uniform(low, high) + rng.uniform(-spread, spread, 3)).astype(np.float32)


def _vary(rng: Rng, *rgb: float) -> np.ndarray:
    return (np.array(rgb) + rng.uniform(-12, 12, 3) + rng.uniform(-12, 12)).astype(np.float32)


def _fill(h: int, w: int, rgb: np.ndarray) -> np.ndarray:
    return np.broadcast_to(rgb, (h, w, 3)).copy()


def _ramp(h: int, w: int, top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    t = np.linspace(0, 1, h, dtype=np.float32)[:, None, None]
    return np.broadcast_to(top * (1 - t) + bottom * t, (h, w, 3)).copy()


def _clouds(h: int, w: int, cell: float, rng: Rng, stretch: float = 1.0) -> np.ndarray:
    """Smooth noise (h, w, 1) in -1..1; ``cell`` is the size of a blot, ``stretch`` its width over its height."""
    shape = (max(2, int(h / cell) + 1), max(2, int(w / (cell * stretch)) + 1))
    coarse = rng.random(shape, dtype=np.float32) * 2 - 1
    return cv2.resize(coarse, (w, h), interpolation=cv2.INTER_LINEAR)[..., None]


def _flat(h: int, w: int, rng: Rng) -> tuple:
    rgb = _tint(rng, 90, 235)
    return _fill(h, w, rgb), [rgb], None


def _gradient(h: int, w: int, rng: Rng) -> tuple:
    a, b = _tint(rng, 100, 235, 20), _tint(rng, 100, 235, 20)
    if rng.random() < 0.5:
        return _ramp(h, w, a, b), [a, b], None
    return np.ascontiguousarray(_ramp(w, h, a, b).transpose(1, 0, 2)), [a, b], None


def _noise(h: int, w: int, rng: Rng) -> tuple:
    rgb, amount = _tint(rng, 100, 220), rng.uniform(10, 24)
    cell = rng.uniform(3, 40)
    return _fill(h, w, rgb) + _clouds(h, w, cell, rng) * np.float32(amount), [rgb], None


def _ground(h: int, w: int, rng: Rng, top: np.ndarray, ground: np.ndarray, rough: float) -> np.ndarray:
    horizon = int(h * rng.uniform(0.35, 0.6))
    lower = _ramp(h - horizon, w, ground * np.float32(0.92), ground * np.float32(1.06))
    return np.concatenate([top[:horizon], lower + _clouds(h - horizon, w, 5, rng, 2) * np.float32(rough)])


def _meadow(h: int, w: int, rng: Rng) -> tuple:
    sky, grass = _vary(rng, 168, 205, 232), _vary(rng, 128, 172, 96)
    image = _ground(h, w, rng, _ramp(h, w, sky, sky * 0.4 + 150), grass, 9)
    return image, [sky, sky * 0.4 + 150, grass], _first_ground(image, grass)


def _beach(h: int, w: int, rng: Rng) -> tuple:
    sky, sand = _vary(rng, 170, 208, 230), _vary(rng, 224, 203, 160)
    image = _ground(h, w, rng, _ramp(h, w, sky, sky * 0.4 + 150), sand, 6)
    return image, [sky, sky * 0.4 + 150, sand], _first_ground(image, sand)


def _snow(h: int, w: int, rng: Rng) -> tuple:
    sky, snow = _vary(rng, 150, 170, 195), _vary(rng, 228, 232, 238)
    image = _ground(h, w, rng, _ramp(h, w, sky, sky), snow, 4)
    return image, [sky, snow], _first_ground(image, snow)


def _first_ground(image: np.ndarray, ground: np.ndarray) -> int:
    column = image[:, 0]
    jump = np.abs(np.diff(column, axis=0)).sum(axis=1)
    return int(jump.argmax()) + 1


def _table(h: int, w: int, rng: Rng) -> tuple:
    wall, wood = _tint(rng, 150, 225, 18), _vary(rng, 186, 150, 108)
    edge = int(h * rng.uniform(0.3, 0.5))
    grain = _clouds(h - edge, w, 4, rng, 14) * np.float32(9)
    return np.concatenate([_fill(edge, w, wall), _fill(h - edge, w, wood) + grain]), [wall, wood], edge


def _room(h: int, w: int, rng: Rng) -> tuple:
    wall, floor = _tint(rng, 165, 228, 18), _vary(rng, 160, 128, 100)
    edge = int(h * rng.uniform(0.5, 0.65))
    image = np.concatenate([_fill(edge, w, wall), _fill(h - edge, w, floor)])
    plank = max(10, int((h - edge) / rng.uniform(3, 6)))
    image[edge + plank :: plank] *= np.float32(0.82)
    image[max(edge - max(4, h // 50), 0) : edge] = np.minimum(wall + 22, 250)
    return image, [wall, floor], edge


def _grid(
    h: int, w: int, rng: Rng, rgb: np.ndarray, line: np.ndarray, cell: tuple[int, int], shift: bool
) -> np.ndarray:
    image, thick = _fill(h, w, rgb), int(rng.integers(1, 4))
    rows = int(h / cell[0]) + 1
    for row in range(rows):
        y = row * cell[0]
        jitter = np.float32(rng.uniform(-6, 6))
        image[y : y + cell[0]] += jitter
        start = cell[1] // 2 if shift and row % 2 else 0
        for x in range(start, w, cell[1]):
            image[y : y + cell[0], x : x + thick] = line
        image[y : y + thick] = line
    return image


def _tiles(h: int, w: int, rng: Rng) -> tuple:
    rgb, size = _tint(rng, 165, 232, 14), int(rng.integers(26, 64))
    return _grid(h, w, rng, rgb, rgb * np.float32(0.82), (size, size), False), [rgb], None


def _bricks(h: int, w: int, rng: Rng) -> tuple:
    rgb, size = _vary(rng, 178, 140, 124), int(rng.integers(14, 28))
    return _grid(h, w, rng, rgb, rgb * 0.4 + 120, (size, size * 2 + 8), True), [rgb], None


def _paper(h: int, w: int, rng: Rng) -> tuple:
    rgb, image_line = _tint(rng, 222, 242, 6), _vary(rng, 178, 196, 220)
    image, step = _fill(h, w, rgb), int(rng.integers(12, 26))
    image[step::step] = image_line
    if rng.random() < 0.4:
        image[:, step::step] = image_line
    return image, [rgb], None


def _carpet(h: int, w: int, rng: Rng) -> tuple:
    a = _tint(rng, 110, 200, 20)
    b, size = a + np.float32(rng.choice([-24, 24])), int(rng.integers(18, 56))
    y, x = np.arange(h)[:, None] // size, np.arange(w)[None] // size
    even = ((x + y) % 2 == 0)[..., None]
    return np.where(even, a, b) + _clouds(h, w, 2, rng) * np.float32(5), [a, b], None


def _grass(h: int, w: int, rng: Rng) -> tuple:
    rgb = _vary(rng, 134, 170, 100)
    return (
        _fill(h, w, rgb)
        + _clouds(h, w, 3, rng, 0.4) * np.float32(16)
        + _clouds(h, w, 50, rng) * np.float32(10),
        [rgb],
        None,
    )


def _water(h: int, w: int, rng: Rng) -> tuple:
    rgb = _vary(rng, 128, 178, 198)
    waves = _clouds(h, w, 5, rng, 9)
    return _ramp(h, w, rgb + 14, rgb - 14) + waves * np.float32(12), [rgb + 14, rgb - 14], None


def _stone(h: int, w: int, rng: Rng) -> tuple:
    rgb = _tint(rng, 110, 175, 6)
    return (
        _fill(h, w, rgb) + _clouds(h, w, 2.5, rng) * np.float32(14) + _clouds(h, w, 30, rng) * np.float32(10),
        [rgb],
        None,
    )


def _night(h: int, w: int, rng: Rng) -> tuple:
    rgb = _vary(rng, 38, 44, 72)
    return _ramp(h, w, rgb, rgb + 22) + _clouds(h, w, 60, rng) * np.float32(6), [rgb, rgb + 22], None


_MAKERS = {
    "a flat wall": _flat,
    "a soft gradient": _gradient,
    "a cloudy backdrop": _noise,
    "a meadow": _meadow,
    "a beach": _beach,
    "snow": _snow,
    "a table": _table,
    "a room": _room,
    "a tiled wall": _tiles,
    "a brick wall": _bricks,
    "paper": _paper,
    "a carpet": _carpet,
    "grass": _grass,
    "water": _water,
    "stone": _stone,
    "a dark sky": _night,
}
BACKGROUNDS = tuple(_MAKERS)


def make_background(name: str, height: int, width: int, rng: Rng) -> Background:
    """Paint the background ``name`` (one of `BACKGROUNDS`)."""
    image, rgbs, horizon = _MAKERS[name](height, width, rng)
    return Background(
        name, np.ascontiguousarray(image, dtype=np.float32), np.array(rgbs, dtype=np.float32), horizon
    )
