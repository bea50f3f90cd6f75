"""Drawings of things of the house and what people wear.

Each function takes the random generator and returns parts, back to front, with its own variation.
"""

import numpy as np

from modified_lisa.data.scenes.shapes import (
    Drawing,
    Part,
    arc,
    ellipse,
    flip,
    move,
    polygon,
    rect,
    rounded,
    smooth,
    turn,
)

Rng = np.random.Generator


def cup(rng: Rng) -> Drawing:
    w, taper = rng.uniform(0.6, 0.8), rng.uniform(0.7, 1.0)
    ring = ellipse(w, 0.0, 0.42, 0.45)
    hole = ellipse(w, 0.0, 0.23, 0.26)
    body = polygon((-w, -0.75), (w, -0.75), (w * taper, 0.8), (-w * taper, 0.8))
    return [
        Part(ring, "dark"),
        Part(hole, "hole"),
        Part(body),
        Part(ellipse(0, 0.8, w * taper, 0.1)),
        Part(ellipse(0, -0.75, w, 0.17), "light"),
        Part(ellipse(0, -0.72, w * 0.85, 0.11), "coffee"),
    ]


def bottle(rng: Rng) -> Drawing:
    w, neck, shoulder = rng.uniform(0.28, 0.4), rng.uniform(0.1, 0.15), rng.uniform(-0.4, -0.1)
    body = polygon(
        (-neck, -0.9), (neck, -0.9), (neck, shoulder - 0.2), (w, shoulder + 0.1), (w, 0.95), (w - 0.06, 1),
        (0.06 - w, 1), (-w, 0.95), (-w, shoulder + 0.1), (-neck, shoulder - 0.2),
    )  # fmt: skip
    return [
        Part(body),
        Part(rect(-neck - 0.04, -1.05, neck + 0.04, -0.86), "dark"),
        Part(rect(-w, shoulder + 0.35, w, shoulder + 0.75), "white"),
        Part(rect(-w * 0.7, shoulder + 0.5, w * 0.7, shoulder + 0.58), "dark"),
    ]


def bucket(rng: Rng) -> Drawing:
    w = rng.uniform(0.75, 0.9)
    return [
        Part(arc(0, -0.45, w * 0.93, 0.09, 180, 360), "metal"),
        Part(polygon((-w, -0.45), (w, -0.45), (w * 0.68, 0.9), (-w * 0.68, 0.9))),
        Part(ellipse(0, 0.9, w * 0.68, 0.1)),
        Part(ellipse(0, -0.45, w, 0.16), "light"),
        Part(ellipse(0, -0.43, w * 0.87, 0.11), "dark"),
    ]


def box(rng: Rng) -> Drawing:
    d, h = rng.uniform(0.3, 0.45), rng.uniform(0.75, 1.1)
    return [
        Part(polygon((-0.8, -h + 0.4), (-0.8 + d, -h), (0.8 + d, -h), (0.8, -h + 0.4)), "light"),
        Part(polygon((0.8, -h + 0.4), (0.8 + d, -h), (0.8 + d, 0.45), (0.8, 0.85)), "dark"),
        Part(rect(-0.8, -h + 0.4, 0.8, 0.85)),
        Part(rect(-0.12, -h + 0.4, 0.12, 0.85), "light"),
    ]


def present(rng: Rng) -> Drawing:
    bow = smooth([(0, -0.55), (-0.2, -0.85), (-0.55, -0.9), (-0.5, -0.6), (-0.2, -0.5)])
    ribbon = str(rng.choice(["white", "light"]))
    return [
        Part(rect(-0.75, -0.35, 0.75, 0.85)),
        Part(rect(-0.85, -0.55, 0.85, -0.25), "dark"),
        Part(rect(-0.12, -0.55, 0.12, 0.85), ribbon),
        Part(bow, ribbon),
        Part(flip(bow), ribbon),
    ]


