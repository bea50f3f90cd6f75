"""Drawings of what is found outdoors: living things, food, vehicles, buildings and the sky."""

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
    tips = [Part(ellipse(*outer[0], 0.1), "wood"), Part(ellipse(*outer[-1], 0.08), "wood")]
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


def wheel(x: float, y: float, r: float) -> Drawing:
    return [Part(ellipse(x, y, r), "black"), Part(ellipse(x, y, r * 0.5), "metal")]


def car(rng: Rng) -> Drawing:
    r, roof = rng.uniform(0.2, 0.25), rng.uniform(-0.5, -0.42)
    cabin = polygon((-0.62, -0.05), (-0.35, roof), (0.35, roof), (0.66, -0.05))
    panes = [
        polygon((-0.48, -0.07), (-0.29, roof + 0.09), (-0.04, roof + 0.09), (-0.04, -0.07)),
        polygon((0.05, -0.07), (0.05, roof + 0.09), (0.3, roof + 0.09), (0.5, -0.07)),
    ]
    return [
        Part(cabin), Part(rounded(-1.02, -0.1, 1.02, 0.36, 0.14)), *[Part(pane, "glass") for pane in panes],
        Part(rect(-1.0, 0.02, -0.9, 0.14), "flame"), Part(rect(-0.9, 0.27, 0.9, 0.36), "dark"),
        *wheel(-0.55, 0.36, r), *wheel(0.55, 0.36, r),
    ]  # fmt: skip


def bicycle(rng: Rng) -> Drawing:
    r = rng.uniform(0.42, 0.48)
    parts: Drawing = []
    for x in (-0.62, 0.62):
        parts += [Part(ellipse(x, 0.3, r), "black"), Part(ellipse(x, 0.3, r - 0.1), "hole")]
    joints = {
        "back": (-0.62, 0.3),
        "crank": (-0.05, 0.3),
        "seat": (-0.22, -0.25),
        "head": (0.42, -0.3),
        "front": (0.62, 0.3),
    }
    bars = (
        ("back", "crank"),
        ("back", "seat"),
        ("seat", "crank"),
        ("seat", "head"),
        ("crank", "head"),
        ("head", "front"),
    )
    parts += [Part(stroke([joints[a], joints[b]], 0.13)) for a, b in bars]
    top = [
        Part(rounded(-0.42, -0.4, -0.06, -0.27, 0.06), "black"),
        Part(stroke([(0.42, -0.3), (0.38, -0.5), (0.62, -0.55)], 0.1), "dark"),
    ]
    return [*parts, Part(ellipse(-0.05, 0.3, 0.11), "dark"), *top]


def boat(rng: Rng) -> Drawing:
    sail = rng.uniform(0.5, 0.65)
    return [
        Part(rect(-0.04, -1, 0.04, 0.4), "wood"),
        Part(polygon((0.08, -0.95), (sail + 0.15, 0.28), (0.08, 0.28)), "white"),
        Part(polygon((-0.08, -0.75), (-sail, 0.28), (-0.08, 0.28)), "light"),
        Part(polygon((-0.95, 0.34), (0.95, 0.34), (0.62, 0.92), (-0.65, 0.92))),
        Part(polygon((-0.95, 0.34), (0.95, 0.34), (0.88, 0.48), (-0.88, 0.48)), "dark"),
    ]


def rocket(rng: Rng) -> Drawing:
    w = rng.uniform(0.28, 0.36)
    fin = polygon((w - 0.04, 0.15), (w + 0.35, 0.75), (w - 0.08, 0.6))
    body = smooth(
        [
            (0, -1.05),
            (w * 0.8, -0.5),
            (w, 0.1),
            (w * 0.75, 0.62),
            (-w * 0.75, 0.62),
            (-w, 0.1),
            (-w * 0.8, -0.5),
        ]
    )
    fire = smooth([(-0.16, 0.6), (0.16, 0.6), (0.1, 0.85), (0, 1.12), (-0.1, 0.85)])
    return [
        Part(fire, "flame"),
        Part(fin, "dark"),
        Part(flip(fin), "dark"),
        Part(body),
        Part(ellipse(0, -0.3, w * 0.52), "dark"),
        Part(ellipse(0, -0.3, w * 0.38), "glass"),
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


def balloon(rng: Rng) -> Drawing:
    string = stroke([(0, 0.5), (0.08, 0.7), (-0.06, 0.95), (0.04, 1.25)], 0.06)
    shine = turn(ellipse(-0.28, -0.55, 0.1, 0.2), -30, -0.28, -0.55)
    return [
        Part(string, "black"),
        Part(polygon((0, 0.4), (0.12, 0.6), (-0.12, 0.6)), "dark"),
        Part(ellipse(0, -0.22, 0.62, rng.uniform(0.7, 0.76))),
        Part(shine, "white"),
    ]


def kite(rng: Rng) -> Drawing:
    y = rng.uniform(-0.35, -0.2)
    tail = stroke([(0, 0.7), (0.14, 0.95), (-0.1, 1.2), (0.1, 1.5)], 0.06)
    bows = [
        Part(
            polygon((x - 0.16, v - 0.1), (x + 0.16, v + 0.1), (x + 0.16, v - 0.1), (x - 0.16, v + 0.1)),
            "dark",
        )
        for x, v in ((0.1, 0.98), (-0.08, 1.24))
    ]
    return [
        Part(tail, "black"),
        *bows,
        Part(polygon((0, -0.95), (0.66, y), (0, 0.72), (-0.66, y))),
        Part(polygon((0, -0.95), (0.66, y), (0, y)), "dark"),
        Part(polygon((-0.66, y), (0, y), (0, 0.72)), "light"),
    ]


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
