"""Masks drawn on an image, in colours that stay apart for colour-blind people and on any background."""

from numbers import Integral, Real

import cv2
import numpy as np
from numpy.typing import NDArray

from modified_lisa.errors import ConfigError

__all__ = ["PALETTE", "Colour", "draw_masks"]

Colour = tuple[int, int, int]
"""RGB, 0 to 255 each."""

# The colours of Okabe & Ito (2008, "Color Universal Design"), the one that is rarest in photos first.
PALETTE: tuple[Colour, ...] = (
    (204, 121, 167),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)


def draw_masks(
    image: NDArray[np.uint8],
    masks: NDArray[np.bool_],
    *,
    colours: tuple[Colour, ...] = PALETTE,
    alpha: float = 0.5,
    outline: bool = True,
) -> NDArray[np.uint8]:
    """Tint and outline each mask on a copy of the image; where masks overlap, the later one is on top.

    Args:
        image: uint8 (H, W, 3), RGB.
        masks: bool (N, H, W).
        colours: used in turn, one for each mask.
        alpha: how much of the tint covers the image, 0 to 1.
        outline: a line in the mask's colour inside its border, white and black lines outside it.

    Returns:
        uint8 (H, W, 3), RGB.
    """
    try:
        colours = tuple(colours)
    except TypeError as error:
        raise ConfigError(f"colours is {colours!r:.80}; give a list of (red, green, blue)") from error
    if not colours:
        raise ConfigError("colours is empty; give at least one (red, green, blue)")
    for given in colours:
        if np.shape(given) != (3,) or not all(isinstance(c, Integral) and 0 <= c <= 255 for c in given):
            raise ConfigError(
                f"a colour is {given!r:.80}; give (red, green, blue), whole numbers from 0 to 255"
            )
    if not isinstance(alpha, Real) or not 0 <= alpha <= 1:
        raise ConfigError(f"alpha is {alpha!r}; it must be from 0 (no tint) to 1 (all tint)")
    drawn = image.copy()
    for index, mask in enumerate(masks):
        colour = np.array(colours[index % len(colours)], dtype=np.float32)
        drawn[mask] = ((1 - alpha) * drawn[mask] + alpha * colour + 0.5).astype(np.uint8)
    if outline:
        for index, mask in enumerate(masks):
            _outline(drawn, mask, colours[index % len(colours)])
    return drawn


def _outline(drawn: NDArray[np.uint8], mask: NDArray[np.bool_], colour: Colour) -> None:
    width = max(1, round(max(mask.shape) / 400))  # a line of 1 pixel at 400, 10 at 4000
    solid = mask.astype(np.uint8)
    white = _grow(solid, width)
    drawn[(_grow(white, max(1, width // 2)) > white)] = (0, 0, 0)
    drawn[white > solid] = (255, 255, 255)
    # Outside the image counts as outside the mask, so a mask of the whole image shows as a frame.
    core = cv2.erode(solid, _square(width), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    drawn[solid > core] = colour


def _grow(mask: NDArray[np.uint8], by: int) -> NDArray[np.uint8]:
    return np.asarray(cv2.dilate(mask, _square(by)), dtype=np.uint8)


def _square(reach: int) -> NDArray[np.uint8]:
    return np.ones((2 * reach + 1, 2 * reach + 1), dtype=np.uint8)
