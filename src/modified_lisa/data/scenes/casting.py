"""Which objects meet in a scene: chosen so that there is something to ask and more than one possible answer."""

import numpy as np

from modified_lisa.data.scenes.colours import COLOURS, distance, pick_rgb
from modified_lisa.data.scenes.facts import FACTS, known
from modified_lisa.data.scenes.held_out import HELD_OUT_KINDS, is_held_out
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.data.scenes.patches import Look
from modified_lisa.data.scenes.textures import NAMED_TEXTURES

__all__ = ["cast"]

_COLOURS = tuple(COLOURS)
_KINDS = {True: tuple(KINDS), False: tuple(kind for kind in KINDS if kind not in HELD_OUT_KINDS)}
"""Kinds that may occur, by whether held-out ones may."""
_RECIPES = ("mixed", "few kinds", "one kind", "one colour", "odd kind", "fact", "pairs")
_WEIGHTS = (0.2, 0.2, 0.08, 0.08, 0.06, 0.26, 0.12)
_CONTRAST = 27.0  # the least CIE76 distance of an object's colour from what is behind it
_HELD_OUT_SHARE = 0.2  # of the objects of val and test that get a held-out colour on purpose
Rng = np.random.Generator


def cast(rng: Rng, behind: np.ndarray, *, held_out: bool) -> list[Look]:
    """2 to 9 looks for a scene before a background of the RGBs ``behind`` (N, 3); one of several recipes."""
    recipe = str(rng.choice(_RECIPES, p=_WEIGHTS))
    count = int(rng.choice(np.arange(2, 10), p=[0.04, 0.12, 0.18, 0.2, 0.17, 0.14, 0.09, 0.06]))
    palette = _visible_colours(rng, behind)
    kinds, colours = _ROLES[recipe](
        rng, max(count, 3) if recipe != "mixed" else count, palette, _KINDS[held_out]
    )
    themed = str(rng.choice(NAMED_TEXTURES)) if rng.random() < 0.6 else None
    looks = []
    for kind, colour in zip(kinds, colours, strict=True):
        colour = _fit(rng, kind, colour, palette, held_out=held_out)
        texture = _texture(rng, kind, themed, held_out=held_out)
        looks.append(Look(kind, colour, _rgb(rng, colour, behind), texture))
    order = rng.permutation(len(looks))
    return [looks[int(index)] for index in order]


def _visible_colours(rng: Rng, behind: np.ndarray) -> list[str]:
    seen = []
    for index in rng.permutation(len(_COLOURS)):
        name = _COLOURS[int(index)]
        rgb = pick_rgb(name, rng)
        if distance(rgb, behind) > _CONTRAST + 6:
            seen.append(name)
    return seen


def _rgb(rng: Rng, colour: str, behind: np.ndarray) -> np.ndarray:
    tries = [pick_rgb(colour, rng) for _ in range(3)]
    for rgb in tries:
        if distance(rgb, behind) > _CONTRAST:
            return rgb
    return max(tries, key=lambda rgb: distance(rgb, behind))


def _fit(rng: Rng, kind: str, colour: str, palette: list[str], *, held_out: bool) -> str:
    if not held_out:
        if not is_held_out(colour, kind):
            return colour
        return _choice(rng, [name for name in palette if not is_held_out(name, kind)])
    kept = [name for name in palette if is_held_out(name, kind)]
    return _choice(rng, kept) if kept and rng.random() < _HELD_OUT_SHARE else colour


def _texture(rng: Rng, kind: str, themed: str | None, *, held_out: bool) -> str:
    if themed is not None and rng.random() < 0.45:
        texture = themed
    else:
        texture = str(
            rng.choice(["plain", *NAMED_TEXTURES, "gradient", "noisy"], p=[0.55, 0.1, 0.1, 0.09, 0.08, 0.08])
        )
    return "plain" if texture in NAMED_TEXTURES and is_held_out(texture, kind) and not held_out else texture


def _choice(rng: Rng, options: list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _some(rng: Rng, options: list[str] | tuple[str, ...], count: int) -> list[str]:
    count = min(count, len(options))
    return [options[int(index)] for index in rng.choice(len(options), count, replace=False)]


def _mixed(
    rng: Rng, count: int, palette: list[str], known_kinds: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    colours = _some(rng, palette, int(rng.integers(2, 6)))
    return _some(rng, known_kinds, count), [_choice(rng, colours) for _ in range(count)]


def _few_kinds(
    rng: Rng, count: int, palette: list[str], known_kinds: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    kinds = _some(rng, known_kinds, int(rng.integers(2, 4)))
    colours = _some(rng, palette, int(rng.integers(2, 5)))
    return [_choice(rng, kinds) for _ in range(count)], [_choice(rng, colours) for _ in range(count)]


def _one_kind(
    rng: Rng, count: int, palette: list[str], known_kinds: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    kind = _choice(rng, list(known_kinds))
    colours = _some(rng, palette, count)
    colours += [_choice(rng, colours) for _ in range(count - len(colours))]
    return [kind] * count, colours


def _one_colour(
    rng: Rng, count: int, palette: list[str], known_kinds: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    common, odd = _some(rng, palette, 2)
    kinds = _some(rng, known_kinds, int(rng.integers(1, count + 1)))
    return [_choice(rng, kinds) for _ in range(count)], [odd, *[common] * (count - 1)]


def _odd_kind(
    rng: Rng, count: int, palette: list[str], known_kinds: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    common, odd = _some(rng, known_kinds, 2)
    colours = _some(rng, palette, int(rng.integers(1, 5)))
    return [odd, *[common] * (count - 1)], [_choice(rng, colours) for _ in range(count)]


def _with_fact(
    rng: Rng, count: int, palette: list[str], known_kinds: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    while True:
        fact = _choice(rng, list(FACTS))
        yes = [kind for kind in known_kinds if known(kind, fact) is True]
        if yes:
            break
    rest = [kind for kind in known_kinds if known(kind, fact) is False]
    wanted = min(int(rng.choice([1, 1, 2, 3])), count - 1)
    kinds = [_choice(rng, yes) for _ in range(wanted)] + _some(rng, rest, count - wanted)
    colours = _some(rng, palette, int(rng.integers(2, 6)))
    return kinds, [_choice(rng, colours) for _ in range(count)]


def _pairs(
    rng: Rng, count: int, palette: list[str], known_kinds: tuple[str, ...]
) -> tuple[list[str], list[str]]:
    kinds: list[str] = []
    for kind in _some(rng, known_kinds, count):
        kinds += [kind] * int(rng.integers(1, 4))
    colours: list[str] = []
    for colour in _some(rng, palette, len(palette)):
        colours += [colour] * int(rng.integers(1, 4))
    colours = (colours * count)[:count]
    return kinds[:count], [colours[int(index)] for index in rng.permutation(count)]


_ROLES = dict(
    zip(_RECIPES, (_mixed, _few_kinds, _one_kind, _one_colour, _odd_kind, _with_fact, _pairs), strict=True)
)