def umbrella(rng: Rng) -> Drawing:
    h = rng.uniform(0.75, 0.95)
    canopy: list[tuple[float, float]] = [(float(x), float(y)) for x, y in ellipse(0, 0, 1, h, 180, 360, 30)]
    scallops = [
        (float(x), float(y))
        for i in range(4)
        for x, y in ellipse(0.75 - 0.5 * i, 0, 0.25, -0.13, 0, 180, 8)[1:]
    ]
    pole = [
        Part(rect(-0.05, -h - 0.1, 0.05, 0.85), "metal"),
        Part(arc(0.17, 0.83, 0.18, 0.11, 0, 180), "wood"),
    ]
    ribs = polygon((0, -h), (0.28, -0.1), (-0.28, -0.1))
    return [*pole, Part(polygon(*canopy, *scallops)), Part(ribs, "light")]


def lamp(rng: Rng) -> Drawing:
    w, top = rng.uniform(0.6, 0.8), rng.uniform(0.25, 0.4)
    return [
        Part(rect(-0.06, -0.1, 0.06, 0.85), "metal"),
        Part(ellipse(0, 0.88, 0.42, 0.12), "metal"),
        Part(ellipse(0, -0.02, 0.2, 0.18), "flame"),
        Part(polygon((-top, -0.95), (top, -0.95), (w, -0.02), (-w, -0.02))),
        Part(rect(-w, -0.08, w, 0.0), "dark"),
    ]


def candle(rng: Rng) -> Drawing:
    w, h = rng.uniform(0.2, 0.3), rng.uniform(-0.35, -0.15)
    flame = smooth([(0, h - 0.65), (0.15, h - 0.28), (0, h - 0.1), (-0.15, h - 0.28)])
    return [
        Part(rect(-0.025, h - 0.15, 0.025, h), "black"),
        Part(flame, "flame"),
        Part(rect(-w, h, w, 0.85)),
        Part(ellipse(0, h, w, 0.07), "light"),
        Part(ellipse(0, 0.86, w * 2.0, 0.14), "metal"),
    ]


def clock(rng: Rng) -> Drawing:
    hour, minute = rng.uniform(0, 360, 2)
    parts = [Part(ellipse(0, 0, 1)), Part(ellipse(0, 0, 0.72), "white")]
    parts += [Part(turn(rect(-0.035, -0.68, 0.035, -0.52), 30.0 * i), "black") for i in range(12)]
    hands = [(hour, 0.36, 0.06), (minute, 0.55, 0.04)]
    parts += [Part(turn(rect(-w, -length, w, 0.08), angle), "black") for angle, length, w in hands]
    if rng.random() < 0.4:
        bells = [Part(ellipse(x, -0.93, 0.27), "dark") for x in (-0.62, 0.62)]
        feet = [Part(turn(rect(x - 0.08, 0.8, x + 0.08, 1.2), -x * 30), "dark") for x in (-0.5, 0.5)]
        parts = bells + feet + parts
    return parts


def book(rng: Rng) -> Drawing:
    if rng.random() < 0.5:  # closed, seen from the front
        return [
            Part(rect(-0.62, -0.86, 0.72, 0.92), "white"),
            Part(rect(-0.7, -0.9, 0.64, 0.86)),
            Part(rect(-0.7, -0.9, -0.52, 0.86), "dark"),
            Part(rect(-0.3, -0.6, 0.45, -0.4), "white"),
            Part(rect(-0.2, -0.3, 0.35, -0.2), "light"),
        ]
    left = polygon((0, -0.45), (-0.3, -0.58), (-0.95, -0.5), (-0.95, 0.55), (-0.3, 0.47), (0, 0.6))
    cover = polygon((-1.08, -0.42), (1.08, -0.42), (1.08, 0.7), (0, 0.76), (-1.08, 0.7))
    lines = [rect(-0.82, y, -0.2, y + 0.07) for y in (-0.3, -0.08, 0.14)]
    parts = [
        Part(cover),
        Part(left, "light"),
        Part(flip(left), "light"),
        Part(rect(-0.03, -0.45, 0.03, 0.7), "dark"),
    ]
    return parts + [Part(shape, "dark") for line in lines for shape in (line, flip(line))]


def envelope(rng: Rng) -> Drawing:
    h = rng.uniform(0.58, 0.72)
    return [
        Part(rect(-1, -h, 1, h)),
        Part(polygon((-1, h), (0, -0.02), (1, h)), "light"),
        Part(polygon((-1, -h), (0, 0.15), (1, -h)), "dark"),
    ]


