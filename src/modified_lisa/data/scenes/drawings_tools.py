"""Drawings of tools, instruments and what else is held in the hand.

Each function takes the random generator and returns parts, back to front, with its own variation.
"""

import numpy as np

from modified_lisa.data.scenes.shapes import (
    Drawing,
    Part,
    ellipse,
    flip,
    polygon,
    rect,
    rounded,
    smooth,
    stroke,
    turn,
)

Rng = np.random.Generator


def key(rng: Rng) -> Drawing:
    r, teeth = rng.uniform(0.3, 0.38), int(rng.integers(2, 4))
    parts = [
        Part(ellipse(-0.62, 0, r)),
        Part(ellipse(-0.66, 0, r * 0.5), "hole"),
        Part(rect(-0.35, -0.08, 1, 0.08)),
    ]
    for i in range(teeth):
        x = 0.9 - 0.22 * i
        parts.append(Part(rect(x - 0.07, 0.05, x + 0.07, rng.uniform(0.25, 0.38)), "main"))
    return parts


def ladder(rng: Rng) -> Drawing:
    w, rungs = rng.uniform(0.3, 0.4), int(rng.integers(4, 7))
    parts = [Part(rect(-w, y - 0.05, w, y + 0.05), "dark") for y in np.linspace(-0.75, 0.75, rungs)]
    return [*parts, Part(rect(-w - 0.08, -1, -w + 0.06, 1)), Part(rect(w - 0.06, -1, w + 0.08, 1))]


def pencil(rng: Rng) -> Drawing:
    w = rng.uniform(0.13, 0.19)
    return [
        Part(rect(-0.75, -w, 0.6, w)),
        Part(rect(-0.75, -w, 0.6, -w * 0.35), "dark"),
        Part(rect(-0.86, -w, -0.72, w), "metal"),
        Part(rounded(-1.05, -w, -0.84, w, 0.08), "skin"),
        Part(polygon((0.6, -w), (1.02, 0), (0.6, w)), "sand"),
        Part(polygon((0.88, -w * 0.33), (1.02, 0), (0.88, w * 0.33)), "black"),
    ]


def bell(rng: Rng) -> Drawing:
    w = rng.uniform(0.72, 0.85)
    body = smooth(
        [(0, -0.8), (0.32, -0.66), (0.48, 0.1), (w, 0.55), (0, 0.6), (-w, 0.55), (-0.48, 0.1), (-0.32, -0.66)]
    )
    return [
        Part(ellipse(0, 0.66, 0.2), "dark"),
        Part(ellipse(0, -0.85, 0.15), "dark"),
        Part(body),
        Part(rounded(-w - 0.05, 0.46, w + 0.05, 0.64, 0.08), "dark"),
    ]


def guitar(rng: Rng) -> Drawing:
    half = [(0.0, 0.0), (0.3, 0.02), (0.36, 0.2), (0.25, 0.38), (0.46, 0.65), (0.36, 0.95), (0.0, 1.02)]
    body = smooth([*half, *[(-x, y) for x, y in half[-2:0:-1]]])
    return [
        Part(rect(-0.07, -0.85, 0.07, 0.2), "wood"),
        Part(polygon((-0.13, -1.12), (0.13, -1.12), (0.09, -0.8), (-0.09, -0.8)), "dark"),
        Part(body),
        Part(ellipse(0, 0.4, rng.uniform(0.11, 0.14)), "black"),
        Part(rect(-0.18, 0.72, 0.18, 0.8), "black"),
    ]


def drum(rng: Rng) -> Drawing:
    h = rng.uniform(0.45, 0.6)
    sticks = [Part(turn(rect(-0.04, -h - 0.75, 0.04, -h + 0.1), a, 0, -h), "sand") for a in (-38.0, 38.0)]
    zigzag = [Part(stroke([(x, -h * 0.6), (x + 0.4, h * 0.8)], 0.05), "white") for x in (-0.8, -0.2, 0.4)]
    return [
        Part(rect(-0.9, -h, 0.9, h)),
        Part(ellipse(0, h, 0.9, 0.22)),
        *zigzag,
        Part(ellipse(0, -h, 0.9, 0.22), "light"),
        *sticks,
    ]


def spoon(rng: Rng) -> Drawing:
    return [
        Part(stroke([(-0.2, 0), (1, 0)], rng.uniform(0.13, 0.18))),
        Part(ellipse(-0.6, 0, 0.44, rng.uniform(0.27, 0.33))),
        Part(ellipse(-0.6, 0, 0.32, 0.19), "dark"),
    ]


def hammer(rng: Rng) -> Drawing:
    w = rng.uniform(0.11, 0.15)
    claw = smooth([(-0.1, -0.95), (0.4, -0.98), (0.7, -0.72), (0.34, -0.74), (-0.1, -0.62)])
    return [
        Part(rounded(-w, -0.7, w, 1.0, 0.08)),
        Part(rect(-w, 0.3, w, 0.96), "dark"),
        Part(claw, "metal"),
        Part(rect(-0.52, -1.0, 0.12, -0.58), "metal"),
        Part(rect(-0.62, -1.05, -0.42, -0.53), "metal"),
    ]


def scissors(rng: Rng) -> Drawing:
    a, r = rng.uniform(14, 24), rng.uniform(0.27, 0.31)
    parts: Drawing = []
    blade = turn(polygon((-0.08, 0.1), (0.1, 0.1), (0.03, -1.0), (-0.08, -0.7)), a)
    handle = turn(rect(-0.08, -0.05, 0.08, 0.45), a + 4)
    centre = turn(np.array([[0.0, 0.68]]), a + 9)[0]
    for mirror in (False, True):
        loop, hole = (
            ellipse(centre[0], centre[1], r, r * 1.15),
            ellipse(centre[0], centre[1], r * 0.5, r * 0.62),
        )
        for outline, tone in ((blade, "metal"), (handle, "main"), (loop, "main"), (hole, "hole")):
            parts.append(Part(flip(outline) if mirror else outline, tone))
    return [*parts, Part(ellipse(0, 0.02, 0.07), "black")]


def saw(rng: Rng) -> Drawing:
    n = int(rng.integers(8, 12))
    xs = np.linspace(1.1, -0.35, 2 * n + 1)
    teeth = [(float(x), 0.34 if i % 2 else 0.22) for i, x in enumerate(xs)]
    blade = polygon((-0.35, -0.25), (1.1, 0.02), *teeth)
    grip = smooth([(-0.4, -0.36), (-0.2, 0.0), (-0.3, 0.45), (-0.75, 0.52), (-1.0, 0.2), (-0.9, -0.25)])
    return [Part(blade, "metal"), Part(grip), Part(ellipse(-0.62, 0.1, 0.16, 0.2), "hole")]


def brush(rng: Rng) -> Drawing:
    bristles = [Part(stroke([(x * 0.55, 0.3), (x, 1.0)], 0.09), "sand") for x in np.linspace(-0.42, 0.42, 8)]
    return [
        Part(rounded(-0.09, -1.15, 0.09, 0.1, 0.08)),
        *bristles,
        Part(polygon((-0.16, -0.05), (0.16, -0.05), (0.4, 0.45), (-0.4, 0.45))),
    ]
