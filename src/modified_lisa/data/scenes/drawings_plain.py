"""Drawings of plain shapes, toys, tools and furniture."""

import numpy as np

from modified_lisa.data.scenes.shapes import (
    Drawing,
    Part,
    arc,
    ellipse,
    flip,
    polygon,
    rect,
    regular,
    rounded,
    smooth,
    star,
    stroke,
    turn,
)

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


def chair(rng: Rng) -> Drawing:
    back = rng.uniform(-1.0, -0.85)
    slats = [Part(rect(-0.5, y, 0.36, y + 0.13), "dark") for y in (back + 0.14, back + 0.44)]
    legs = [
        Part(rect(x, 0.1, x + 0.13, 1.0), tone)
        for x, tone in ((-0.34, "dark"), (0.42, "dark"), (-0.58, "main"), (0.62, "main"))
    ]
    return [
        Part(rect(-0.58, back, -0.42, 0.2)),
        Part(rect(0.3, back, 0.44, 0.1)),
        *slats,
        *legs,
        Part(polygon((-0.5, 0.0), (0.5, 0.0), (0.78, 0.24), (-0.62, 0.24)), "main"),
    ]


def table(rng: Rng) -> Drawing:
    h, low = rng.uniform(0.12, 0.2), rng.uniform(0.6, 0.8)
    legs = [
        Part(rect(x, -0.4, x + 0.13, low), tone)
        for x, tone in ((-0.6, "dark"), (0.47, "dark"), (-0.9, "main"), (0.77, "main"))
    ]
    return [
        *legs,
        Part(polygon((-0.75, -0.72), (0.75, -0.72), (1.05, -0.42), (-1.05, -0.42)), "light"),
        Part(rect(-1.05, -0.42, 1.05, -0.42 + h)),
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
        loop, hole = ellipse(*centre, r, r * 1.15), ellipse(*centre, r * 0.5, r * 0.62)
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
