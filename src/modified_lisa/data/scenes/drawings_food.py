"""Drawings of food.

Each function takes the random generator and returns parts, back to front, with its own variation.
"""

import numpy as np

from modified_lisa.data.scenes.shapes import (
    Drawing,
    Part,
    ellipse,
    polygon,
    rect,
    rounded,
    smooth,
    stroke,
    turn,
)

Rng = np.random.Generator


def apple(rng: Rng) -> Drawing:
    half = [(0.0, -0.5), (0.3, -0.68), (0.75, -0.5), (0.85, 0.05), (0.55, 0.7), (0.2, 0.85), (0.0, 0.78)]
    body = smooth([*half, *[(-x, y) for x, y in half[-2:0:-1]]])
    leaf = smooth([(0.04, -0.72), (0.3, -1.0), (0.6, -0.98), (0.35, -0.72)])
    return [
        Part(stroke([(0, -0.5), (0.02, -0.75), (-0.06, -1)], 0.1), "wood"),
        Part(leaf, "green"),
        Part(body),
    ]


def banana(rng: Rng) -> Drawing:
    bend = rng.uniform(0.62, 0.8)
    outer = ellipse(0, -0.4, 1, bend + 0.35, 12, 168, 24)
    inner = ellipse(0, -0.45, 0.86, bend - 0.15, 12, 168, 24)
    tips = [
        Part(ellipse(outer[0, 0], outer[0, 1], 0.1), "wood"),
        Part(ellipse(outer[-1, 0], outer[-1, 1], 0.08), "wood"),
    ]
    ridge = ellipse(0, -0.42, 0.93, bend + 0.1, 20, 160, 24)
    return [
        *tips,
        Part(np.concatenate([outer, inner[::-1]])),
        Part(np.concatenate([ridge, inner[::-1][1:-1]]), "light"),
    ]


def carrot(rng: Rng) -> Drawing:
    w = rng.uniform(0.3, 0.38)
    leaves = [Part(turn(ellipse(0, -0.85, 0.11, 0.34), a, 0, -0.5), "green") for a in (-35.0, 0.0, 35.0)]
    body = smooth([(-w, -0.5), (0, -0.6), (w, -0.5), (w * 0.6, 0.2), (0.02, 1.1), (-w * 0.6, 0.2)])
    marks = [
        Part(rect(x, y, x + 0.2, y + 0.045), "dark") for x, y in ((-0.24, -0.25), (0.02, 0.0), (-0.16, 0.25))
    ]
    return [*leaves, Part(body), *marks]


def ice_cream(rng: Rng) -> Drawing:
    two = rng.random() < 0.4
    cone = [Part(polygon((-0.46, -0.05), (0.46, -0.05), (0, 1.1)), "sand")]
    cone += [Part(stroke([(x, -0.05), (x / 2 - 0.12, 0.55)], 0.04), "wood") for x in (-0.2, 0.1, 0.4)]
    scoops = [Part(ellipse(0, -0.28, 0.56, 0.48))]
    if two:
        scoops.insert(0, Part(ellipse(0, -0.85, 0.44, 0.42), "light"))
    drips = [Part(ellipse(x, 0.02, 0.15, 0.14)) for x in (-0.34, -0.05, 0.28)]
    return [*cone, *scoops, *drips]


def cake(rng: Rng) -> Drawing:
    h = rng.uniform(0.5, 0.7)
    candles = [Part(rect(x - 0.035, -h - 0.4, x + 0.035, -h), "white") for x in (-0.4, 0.0, 0.4)]
    flames = [Part(ellipse(x, -h - 0.48, 0.06, 0.11), "flame") for x in (-0.4, 0.0, 0.4)]
    icing = [Part(ellipse(x, -h + 0.22, 0.16, 0.2), "light") for x in np.linspace(-0.66, 0.66, 5)]
    return [
        *candles, *flames, Part(ellipse(0, 0.55, 1.05, 0.14), "metal"), Part(rect(-0.82, -h, 0.82, 0.52)),
        Part(rect(-0.82, -0.02, 0.82, 0.12), "dark"), Part(rounded(-0.86, -h - 0.05, 0.86, -h + 0.24, 0.1), "light"),
        *icing,
    ]  # fmt: skip


def mushroom(rng: Rng) -> Drawing:
    h = rng.uniform(0.75, 0.95)
    spots = [
        Part(ellipse(x, y, r), "white")
        for x, y, r in ((-0.45, -0.35, 0.13), (0.05, -0.55, 0.16), (0.5, -0.3, 0.12))
    ]
    stem = smooth([(-0.24, -0.1), (0.24, -0.1), (0.26, 0.5), (0.34, 0.88), (-0.34, 0.88), (-0.26, 0.5)])
    return [
        Part(stem, "sand"),
        Part(ellipse(0, 0, 0.98, h, 180, 360)),
        Part(ellipse(0, 0, 0.98, 0.14), "dark"),
        *spots,
    ]
