"""Drawings of plain shapes and toys.

Each function takes the random generator and returns parts, back to front, with its own variation.
"""

import numpy as np

from modified_lisa.data.scenes.shapes import Drawing, Part, arc, ellipse, polygon, rect, regular, star

Rng = np.random.Generator


def ball(rng: Rng) -> Drawing:
    parts = [Part(ellipse(0, 0, 1, 1, n=56))]
    if rng.random() < 0.5:  # a beach ball
        for a in (0.0, 120.0, 240.0):
            wedge = np.concatenate([[[0.0, -0.15]], ellipse(0, 0, 1, 1, a, a + 60, 12)])
            parts.append(Part(wedge, "light"))
        return [*parts, Part(ellipse(0, -0.15, 0.14), "white")]
    return [
        *parts,
        Part(arc(-1.05, 0, 1.0, 0.07, -60, 60), "dark"),
        Part(arc(1.05, 0, 1.0, 0.07, 120, 240), "dark"),
        Part(rect(-1, -0.035, 1, 0.035), "dark"),
    ]


def circle(rng: Rng) -> Drawing:
    return [Part(ellipse(0, 0, 1, 1, n=64))]


def square(rng: Rng) -> Drawing:
    return [Part(rect(-1, -1, 1, 1))]


def triangle(rng: Rng) -> Drawing:
    return [Part(polygon((rng.uniform(-0.3, 0.3), -rng.uniform(0.8, 1)), (1, 0.8), (-1, 0.8)))]


def hexagon(rng: Rng) -> Drawing:
    return [Part(regular(6))]


def ring(rng: Rng) -> Drawing:
    return [Part(ellipse(0, 0, 1, 1, n=64)), Part(ellipse(0, 0, rng.uniform(0.5, 0.65), n=56), "hole")]


def star_shape(rng: Rng) -> Drawing:
    return [Part(star(5, 1, rng.uniform(0.38, 0.48)))]


def heart(rng: Rng) -> Drawing:
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    return [Part(np.stack([x, y], axis=1))]


def cross(rng: Rng) -> Drawing:
    w = rng.uniform(0.26, 0.36)
    return [
        Part(
            polygon(
                (-w, -1),
                (w, -1),
                (w, -w),
                (1, -w),
                (1, w),
                (w, w),
                (w, 1),
                (-w, 1),
                (-w, w),
                (-1, w),
                (-1, -w),
                (-w, -w),
            )
        )
    ]


def arrow(rng: Rng) -> Drawing:
    w, head = rng.uniform(0.18, 0.26), rng.uniform(0.0, 0.2)
    return [Part(polygon((-1, -w), (head, -w), (head, -0.6), (1, 0), (head, 0.6), (head, w), (-1, w)))]


def teddy(rng: Rng) -> Drawing:
    ears = [Part(ellipse(x, -0.86, 0.2)) for x in (-0.34, 0.34)]
    inner = [Part(ellipse(x, -0.86, 0.1), "light") for x in (-0.34, 0.34)]
    limbs = [
        Part(ellipse(x, y, 0.22, 0.25)) for x, y in ((-0.58, 0.05), (0.58, 0.05), (-0.4, 0.85), (0.4, 0.85))
    ]
    soles = [Part(ellipse(x, 0.88, 0.12, 0.14), "light") for x in (-0.4, 0.4)]
    face = [Part(ellipse(x, -0.62, 0.055), "black") for x in (-0.16, 0.16)]
    return [
        *ears,
        *inner,
        *limbs,
        *soles,
        Part(ellipse(0, 0.32, 0.56, 0.58)),
        Part(ellipse(0, 0.38, 0.32, 0.34), "light"),
        Part(ellipse(0, -0.55, 0.46, 0.42)),
        Part(ellipse(0, -0.42, 0.2, 0.16), "light"),
        *face,
        Part(ellipse(0, -0.47, 0.07, 0.05), "black"),
    ]
