"""Put objects into a picture: where they stand, what hides what, and how the camera saw it."""

import cv2
import numpy as np

from modified_lisa.data.scenes.backgrounds import BACKGROUNDS, Background, make_background
from modified_lisa.data.scenes.casting import cast
from modified_lisa.data.scenes.contours import drop_specks, mask_to_polygons
from modified_lisa.data.scenes.held_out import allows_held_out
from modified_lisa.data.scenes.layout import Placed, place
from modified_lisa.data.scenes.scene import Scene, SceneObject
from modified_lisa.errors import ConfigError

__all__ = ["SIZES", "make_scene"]

SIZES = (
    (320, 240), (240, 320), (384, 288), (288, 384), (384, 384), (320, 320), (448, 336), (336, 448), (480, 320),
    (512, 384), (512, 256), (512, 512), (400, 300), (512, 208), (448, 448), (256, 256),
)  # fmt: skip
"""(width, height) of the images, in pixels."""
_SMALLEST_SHARE = 0.003
_SMALLEST_SIDE = 96
Rng = np.random.Generator


def make_scene(rng: Rng, *, split: str, size: tuple[int, int] | None = None) -> Scene:
    """One scene. ``split`` says whether held-out combinations may occur; ``size`` is (width, height) in pixels.

    ConfigError for an unknown split or a side below 96 pixels.
    """
    held_out = allows_held_out(split)
    width, height = SIZES[int(rng.integers(len(SIZES)))] if size is None else size
    if min(width, height) < _SMALLEST_SIDE:
        raise ConfigError(
            f"the size of a scene is {width}x{height}; both sides must be at least {_SMALLEST_SIDE}"
        )
    while True:
        name = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
        behind = make_background(name, height, width, rng)
        looks = cast(rng, behind.rgbs, held_out=held_out)
        placed, owner = place(rng, looks, height, width, behind.horizon)
        drop_specks(owner, len(placed))
        objects = _facts(placed, owner)
        if len(objects) >= 2 and all(thing.share >= _SMALLEST_SHARE for thing in objects):
            break
    image, reflections = _paint(rng, behind, placed, owner)
    return Scene(_camera(rng, image), objects, owner, name, split, reflections)


def _facts(placed: list[Placed], owner: np.ndarray) -> tuple[SceneObject, ...]:
    objects = []
    for index, item in enumerate(placed):
        x, y, h, w = item.x, item.y, *item.patch.cover.shape
        visible = owner[y : y + h, x : x + w] == index + 1
        area = int(np.count_nonzero(visible))
        if area == 0:
            return ()
        rows, columns = np.flatnonzero(visible.any(axis=1)), np.flatnonzero(visible.any(axis=0))
        box = (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)
        front = np.bincount(owner[y : y + h, x : x + w][item.patch.cover], minlength=index + 2)
        look, whole = item.patch.look, item.patch.area
        objects.append(
            SceneObject(
                kind=look.kind,
                colour=look.colour,
                also=item.patch.also,
                rgb=(round(float(look.rgb[0])), round(float(look.rgb[1])), round(float(look.rgb[2]))),
                texture=item.patch.texture,
                area=area,
                whole_area=whole,
                share=area / owner.size,
                box=box,
                centre=((box[0] + box[2]) / 2, (box[1] + box[3]) / 2),
                polygons=[polygon + np.array([x, y], np.int32) for polygon in mask_to_polygons(visible)],
                hidden_by={j - 1: front[j] / whole for j in range(index + 2, len(front)) if front[j]},
            )
        )
    return tuple(objects)


def _paint(
    rng: Rng, behind: Background, placed: list[Placed], owner: np.ndarray
) -> tuple[np.ndarray, dict[int, list[np.ndarray]]]:
    image = np.clip(behind.image, 0, 255).astype(np.uint8)
    if rng.random() < 0.55 and behind.name not in ("water", "a dark sky"):
        _cast_shadow(rng, image, owner)
    reflections = {}
    if behind.name == "water" and rng.random() < 0.5:
        reflections = _reflect(image, placed, owner, int(rng.integers(len(placed))))
    for index, item in enumerate(placed):
        y, x, (h, w) = item.y, item.x, item.patch.cover.shape
        mine = owner[y : y + h, x : x + w] == index + 1
        np.copyto(image[y : y + h, x : x + w], item.patch.rgb, where=mine[..., None])
    return image, reflections


def _cast_shadow(rng: Rng, image: np.ndarray, owner: np.ndarray) -> None:
    """Darken the background beside the objects; worked out at a quarter of the size, for it is soft anyway."""
    h, w = owner.shape
    small = cv2.resize((owner > 0).astype(np.float32), (w // 4, h // 4), interpolation=cv2.INTER_AREA)
    shift = np.array([[1, 0, rng.uniform(-2.5, 2.5)], [0, 1, rng.uniform(0.5, 3)]], np.float32)
    small = cv2.warpAffine(small, shift, (w // 4, h // 4))
    soft = cv2.resize(cv2.GaussianBlur(small, (0, 0), rng.uniform(0.8, 2)), (w, h))
    shade = 1 - soft * np.float32(rng.uniform(0.2, 0.42))
    shade[owner > 0] = 1
    image[:] = (image * shade[..., None]).astype(np.uint8)


def _reflect(
    image: np.ndarray, placed: list[Placed], owner: np.ndarray, index: int
) -> dict[int, list[np.ndarray]]:
    """Mirror one object in the water below it; gives the polygons of the mirror image that is seen."""
    item = placed[index]
    bottom = item.y + int(np.flatnonzero(item.patch.cover.any(axis=1))[-1]) + 1
    cover = item.patch.cover[::-1]
    cover = cover[int(np.flatnonzero(cover.any(axis=1))[0]) :][: owner.shape[0] - bottom]
    colours = item.patch.rgb[::-1][-item.patch.cover.shape[0] :][: cover.shape[0]]
    if len(cover) < 8:
        return {}
    area = np.zeros(owner.shape, np.uint8)
    area[bottom : bottom + len(cover), item.x : item.x + cover.shape[1]] = cover
    area[owner > 0] = 0
    area = cv2.morphologyEx(area, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    seen = area[bottom : bottom + len(cover), item.x : item.x + cover.shape[1]] > 0
    region = image[bottom : bottom + len(cover), item.x : item.x + cover.shape[1]]
    region[seen] = (region[seen] * np.float32(0.55) + colours[seen] * np.float32(0.45)).astype(np.uint8)
    polygons = mask_to_polygons(area > 0)
    return {index: polygons} if polygons else {}


def _camera(rng: Rng, image: np.ndarray) -> np.ndarray:
    """Brightness, contrast, a slight cast of colour, blur, compression and noise."""
    levels = np.arange(256, dtype=np.float32)
    contrast, brightness = rng.uniform(0.85, 1.12), rng.uniform(-12, 12)
    table = np.stack(
        [(levels - 128) * contrast * rng.uniform(0.97, 1.03) + 128 + brightness for _ in range(3)], axis=-1
    )
    image = cv2.LUT(image, np.clip(table, 0, 255).astype(np.uint8)[None])
    image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.35, 0.9))
    if rng.random() < 0.12:
        quality = int(rng.integers(35, 80))
        coded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))
    if rng.random() < 0.6:
        grain = np.frombuffer(rng.bytes(image.size), np.uint8).reshape(image.shape)
        strength = int(rng.integers(20, 64))
        image = np.clip(image + (grain.astype(np.int16) * strength >> 9) - strength // 4, 0, 255).astype(
            np.uint8
        )
    return image
