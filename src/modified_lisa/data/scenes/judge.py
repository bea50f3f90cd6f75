"""Whether something is true of the objects of a scene: True, False, or None where people could disagree.

A query is only asked when everything it rests on is True or False. Positions are those of the visible
boxes, in pixels, x to the right and y down.
"""

from collections.abc import Callable, Sequence
from math import hypot

from modified_lisa.data.scenes.facts import FACTS, known
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.data.scenes.scene import Scene, SceneObject

__all__ = [
    "SIDES",
    "between",
    "covers",
    "extreme",
    "gap",
    "has_colour",
    "has_fact",
    "has_texture",
    "is_kind",
    "larger",
    "metric",
    "nearest",
    "on_side",
    "ordered",
    "same_colour",
]

AREA_MARGIN = 1.3
"""Of two sizes the larger must be this many times the smaller."""
LENGTH_MARGIN = 1.2
POSITION_MARGIN = 0.08
"""Of two positions, the least difference as a share of the image's width or height."""
_MARKED = {  # kinds with marks of their own that could pass for a pattern
    "striped": (
        "ball",
        "drum",
        "cake",
        "pencil",
        "ice cream",
        "ladder",
        "cactus",
        "snail",
        "hat",
        "book",
        "bottle",
    ),
    "spotted": ("mushroom", "butterfly", "snowman", "teddy bear", "clock", "phone"),
    "checked": ("kite", "phone", "ball", "house"),
}

Verdict = bool | None


def is_kind(thing: SceneObject, kind: str) -> Verdict:
    """None for kinds that look alike."""
    if thing.kind == kind:
        return True
    return None if kind in KINDS[thing.kind].alike or thing.kind in KINDS[kind].alike else False


def has_colour(thing: SceneObject, colour: str) -> Verdict:
    return True if thing.colour == colour else None if colour in thing.also else False


def has_texture(thing: SceneObject, texture: str) -> Verdict:
    """None for kinds whose own drawing looks like the texture, and for specks that could be spots."""
    if thing.texture == texture:
        return True
    marked = thing.kind in _MARKED[texture]
    return None if marked or (thing.texture == "noisy" and texture == "spotted") else False


def has_fact(thing: SceneObject, fact: str) -> Verdict:
    return known(thing.kind, FACTS[fact].name)


def same_colour(a: SceneObject, b: SceneObject) -> Verdict:
    return True if a.colour == b.colour else None if a.colour in b.also or b.colour in a.also else False


def larger(a: SceneObject, b: SceneObject, margin: float = AREA_MARGIN) -> Verdict:
    """By visible area, whole area and box alike: True, False, or None if they do not agree or it is close."""
    signs = set()
    for x, y, least in (
        (a.area, b.area, margin),
        (a.whole_area, b.whole_area, margin),
        (_box_area(a), _box_area(b), 1.1),
    ):
        signs.add(True if x >= least * y else False if y >= least * x else None)
    return signs.pop() if len(signs) == 1 else None


def _box_area(thing: SceneObject) -> int:
    left, top, right, bottom = thing.box
    return (right - left) * (bottom - top)


