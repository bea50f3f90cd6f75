"""Patterns on objects: how strongly the second colour shows at each pixel."""

import cv2
import numpy as np

__all__ = ["NAMED_TEXTURES", "TEXTURES", "texture_strength"]

NAMED_TEXTURES = ("striped", "spotted", "checked")
"""Those that queries speak of."""
TEXTURES = ("plain", *NAMED_TEXTURES, "gradient", "noisy")


def texture_strength(name: str, height: int, width: int, tilt: float, rng: np.random.Generator) -> np.ndarray:
    """Float32 (height, width), 0 the object's own colour, 1 the second colour; at most about a third is 1."""
    size = max(height, width)
    if name == "noisy":
        coarse = rng.random((max(2, height // 3), max(2, width // 3)), dtype=np.float32)
        return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) * np.float32(0.35)
    angle = np.radians(tilt + float(rng.choice([0.0, 0.0, 45.0, 90.0])))
    y, x = np.mgrid[:height, :width].astype(np.float32)
    u = x * np.float32(np.cos(angle)) + y * np.float32(np.sin(angle))
    v = y * np.float32(np.cos(angle)) - x * np.float32(np.sin(angle))
    if name == "gradient":
        return np.clip((u - u.min()) / max(float(np.ptp(u)), 1.0), 0, 1) * np.float32(0.5)
    period = np.float32(max(size / rng.uniform(4, 6.5), 7.0))
    u, v = u / period + np.float32(rng.random()), v / period + np.float32(rng.random())
    if name == "striped":
        return ((u % 1) < rng.uniform(0.28, 0.36)).astype(np.float32)
    if name == "checked":
        return (((u % 1) < 0.5) & ((v % 1) < 0.5)).astype(np.float32) * np.float32(0.95)
    row = np.floor(v)
    du, dv = (u + row * np.float32(0.5)) % 1 - np.float32(0.5), v % 1 - np.float32(0.5)
    return (du * du + dv * dv < np.float32(rng.uniform(0.055, 0.08))).astype(np.float32)
