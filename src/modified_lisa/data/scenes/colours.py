"""The colours that objects have, and when two of them can be told apart.

A colour is a range of hue (degrees), saturation and value. The ranges are far enough apart that light,
shade and sensor noise do not turn one into another.
"""

import colorsys

import numpy as np

__all__ = ["COLOURS", "NEUTRAL", "TONES", "distance", "lab", "pick_rgb", "tone_rgb"]

COLOURS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-6, 4), (0.82, 1.0), (0.72, 0.93)),
    "orange": ((25, 32), (0.9, 1.0), (0.94, 1.0)),
    "yellow": ((51, 57), (0.8, 1.0), (0.93, 1.0)),
    "green": ((108, 145), (0.6, 0.95), (0.45, 0.72)),
    "turquoise": ((172, 182), (0.65, 1.0), (0.74, 0.88)),
    "blue": ((216, 231), (0.75, 1.0), (0.65, 0.95)),
    "purple": ((272, 286), (0.6, 0.9), (0.45, 0.68)),
    "pink": ((326, 340), (0.36, 0.5), (0.95, 1.0)),
    "brown": ((20, 28), (0.6, 0.8), (0.34, 0.48)),
    "black": ((0, 360), (0.0, 0.2), (0.05, 0.13)),
    "white": ((0, 360), (0.0, 0.03), (0.95, 1.0)),
    "grey": ((0, 360), (0.0, 0.04), (0.46, 0.58)),
}
NEUTRAL = ("black", "white", "grey")

TONES: dict[str, tuple[tuple[int, int, int], str]] = {
    # Parts that have a colour of their own whatever the object's is: its RGB, and the name people would use.
    "wood": ((122, 78, 40), "brown"),
    "metal": ((150, 155, 160), "grey"),
    "green": ((62, 140, 58), "green"),
    "black": ((28, 28, 30), "black"),
    "white": ((246, 246, 244), "white"),
    "flame": ((255, 200, 60), "yellow"),
    "orange": ((240, 140, 30), "orange"),
    "glass": ((190, 215, 228), "grey"),
    "skin": ((240, 160, 160), "pink"),
    "sand": ((222, 188, 130), "brown"),
    "coffee": ((80, 48, 28), "brown"),
}


def pick_rgb(name: str, rng: np.random.Generator) -> np.ndarray:
    """One RGB of the colour ``name``: float32 (3,), 0..255."""
    h, s, v = (rng.uniform(low, high) for low, high in COLOURS[name])
    return np.array(colorsys.hsv_to_rgb((h % 360) / 360, s, v), dtype=np.float32) * 255


def tone_rgb(tone: str, main: np.ndarray) -> np.ndarray:
    """RGB float32 (3,) that fills a part: a shade of the object's ``main`` RGB, or the tone's own."""
    if tone == "main":
        return main
    dim = float(main.mean()) < 50
    if tone == "dark":
        return main * 0.76 if not dim else main + 26  # black has no darker shade that could be seen
    if tone == "light":
        return main + (255 - main) * 0.24 if float(main.min()) < 225 else main * 0.88
    return np.array(TONES[tone][0], dtype=np.float32)


def lab(rgb: np.ndarray) -> np.ndarray:
    """RGB 0..255 (..., 3) to CIE L*a*b* (D65)."""
    value = np.asarray(rgb, dtype=np.float64) / 255
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    matrix = np.array(
        [
            [0.4124564, 0.3575761, 0.1804375],
            [0.2126729, 0.7151522, 0.0721750],
            [0.0193339, 0.1191920, 0.9503041],
        ]
    )
    xyz = linear @ matrix.T / np.array([0.95047, 1.0, 1.08883])
    root = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    x, y, z = root[..., 0], root[..., 1], root[..., 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """How different an RGB (3,) looks from the most similar of others, (3,) or (N, 3): CIE76."""
    both = lab(np.concatenate([a[None], np.atleast_2d(b)]))
    return float(np.linalg.norm(both[1:] - both[0], axis=1).min())