def phone(rng: Rng) -> Drawing:
    w = rng.uniform(0.46, 0.54)
    icons = [
        Part(rounded(x - 0.09, y - 0.09, x + 0.09, y + 0.09, 0.03), "white")
        for x in (-0.25, 0.0, 0.25)
        for y in (-0.5, -0.22, 0.06)
    ]
    return [
        Part(rounded(-w, -1, w, 1, 0.14)),
        Part(rect(-w + 0.1, -0.74, w - 0.1, 0.66), "black"),
        *icons,
        Part(ellipse(0, 0.83, 0.09), "white"),
    ]


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


def glasses(rng: Rng) -> Drawing:
    r = rng.uniform(0.4, 0.46)
    rims = [Part(ellipse(x, 0, r)) for x in (-0.54, 0.54)]
    lenses = [Part(ellipse(x, 0, r - 0.13), "glass") for x in (-0.54, 0.54)]
    arms = [Part(polygon((0.9, -0.14), (1.3, -0.36), (1.34, -0.26), (0.95, 0.02)))]
    return [*arms, Part(flip(arms[0].outline)), *rims, Part(arc(0, 0.02, 0.16, 0.11, 180, 360)), *lenses]


def hat(rng: Rng) -> Drawing:
    if rng.random() < 0.5:  # a top hat
        h = rng.uniform(0.9, 1.2)
        return [
            Part(rect(-0.5, -h + 0.5, 0.5, 0.5)),
            Part(ellipse(0, -h + 0.5, 0.5, 0.1), "light"),
            Part(rect(-0.5, 0.2, 0.5, 0.42), "white"),
            Part(ellipse(0, 0.5, 0.95, 0.16), "dark"),
        ]
    return [
        Part(ellipse(0, 0.3, 1.05, 0.24)),
        Part(ellipse(0, 0.2, 0.6, 0.75, 180, 360)),
        Part(rect(-0.6, 0.03, 0.6, 0.22), "white"),
    ]


def shoe(rng: Rng) -> Drawing:
    toe = rng.uniform(0.85, 1.0)
    upper = smooth(
        [
            (-0.85, -0.5),
            (-0.5, -0.42),
            (-0.15, -0.5),
            (0.2, -0.1),
            (toe - 0.1, 0.08),
            (toe, 0.38),
            (-0.9, 0.38),
            (-0.92, 0),
        ]
    )
    rows = [(0.0, -0.25), (0.14, -0.12), (0.28, 0.0)]
    laces = [Part(move(turn(rect(-0.14, -0.035, 0.14, 0.035), 50), x, y), "white") for x, y in rows]
    return [
        Part(upper),
        *laces,
        Part(rounded(-0.97, 0.34, toe + 0.06, 0.54, 0.08), "white"),
        Part(rect(-0.94, 0.47, toe + 0.02, 0.56), "dark"),
    ]


def shirt(rng: Rng) -> Drawing:
    w = rng.uniform(0.5, 0.6)
    half = [(0.2, -0.8), (w, -0.66), (1.0, -0.2), (0.76, 0.06), (w, -0.16), (w, 0.9)]
    body = polygon(*half, *[(-x, y) for x, y in half[::-1]])
    return [
        Part(body),
        Part(ellipse(0, -0.8, 0.2, 0.2, 0, 180), "dark"),
        Part(rect(-w, 0.78, w, 0.9), "dark"),
    ]


def house(rng: Rng) -> Drawing:
    eaves, door = rng.uniform(-0.2, 0.0), float(rng.choice([-0.25, 0.3]))
    chimney = [Part(rect(0.4, -0.85, 0.6, -0.3), "dark")] if rng.random() < 0.6 else []
    windows = [
        Part(rect(x - 0.17, 0.12, x + 0.17, 0.42), "glass")
        for x in ((door - 0.38, door + 0.38) if door < 0 else (-0.4, door + 0.35))
    ]
    return [
        *chimney, Part(rect(-0.8, eaves, 0.8, 0.95)), Part(polygon((-1, eaves), (0, -0.95), (1, eaves)), "dark"),
        Part(rect(door - 0.15, 0.42, door + 0.15, 0.95), "wood"), *windows,
    ]  # fmt: skip