SIDES = {"left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1)}
"""For each side: the axis (0 is x) and the direction along it."""


def on_side(scene: Scene, a: SceneObject, b: SceneObject, side: str) -> Verdict:
    """Whether ``a`` is on that side of ``b``: True when also their boxes are clear of the other's middle."""
    axis, sign = SIDES[side]
    extent = scene.width if axis == 0 else scene.height
    ahead = sign * (a.centre[axis] - b.centre[axis]) / extent
    if ahead <= -0.03:
        return False
    near_edge = a.box[axis] if sign > 0 else a.box[axis + 2]
    far_edge = b.box[axis + 2] if sign > 0 else b.box[axis]
    clear = sign * (near_edge - b.centre[axis]) >= 0 and sign * (a.centre[axis] - far_edge) >= 0
    return True if ahead >= POSITION_MARGIN and clear else None


def covers(a: SceneObject, b: SceneObject, index_of_a: int) -> Verdict:
    """Whether ``a`` hides a part of ``b``."""
    share = b.hidden_by.get(index_of_a, 0.0)
    return True if share >= 0.08 else None if share > 0 else False


def gap(a: SceneObject, b: SceneObject) -> float:
    """Pixels between the two boxes; 0 when they touch."""
    dx = max(a.box[0] - b.box[2], b.box[0] - a.box[2], 0)
    dy = max(a.box[1] - b.box[3], b.box[1] - a.box[3], 0)
    return hypot(dx, dy)


def _apart(a: SceneObject, b: SceneObject) -> float:
    return hypot(a.centre[0] - b.centre[0], a.centre[1] - b.centre[1])


def nearest(
    scene: Scene, members: Sequence[int], to: int, *, close: bool = False, far: bool = False
) -> int | None:
    """The member nearest to object ``to`` (or farthest): by middles and by edges alike, with a clear margin.

    With ``close`` it must also be near enough to be called "next to", and the rest must not be.
    """
    things, target = scene.objects, scene.objects[to]
    others = [index for index in members if index != to]
    if len(others) < 2:
        return None
    sign = -1 if far else 1
    order = sorted(others, key=lambda index: sign * _apart(things[index], target))
    first, second = (things[index] for index in order[:2])
    small, big = sorted((_apart(first, target), _apart(second, target)))
    if big < 1.25 * small:
        return None
    gaps = [gap(things[index], target) for index in order]
    diagonal = hypot(scene.width, scene.height)
    rest = max(gaps[1:]) if far else min(gaps[1:])
    if sign * (rest - gaps[0]) < 0.04 * diagonal:
        return None
    if close and (gaps[0] > 0.14 * diagonal or rest < 0.1 * diagonal + gaps[0]):
        return None
    return order[0]


def between(a: SceneObject, b: SceneObject, thing: SceneObject) -> Verdict:
    """Whether ``thing`` is between ``a`` and ``b``."""
    (ax, ay), (bx, by), (x, y) = a.centre, b.centre, thing.centre
    length = hypot(bx - ax, by - ay)
    if length == 0:
        return None
    along = ((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / length**2
    aside = abs((x - ax) * (by - ay) - (y - ay) * (bx - ax)) / length**2
    if 0.25 <= along <= 0.75 and aside <= 0.16:
        return True
    return False if not 0.03 <= along <= 0.97 or aside >= 0.4 else None


def metric(scene: Scene, name: str) -> tuple[Callable[[SceneObject], float], float, float]:
    """A number to rank objects by, (greatest first), the least ratio and the least difference between two ranks."""
    w, h = scene.width, scene.height
    diagonal = hypot(w, h)

    def corner(x: float, y: float) -> Callable[[SceneObject], float]:
        return lambda thing: -hypot(thing.centre[0] - x, thing.centre[1] - y) / diagonal

    table: dict[str, tuple[Callable[[SceneObject], float], float, float]] = {
        "tallest": (lambda thing: thing.box[3] - thing.box[1], LENGTH_MARGIN, 0),
        "widest": (lambda thing: thing.box[2] - thing.box[0], LENGTH_MARGIN, 0),
        "leftmost": (lambda thing: -thing.centre[0] / w, 0, POSITION_MARGIN),
        "rightmost": (lambda thing: thing.centre[0] / w, 0, POSITION_MARGIN),
        "topmost": (lambda thing: -thing.centre[1] / h, 0, POSITION_MARGIN),
        "lowest": (lambda thing: thing.centre[1] / h, 0, POSITION_MARGIN),
        "central": (corner(w / 2, h / 2), 0, 0.09),
        "top left": (corner(0, 0), 0, 0.1),
        "top right": (corner(w, 0), 0, 0.1),
        "bottom left": (corner(0, h), 0, 0.1),
        "bottom right": (corner(w, h), 0, 0.1),
    }
    return table[name]


_EDGES = {"leftmost": (0, -1), "rightmost": (2, 1), "topmost": (1, -1), "lowest": (3, 1)}


def ordered(scene: Scene, members: Sequence[int], name: str, upto: int) -> list[int] | None:
    """The first ``upto`` members by a superlative, when each is clearly ahead of the next; else None."""
    things = scene.objects
    if len(members) <= upto:
        return None
    if name in ("largest", "smallest"):
        order = sorted(members, key=lambda index: things[index].area, reverse=name == "largest")
        for place in range(upto):
            for later in order[place + 1 :]:
                if larger(things[order[place]], things[later]) is not (name == "largest"):
                    return None
        return order[:upto]
    value, ratio, difference = metric(scene, name)
    order = sorted(members, key=lambda index: -value(things[index]))
    for place in range(upto):
        a, b = things[order[place]], things[order[place + 1]]
        if value(a) - value(b) < difference or (ratio and value(a) < ratio * value(b)):
            return None
        if name in _EDGES:
            edge, sign = _EDGES[name]
            if any(sign * (a.box[edge] - things[later].box[edge]) <= 0 for later in order[place + 1 :]):
                return None
    if name == "central" and abs(value(things[order[0]])) > 0.16:
        return None  # nothing is really near the middle
    if " " in name and abs(value(things[order[0]])) > 0.35:
        return None  # nothing is really in that corner
    return order[:upto]


def extreme(scene: Scene, members: Sequence[int], name: str) -> int | None:
    """The one member that a superlative picks, if it is clear; None otherwise."""
    found = ordered(scene, members, name, 1)
    return found[0] if found else None
