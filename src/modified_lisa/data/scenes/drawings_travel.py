"""Drawings of what drives, floats or flies.

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
