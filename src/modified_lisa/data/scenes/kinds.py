"""The catalogue of kinds of object: how each is drawn, what it is called and how it may stand.

What is true of a kind (what it is for, what it can do) is in `facts.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from modified_lisa.data.scenes import drawings_food as food
from modified_lisa.data.scenes import drawings_home as home
from modified_lisa.data.scenes import drawings_nature as nature
from modified_lisa.data.scenes import drawings_plain as plain
from modified_lisa.data.scenes import drawings_tools as tools
from modified_lisa.data.scenes import drawings_travel as travel
from modified_lisa.data.scenes.shapes import Drawing

__all__ = ["KINDS", "Kind"]


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of object."""

    name: str
    draw: Callable[[np.random.Generator], Drawing]
    """Parts, back to front, in a frame of about -1..1."""
    plural: str = ""
    other_names: tuple[tuple[str, str], ...] = ()
    """(singular, plural) of words that mean the same."""
    tilt: float = 12.0
    """How far it may be turned, in degrees either way."""
    alike: tuple[str, ...] = ()
    """Kinds that somebody might also call by this name: such a scene is not asked about by this name."""
    article: str = "a"

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        return ((self.name, self.plural), *self.other_names)


def _kind(name: str, draw: Callable[[np.random.Generator], Drawing], **more: object) -> Kind:
    plural = more.pop("plural", f"{name}s")
    article = "an" if name[0] in "aeiou" else "a"
    return Kind(name=name, draw=draw, plural=plural, article=article, **more)  # type: ignore[arg-type]


_ALL = (
    _kind("ball", plain.ball, tilt=180, alike=("circle", "balloon")),
    _kind("teddy bear", plain.teddy, other_names=(("teddy", "teddies"),)),
    _kind("kite", travel.kite, tilt=30, alike=()),
    _kind("balloon", travel.balloon, tilt=15, alike=("ball",)),
    _kind("drum", tools.drum),
    _kind("guitar", tools.guitar, tilt=40),
    _kind("bell", tools.bell),
    _kind("cup", home.cup, other_names=(("mug", "mugs"),), alike=("bucket",)),
    _kind("bottle", home.bottle, tilt=20),
    _kind("bucket", home.bucket, other_names=(("pail", "pails"),), alike=("cup",)),
    _kind("box", home.box, plural="boxes", tilt=6, alike=("present", "square")),
    _kind("present", home.present, other_names=(("gift", "gifts"),), tilt=8),
    _kind("umbrella", home.umbrella, tilt=25),
    _kind("key", tools.key, tilt=180),
    _kind("ladder", tools.ladder, tilt=20),
    _kind("lamp", home.lamp, alike=("candle",)),
    _kind("candle", home.candle, tilt=6),
    _kind("clock", home.clock, tilt=8),
    _kind("book", home.book, tilt=15),
    _kind("pencil", tools.pencil, tilt=180),
    _kind("envelope", home.envelope, tilt=15),
    _kind("phone", home.phone, tilt=15),
    _kind("chair", home.chair, tilt=5),
    _kind("table", home.table, tilt=4),
    _kind("hammer", tools.hammer, tilt=180),
    _kind("saw", tools.saw, tilt=30),
    _kind("pair of scissors", tools.scissors, plural="pairs of scissors", tilt=180),
    _kind("paintbrush", tools.brush, plural="paintbrushes", tilt=40),
    _kind("spoon", tools.spoon, tilt=180),
    _kind("pair of glasses", home.glasses, plural="pairs of glasses", tilt=15),
    _kind("hat", home.hat, tilt=15),
    _kind("shoe", home.shoe, tilt=15),
    _kind("shirt", home.shirt, tilt=12),
    _kind("apple", food.apple, tilt=20),
    _kind("banana", food.banana, tilt=45),
    _kind("carrot", food.carrot, tilt=60),
    _kind("ice cream", food.ice_cream, tilt=12),
    _kind("cake", food.cake, tilt=4),
    _kind("mushroom", food.mushroom, tilt=15, alike=("umbrella",)),
    _kind("fish", nature.fish, plural="fish", tilt=25),
    _kind("bird", nature.bird, tilt=15),
    _kind("cat", nature.cat, tilt=6),
    _kind("butterfly", nature.butterfly, plural="butterflies", tilt=40),
    _kind("snail", nature.snail, tilt=8),
    _kind("tree", nature.tree, tilt=5),
    _kind("flower", nature.flower, tilt=15),
    _kind("leaf", nature.leaf, plural="leaves", tilt=120),
    _kind("cactus", nature.cactus, plural="cacti", tilt=5),
    _kind("snowman", nature.snowman, plural="snowmen", tilt=6),
    _kind("house", home.house, tilt=4),
    _kind("car", travel.car, tilt=8),
    _kind("bicycle", travel.bicycle, other_names=(("bike", "bikes"),), tilt=8),
    _kind("boat", travel.boat, tilt=10),
    _kind("rocket", travel.rocket, tilt=40),
    _kind("moon", nature.moon, tilt=50),
    _kind("sun", nature.sun, tilt=180),
    _kind("cloud", nature.cloud, tilt=4),
    _kind("star", plain.star_shape, tilt=36),
    _kind("circle", plain.circle, tilt=0, alike=("ball", "ring", "clock", "moon", "sun")),
    _kind("square", plain.square, tilt=10, alike=("box", "present")),
    _kind("triangle", plain.triangle, tilt=15),
    _kind("hexagon", plain.hexagon, tilt=30),
    _kind("ring", plain.ring, tilt=180, alike=("circle",)),
    _kind("heart", plain.heart, tilt=15),
    _kind("cross", plain.cross, plural="crosses", tilt=12),
    _kind("arrow", plain.arrow, tilt=180),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
