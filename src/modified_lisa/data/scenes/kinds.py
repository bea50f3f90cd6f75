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
    _kind("teddy bear", plain.teddy, other_names=(("teddy", "teddies"), ("toy bear", "toy bears"))),
    _kind("kite", travel.kite, tilt=30, alike=()),
    _kind("balloon", travel.balloon, tilt=15, alike=("ball",)),
    _kind("drum", tools.drum),
    _kind("guitar", tools.guitar, tilt=40),
    _kind("bell", tools.bell),
    _kind(
        "cup",
        home.cup,
        other_names=(
            ("coffee cup", "coffee cups"),
            ("mug", "mugs"),
        ),
        alike=("bucket",),
    ),
    _kind("bottle", home.bottle, tilt=20),
    _kind("bucket", home.bucket, other_names=(("pail", "pails"),), alike=("cup",)),
    _kind("box", home.box, plural="boxes", tilt=6, alike=("present", "square")),
    _kind("present", home.present, other_names=(("gift", "gifts"),), tilt=8),
    _kind("umbrella", home.umbrella, other_names=(("parasol", "parasols"),), tilt=25),
    _kind("key", tools.key, tilt=180),
    _kind("ladder", tools.ladder, other_names=(("stepladder", "stepladders"),), tilt=20),
    _kind("lamp", home.lamp, other_names=(("table lamp", "table lamps"),), alike=("candle",)),
    _kind("candle", home.candle, tilt=6),
    _kind("clock", home.clock, other_names=(("wall clock", "wall clocks"),), tilt=8),
    _kind("book", home.book, tilt=15),
    _kind("pencil", tools.pencil, tilt=180),
    _kind("envelope", home.envelope, other_names=(("letter", "letters"),), tilt=15),
    _kind(
        "phone",
        home.phone,
        other_names=(
            ("mobile phone", "mobile phones"),
            ("smartphone", "smartphones"),
        ),
        tilt=15,
    ),
    _kind("chair", home.chair, tilt=5),
    _kind("table", home.table, tilt=4),
    _kind("hammer", tools.hammer, tilt=180),
    _kind("saw", tools.saw, tilt=30),
    _kind("pair of scissors", tools.scissors, plural="pairs of scissors", tilt=180),
    _kind("paintbrush", tools.brush, plural="paintbrushes", tilt=40),
    _kind("spoon", tools.spoon, tilt=180),
    _kind(
        "pair of glasses",
        home.glasses,
        other_names=(("pair of spectacles", "pairs of spectacles"),),
        plural="pairs of glasses",
        tilt=15,
    ),
    _kind("hat", home.hat, tilt=15),
    _kind("shoe", home.shoe, other_names=(("sneaker", "sneakers"),), tilt=15),
    _kind("shirt", home.shirt, other_names=(("tee shirt", "tee shirts"),), tilt=12),
    _kind("apple", food.apple, tilt=20),
    _kind("banana", food.banana, tilt=45),
    _kind("carrot", food.carrot, tilt=60),
    _kind("ice cream", food.ice_cream, other_names=(("ice cream cone", "ice cream cones"),), tilt=12),
    _kind("cake", food.cake, tilt=4),
    _kind(
        "mushroom", food.mushroom, other_names=(("toadstool", "toadstools"),), tilt=15, alike=("umbrella",)
    ),
    _kind("fish", nature.fish, plural="fish", tilt=25),
    _kind("bird", nature.bird, tilt=15),
    _kind("cat", nature.cat, other_names=(("kitty", "kitties"),), tilt=6),
    _kind("butterfly", nature.butterfly, plural="butterflies", tilt=40),
    _kind("snail", nature.snail, tilt=8),
    _kind("tree", nature.tree, tilt=5),
    _kind("flower", nature.flower, other_names=(("blossom", "blossoms"),), tilt=15),
    _kind("leaf", nature.leaf, plural="leaves", tilt=120),
    _kind("cactus", nature.cactus, plural="cacti", tilt=5),
    _kind("snowman", nature.snowman, plural="snowmen", tilt=6),
    _kind("house", home.house, other_names=(("little house", "little houses"),), tilt=4),
    _kind("car", travel.car, other_names=(("automobile", "automobiles"),), tilt=8),
    _kind("bicycle", travel.bicycle, other_names=(("bike", "bikes"), ("cycle", "cycles")), tilt=8),
    _kind("boat", travel.boat, other_names=(("sailing boat", "sailing boats"),), tilt=10),
    _kind("rocket", travel.rocket, other_names=(("spaceship", "spaceships"),), tilt=40),
    _kind("moon", nature.moon, other_names=(("crescent moon", "crescent moons"),), tilt=50),
    _kind("sun", nature.sun, tilt=180),
    _kind("cloud", nature.cloud, tilt=4),
    _kind("star", plain.star_shape, other_names=(("five-pointed star", "five-pointed stars"),), tilt=36),
    _kind(
        "circle",
        plain.circle,
        other_names=(("disc", "discs"),),
        tilt=0,
        alike=("ball", "ring", "clock", "moon", "sun"),
    ),
    _kind("square", plain.square, tilt=10, alike=("box", "present")),
    _kind("triangle", plain.triangle, tilt=15),
    _kind("hexagon", plain.hexagon, other_names=(("six-sided shape", "six-sided shapes"),), tilt=30),
    _kind("ring", plain.ring, other_names=(("hoop", "hoops"),), tilt=180, alike=("circle",)),
    _kind("heart", plain.heart, other_names=(("heart shape", "heart shapes"),), tilt=15),
    _kind("cross", plain.cross, other_names=(("plus sign", "plus signs"),), plural="crosses", tilt=12),
    _kind("arrow", plain.arrow, tilt=180),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
