"""One object drawn by itself: its silhouette and its colours, ready to be put into a picture."""

from dataclasses import dataclass

import cv2
import numpy as np

from modified_lisa.data.scenes.colours import TONES, tone_rgb
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.data.scenes.shapes import Drawing
from modified_lisa.data.scenes.textures import NAMED_TEXTURES, texture_strength

__all__ = ["Look", "Patch", "draw_patch"]

_REGULAR = ("circle", "square", "hexagon", "ring", "ball", "clock", "moon")
_THIN = (
    "chair",
    "ladder",
    "bicycle",
    "key",
    "table",
    "pair of glasses",
    "pair of scissors",
    "hammer",
    "spoon",
)
_SHIFT = 4  # cv2 takes coordinates in sixteenths of a pixel
_MARGIN = 3
_SEEN_SHARE = 0.07  # a side colour below this share of the object is a detail that nobody would name


@dataclass(frozen=True)
class Look:
    """What an object is to look like, before it is drawn."""

    kind: str
    colour: str
    rgb: np.ndarray
    texture: str


@dataclass(frozen=True)
class Patch:
    """``cover`` bool (h, w): the silhouette, with `_MARGIN` empty pixels around; ``rgb`` uint8 (h, w, 3)."""

    look: Look
    cover: np.ndarray
    rgb: np.ndarray
    also: tuple[str, ...]
    """Names of other colours that a good part of it has."""
    texture: str
    """As drawn: thin things stay plain."""

    @property
    def area(self) -> int:
        return int(np.count_nonzero(self.cover))


def draw_patch(look: Look, extent: float, largest: float, rng: np.random.Generator) -> Patch:
    """Draw ``look`` so that the geometric mean of its box's sides is ``extent`` pixels, no side above ``largest``."""
    kind = KINDS[look.kind]
    tilt = float(rng.uniform(-kind.tilt, kind.tilt))
    stretch = 1.0 if look.kind in _REGULAR else float(np.exp(rng.uniform(-0.12, 0.12)))
    mirrored = -1.0 if rng.random() < 0.5 else 1.0
    parts, height, width = _place(kind.draw(rng), tilt, stretch, mirrored, extent, largest)
    index = np.zeros((height, width), np.uint8)
    for number, part in enumerate(parts, start=1):
        cv2.fillPoly(index, [part[0]], 0 if part[1] == "hole" else number, cv2.LINE_8, _SHIFT)
    main, cover = look.rgb, index > 0
    palette = np.stack([main, *[main if tone == "hole" else tone_rgb(tone, main) for _, tone in parts]])
    is_main = np.array([True, *[tone == "main" for _, tone in parts]])
    shares = np.bincount(index.ravel(), minlength=len(palette))[1:] / max(int(np.count_nonzero(cover)), 1)
    rgb = palette.astype(np.float32)[index]
    main_share = float(shares[is_main[1:]].sum())
    texture = look.texture
    clear = main_share >= 0.5 and np.count_nonzero(cover) >= 0.35 * cover.size and extent >= 34
    if look.kind in _THIN or (texture in NAMED_TEXTURES and not clear):
        texture = "plain"
    also = _other_colours(parts, shares, look.colour)
    if texture != "plain":
        strength = texture_strength(texture, height, width, tilt, rng) * is_main[index]
        second, name = _second_colour(look)
        if texture in NAMED_TEXTURES and name != look.colour:
            also = (*also, name)
        elif texture == "gradient":
            second = main * np.float32(0.62) if main.mean() > 60 else main + 60
        rgb += strength[..., None] * (second - rgb)
    _line_work(rgb, index, [tone for _, tone in parts], main, rng)
    _shade(rgb, rng, round_=look.kind in ("ball", "balloon", "apple"))
    return Patch(look, cover, np.clip(rgb, 0, 255).astype(np.uint8), also, texture)


def _place(
    drawing: Drawing, tilt: float, stretch: float, mirrored: float, extent: float, largest: float
) -> tuple[list[tuple[np.ndarray, str]], int, int]:
    angle = np.radians(tilt)
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    matrix = np.diag([stretch * mirrored, 1 / stretch]) @ matrix
    turned = [(outline @ matrix, tone) for outline, tone in drawing]
    points = np.concatenate([outline for outline, tone in turned if tone != "hole"])
    low, high = points.min(axis=0), points.max(axis=0)
    sides = np.maximum(high - low, 1e-6)
    scale = min(extent / float(np.sqrt(sides.prod())), largest / float(sides.max()))
    width, height = (int(np.ceil(float(side) * scale)) + 1 + 2 * _MARGIN for side in sides)
    placed = [
        (np.round(((outline - low) * scale + _MARGIN) * (1 << _SHIFT)).astype(np.int32), tone)
        for outline, tone in turned
    ]
    return placed, height, width


def _other_colours(parts: list[tuple[np.ndarray, str]], shares: np.ndarray, colour: str) -> tuple[str, ...]:
    total: dict[str, float] = {}
    for (_, tone), share in zip(parts, shares, strict=False):
        if tone in TONES:
            name = TONES[tone][1]
            total[name] = total.get(name, 0.0) + float(share)
    return tuple(name for name, share in total.items() if share > _SEEN_SHARE and name != colour)


def _second_colour(look: Look) -> tuple[np.ndarray, str]:
    """What stripes, spots and checks are painted in: white on dark colours, near-black on bright ones."""
    if look.colour in ("yellow", "white", "pink", "turquoise"):
        return np.array((52, 50, 56), np.float32), "black"
    return np.array((246, 246, 242), np.float32), "white"


def _line_work(
    rgb: np.ndarray, index: np.ndarray, tones: list[str], main: np.ndarray, rng: np.random.Generator
) -> None:
    """Draw lines where one tone meets another, not where two parts of the same tone join."""
    style = rng.choice(["none", "soft", "dark"], p=[0.3, 0.4, 0.3])
    if style == "none":
        return
    ink = main * np.float32(0.55) if main.mean() > 60 else main + 70
    if style == "dark":
        ink = np.array((30, 28, 32), np.float32)
    names = {tone: number for number, tone in enumerate(dict.fromkeys(tones), start=1)}
    tone = np.array([0, *[names[name] for name in tones]], np.uint8)[index]
    edge = np.zeros(index.shape, bool)
    edge[:, 1:] |= tone[:, 1:] != tone[:, :-1]
    edge[1:] |= tone[1:] != tone[:-1]
    if min(index.shape) > 110 and rng.random() < 0.5:
        edge[:, :-1] |= edge[:, 1:]
        edge[:-1] |= edge[1:]
    rgb[edge] = ink


def _shade(rgb: np.ndarray, rng: np.random.Generator, *, round_: bool) -> None:
    amount = rng.uniform(0.0, 0.2)
    y = np.linspace(-0.5, 0.5, rgb.shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, rgb.shape[1], dtype=np.float32)[None]
    if round_ and rng.random() < 0.7:  # a light spot up and to one side, darker towards the rim
        dx, dy = x - np.float32(rng.uniform(-0.2, 0.2)), y + np.float32(0.15)
        rgb *= (np.float32(1.12) - np.float32(0.75) * (dx * dx + dy * dy))[..., None]
        return
    angle = rng.uniform(0, 2 * np.pi)
    field = 1 + np.float32(amount) * (x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle)))
    rgb *= field[..., None]
