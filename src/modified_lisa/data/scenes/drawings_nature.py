"""Drawings of living things, the sky and a snowman.

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
    star,
    stroke,
    turn,
)

Rng = np.random.Generator


def fish(rng: Rng) -> Drawing:
    h, tail = rng.uniform(0.4, 0.55), rng.uniform(0.35, 0.5)
    body = smooth(
        [
            (-0.9, 0),
            (-0.5, -h * 0.85),
            (0.05, -h * 0.9),
            (0.62, -0.12),
            (0.62, 0.12),
            (0.05, h * 0.9),
            (-0.5, h * 0.85),
        ]
    )
    return [
        Part(polygon((0.5, 0), (1.05, -tail), (0.9, 0), (1.05, tail)), "dark"),
        Part(smooth([(-0.3, -h * 0.7), (0.1, -h - 0.25), (0.3, -h * 0.5)]), "dark"),
        Part(body),
        Part(smooth([(-0.15, 0.05), (0.25, -0.02), (0.2, 0.25)]), "dark"),
        Part(ellipse(-0.58, -0.12, 0.11), "white"),
        Part(ellipse(-0.6, -0.12, 0.06), "black"),
    ]


def bird(rng: Rng) -> Drawing:
    wing = smooth([(-0.15, -0.12), (0.3, -0.2), (0.75, 0.12), (0.2, 0.35), (-0.1, 0.2)])
    legs = [Part(stroke([(x, 0.4), (x + 0.02, 0.85)], 0.06), "orange") for x in (-0.05, 0.18)]
    return [
        *legs,
        Part(polygon((0.5, -0.1), (1.15, rng.uniform(-0.3, 0.05)), (1.1, 0.22), (0.5, 0.3)), "dark"),
        Part(ellipse(0.1, 0.1, 0.66, 0.46)),
        Part(ellipse(-0.5, -0.4, 0.34)),
        Part(polygon((-0.78, -0.5), (-1.1, -0.36), (-0.78, -0.28)), "orange"),
        Part(wing, "dark"),
        Part(ellipse(-0.58, -0.46, 0.09), "white"),
        Part(ellipse(-0.6, -0.46, 0.05), "black"),
    ]


def cat(rng: Rng) -> Drawing:
    tail = stroke([(0.45, 0.75), (0.85, 0.7), (0.95, 0.3), (0.78, rng.uniform(-0.1, 0.1))], 0.16)
    ear = polygon((-0.42, -0.55), (-0.36, -1.02), (-0.05, -0.75))
    eyes = [
        (shape, tone)
        for x in (-0.17, 0.17)
        for shape, tone in (
            (ellipse(x, -0.52, 0.085, 0.1), "white"),
            (ellipse(x, -0.52, 0.04, 0.09), "black"),
        )
    ]
    whiskers = [stroke([(s * 0.12, -0.36), (s * 0.5, y)], 0.03) for s in (-1, 1) for y in (-0.44, -0.3)]
    return [
        Part(tail, "dark"), Part(smooth([(-0.25, -0.2), (0.25, -0.2), (0.55, 0.5), (0.5, 0.9), (-0.5, 0.9), (-0.55, 0.5)])),
        Part(ear), Part(flip(ear)), Part(ellipse(0, -0.48, 0.45, 0.38)), *[Part(*eye) for eye in eyes],
        Part(polygon((-0.06, -0.38), (0.06, -0.38), (0, -0.31)), "skin"), *[Part(line, "black") for line in whiskers],
        Part(ellipse(-0.18, 0.86, 0.16, 0.1), "light"), Part(ellipse(0.18, 0.86, 0.16, 0.1), "light"),
    ]  # fmt: skip


def butterfly(rng: Rng) -> Drawing:
    upper = smooth([(0.04, -0.1), (0.35, -0.75), (0.95, -0.8), (0.95, -0.25), (0.5, 0.05)])
    lower = smooth([(0.04, 0.05), (0.5, 0.08), (0.78, 0.4), (0.5, rng.uniform(0.75, 0.9)), (0.15, 0.5)])
    spots = [ellipse(0.65, -0.45, 0.15), ellipse(0.47, 0.42, 0.11)]
    feelers = [stroke([(0.02, -0.45), (0.12, -0.75), (0.28, -0.95)], 0.05)]
    parts = [Part(shape, "black") for line in feelers for shape in (line, flip(line))]
    parts += [Part(shape, tone) for w, tone in ((upper, "main"), (lower, "main")) for shape in (w, flip(w))]
    parts += [Part(shape, "light") for spot in spots for shape in (spot, flip(spot))]
    return [*parts, Part(ellipse(0, 0.05, 0.08, 0.55), "black")]


def snail(rng: Rng) -> Drawing:
    body = smooth([(-1.0, 0.75), (-0.95, -0.05), (-0.72, -0.15), (-0.6, 0.35), (0.5, 0.45), (1.1, 0.8)])
    horns = [Part(stroke([(-0.85, -0.05), (x, -0.45)], 0.06), "sand") for x in (-1.02, -0.72)]
    r = rng.uniform(0.56, 0.64)
    swirl = [Part(arc(0.18, 0.08, r * f, 0.07, a, a + 300), "dark") for f, a in ((0.68, 40.0), (0.35, 100.0))]
    return [*horns, Part(body, "sand"), Part(ellipse(0.18, 0.08, r)), *swirl]


def tree(rng: Rng) -> Drawing:
    trunk = Part(polygon((-0.12, 0.1), (0.12, 0.1), (0.17, 1), (-0.17, 1)), "wood")
    if rng.random() < 0.4:  # a fir
        tiers = ((-1.0, -0.35, 0.42), (-0.7, 0.1, 0.58), (-0.35, 0.55, 0.74))
        return [trunk, *[Part(polygon((0, top), (w, low), (-w, low))) for top, low, w in tiers[::-1]]]
    blobs = [(0, -0.55, 0.5), (-0.42, -0.2, 0.42), (0.42, -0.2, 0.42), (0, -0.1, 0.45)]
    shade = [Part(ellipse(-0.15, -0.5, 0.18, 0.14), "light"), Part(ellipse(0.35, -0.1, 0.16, 0.12), "dark")]
    return [trunk, *[Part(ellipse(x, y, r * rng.uniform(0.95, 1.1))) for x, y, r in blobs], *shade]


def flower(rng: Rng) -> Drawing:
    n = int(rng.integers(5, 8))
    leaf = smooth([(0.02, 0.65), (0.25, 0.35), (0.55, 0.3), (0.3, 0.62)])
    petals = [Part(turn(ellipse(0, -0.88, 0.23, 0.3), 360 / n * i, 0, -0.45)) for i in range(n)]
    stem = [
        Part(stroke([(0, -0.4), (0.03, 0.3), (0, 1.05)], 0.11), "green"),
        Part(leaf, "green"),
        Part(flip(leaf), "green"),
    ]
    return [*stem, *petals, Part(ellipse(0, -0.45, 0.21), "sand" if rng.random() < 0.5 else "dark")]


def leaf(rng: Rng) -> Drawing:
    w = rng.uniform(0.42, 0.55)
    blade = smooth(
        [
            (0, -1),
            (w * 0.8, -0.5),
            (w, 0.05),
            (w * 0.5, 0.5),
            (0, 0.7),
            (-w * 0.5, 0.5),
            (-w, 0.05),
            (-w * 0.8, -0.5),
        ]
    )
    veins = [
        Part(stroke([(0, y), (s * w * 0.7, y - 0.3)], 0.05), "dark")
        for s in (-1, 1)
        for y in (-0.3, 0.05, 0.4)
    ]
    return [
        Part(rect(-0.04, 0.5, 0.04, 1.05), "dark"),
        Part(blade),
        Part(rect(-0.03, -0.8, 0.03, 0.7), "dark"),
        *veins,
    ]


def cactus(rng: Rng) -> Drawing:
    arm = [rounded(-0.75, -0.35, -0.47, 0.28, 0.14), rounded(-0.75, 0.05, -0.1, 0.32, 0.13)]
    other = [move(flip(shape), 0, rng.uniform(-0.25, -0.1)) for shape in arm]
    ribs = [Part(rect(x, -0.75, x + 0.045, 0.55), "dark") for x in (-0.13, 0.09)]
    pot = [Part(polygon((-0.42, 0.6), (0.42, 0.6), (0.32, 1.05), (-0.32, 1.05)), "wood")]
    return [
        *[Part(shape) for shape in (*arm, *other)],
        Part(rounded(-0.24, -0.98, 0.24, 0.7, 0.24)),
        *ribs,
        *pot,
    ]


def moon(rng: Rng) -> Drawing:
    bite = rng.uniform(0.3, 0.5)
    return [Part(ellipse(0, 0, 1)), Part(ellipse(bite, -0.08, 0.85), "hole")]


def sun(rng: Rng) -> Drawing:
    n = int(rng.integers(8, 13))
    return [Part(star(n, 1, rng.uniform(0.6, 0.68)), "dark"), Part(ellipse(0, 0, 0.6))]


def cloud(rng: Rng) -> Drawing:
    puffs = ((-0.55, 0.1, 0.36), (-0.1, -0.18, 0.46), (0.42, -0.02, 0.4), (0.75, 0.2, 0.26))
    base = Part(rounded(-0.85, 0.08, 0.98, 0.46, 0.18))
    return [base, *[Part(ellipse(x, y, r * rng.uniform(0.92, 1.1))) for x, y, r in puffs]]


def snowman(rng: Rng) -> Drawing:
    eyes = [Part(ellipse(x, -0.62, 0.045), "black") for x in (-0.11, 0.11)]
    buttons = [Part(ellipse(0, y, 0.05), "black") for y in (-0.15, 0.05)]
    hat = [Part(rect(-0.22, -1.15, 0.22, -0.83), "black"), Part(rect(-0.36, -0.87, 0.36, -0.78), "black")]
    arms = [
        Part(stroke([(s * 0.3, -0.1), (s * 0.85, rng.uniform(-0.5, -0.2))], 0.06), "wood") for s in (-1, 1)
    ]
    return [
        *arms,
        Part(ellipse(0, 0.5, 0.56, 0.52)),
        Part(ellipse(0, -0.08, 0.42, 0.38)),
        Part(ellipse(0, -0.55, 0.3)),
        *eyes,
        Part(polygon((0, -0.56), (0.24, -0.5), (0, -0.46)), "orange"),
        *buttons,
        *hat,
    ]
