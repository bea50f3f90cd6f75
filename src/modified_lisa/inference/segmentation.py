"""The one result that everything speaks: masks on the user's image, and every form they are wanted in."""

import math
import os
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from modified_lisa.errors import ConfigError
from modified_lisa.files import check_folder, write_atomically, write_json
from modified_lisa.images import read_image
from modified_lisa.inference.drawing import PALETTE, Colour, draw_masks

__all__ = ["Segmentation", "check_ending", "check_output", "check_threshold"]

_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
JPEG_SIDE = 65_500
"""The longest side of a JPEG that libjpeg writes."""


@dataclass(frozen=True, eq=False)
class Segmentation:
    """What a model answered to one query about one image: N masks, one for each ``<SEG>`` of the query.

    N may be 0. All coordinates are pixels of the user's image, x before y, (0, 0) the top left pixel.
    """

    masks: NDArray[np.bool_]
    """bool (N, H, W); True = belongs to the answer."""
    scores: NDArray[np.float32]
    """float32 (N,), 0 to 1: the IoU with the truth that the model expects each mask to have."""
    text: str
    """The query, as the user gave it."""
    size: tuple[int, int]
    """(H, W) of the user's image."""
    image: NDArray[np.uint8] | None = field(default=None, repr=False)
    """uint8 (H, W, 3), RGB: the user's image, which `overlay` draws on; None if it was not kept. Answers about one image
    share it, so that it cannot be written to; copy it to draw."""

    def __post_init__(self) -> None:
        masks, scores = self.masks, self.scores
        if not isinstance(masks, np.ndarray) or masks.dtype != np.bool_ or masks.ndim != 3:
            raise ConfigError(f"masks is {_what(masks)}; it must be a bool array (N, H, W)")
        if (
            not isinstance(scores, np.ndarray)
            or scores.dtype != np.float32
            or scores.shape != masks.shape[:1]
        ):
            raise ConfigError(f"scores is {_what(scores)}; it must be a float32 array ({len(masks)},)")
        if not bool(np.all((scores >= 0) & (scores <= 1))):  # NaN fails it too
            raise ConfigError(f"scores is {scores.tolist()}; each must be a number from 0 to 1")
        if not isinstance(self.text, str):
            raise ConfigError(f"text is {_what(self.text)}; it must be a string")
        if tuple(self.size) != masks.shape[1:]:
            raise ConfigError(f"size is {self.size}; the masks are {masks.shape[1:]} (height, width)")
        if self.image is not None:
            _check_picture(self.image, self.size)

    def __len__(self) -> int:
        """The number of masks."""
        return len(self.masks)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """bool (H, W): the union of all masks; all False when there is none."""
        return np.asarray(self.masks.any(axis=0))

    def boxes(self) -> NDArray[np.int64]:
        """The tightest box around each mask: int64 (N, 4) of left, top, right, bottom.

        Right and bottom are the first column and row outside, so that ``image[top:bottom, left:right]`` is
        what the box holds. An empty mask has the box 0, 0, 0, 0.
        """
        boxes = np.zeros((len(self.masks), 4), dtype=np.int64)
        for box, mask in zip(boxes, self.masks, strict=True):
            columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
            if len(columns):
                box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        return boxes

    def polygons(self) -> list[list[NDArray[np.int32]]]:
        """The outlines of each mask: for each mask a list of rings, each int32 (K, 2) with K >= 3.

        A ring runs through the mask's own border pixels and closes on itself. The rings of one mask belong
        together under the even-odd rule: each part of the mask is one ring, directly followed by the rings
        around the holes in it, which run the other way round. Drawn in one call with the outline filled
        too, as ``cv2.fillPoly(canvas, rings, 1)`` does, they give back the mask exactly.
        """
        return [_rings(mask) for mask in self.masks]

    def rle(self) -> list[dict[str, Any]]:
        """Each mask as COCO's compressed run lengths, ``{"size": [H, W], "counts": str}``.

        `pycocotools.mask.decode` gives back the mask exactly.
        """
        from pycocotools import mask as coco

        encoded = [coco.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in self.masks]
        return [
            {"size": [int(side) for side in run["size"]], "counts": run["counts"].decode("ascii")}
            for run in encoded
        ]

    def overlay(
        self,
        image: Any = None,
        *,
        colours: tuple[Colour, ...] = PALETTE,
        alpha: float = 0.5,
        outline: bool = True,
    ) -> Image.Image:
        """The user's image, in its own size, with each mask tinted and outlined in its own colour.

        Args:
            image: what to draw on, as anything that `modified_lisa.images.read_image` takes; it must have
                the size of the masks. None: the image that was segmented.
            colours: RGB, 0 to 255 each, used in turn. The default can be told apart by colour-blind people.
            alpha: how much of the tint covers the image, from 0 (none) to 1 (all).
            outline: draw a line around each mask, with a light edge outside so that it shows on any image.

        Raises:
            ConfigError: no image, or one of another size; no colours, or what is none; alpha outside 0..1.
        """
        picture = self.image if image is None else read_image(image)
        if picture is None:
            raise ConfigError("this Segmentation keeps no image; pass the image to overlay(image)")
        _check_picture(picture, self.size)
        return Image.fromarray(draw_masks(picture, self.masks, colours=colours, alpha=alpha, outline=outline))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the pixels of the image, in plain values for JSON.

        ``text``, ``size`` [H, W] and ``masks``, a list with for each mask its ``score``, ``area`` (pixels),
        ``share`` (of the image, 0 to 1), ``box``, ``rle`` and ``polygons``.
        """
        height, width = self.size
        parts = zip(self.masks, self.scores, self.boxes(), self.rle(), self.polygons(), strict=True)
        return {
            "text": self.text,
            "size": [int(height), int(width)],
            "masks": [
                {
                    "score": round(float(score), 6),
                    "area": int(mask.sum()),
                    "share": round(float(mask.mean()), 6),
                    "box": box.tolist(),
                    "rle": rle,
                    "polygons": [ring.tolist() for ring in rings],
                }
                for mask, score, box, rle, rings in parts
            ],
        }

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the result, in the form that the ending of ``path`` asks for, and return the path.

        ``.png``, ``.jpg``, ``.jpeg``: the overlay. ``.json``: `to_dict`. ``.npz``: the arrays ``masks``,
        ``scores`` and ``text``. Written atomically; missing folders are made.

        Raises:
            ConfigError: another ending; a folder of this name, or a file where its folder should be.
        """
        path = Path(path)
        ending = _check_path(path)
        if ending == ".json":
            return write_json(path, self.to_dict())
        if ending == ".npz":
            masks, scores, text = self.masks, self.scores, np.array(self.text)
            return write_atomically(
                path, lambda file: np.savez_compressed(file, masks=masks, scores=scores, text=text)
            )
        picture, form = self.overlay(), _PICTURES[ending]
        if form == "JPEG" and max(picture.size) > JPEG_SIDE:
            raise ConfigError(
                f"cannot save to {str(path)!r}: a JPEG has at most {JPEG_SIDE:,} pixels a side, and the image is "
                f"{picture.width} x {picture.height}; use .png"
            )
        # JPEG: full resolution of colours, so that thin outlines stay sharp; PNG has no such options.
        options = {"quality": 95, "subsampling": 0} if form == "JPEG" else {}
        return write_atomically(path, lambda file: picture.save(file, format=form, **options))


def check_ending(path: Path) -> str:
    """The ending of ``path`` in small letters, if `Segmentation.save` knows it; else a ConfigError."""
    ending = path.suffix.lower()
    if ending not in (*_PICTURES, ".json", ".npz"):
        raise ConfigError(
            f"cannot save to {str(path)!r}: the ending {ending!r} is unknown; use .png, .jpg or .jpeg for"
            " the overlay, .json for everything, .npz for the masks"
        )
    return ending


def _check_path(path: Path) -> str:
    """`check_ending`, of a file that can be written."""
    ending = check_ending(path)
    if path.is_dir():
        raise ConfigError(f"cannot save to {str(path)!r}: it is a folder; name a file")
    check_folder("the folder of the output", path.parent)
    return ending


def check_output(path: Path, image: str | os.PathLike[str]) -> None:
    """ConfigError if an answer about the file ``image`` cannot be saved to ``path``, or would replace it."""
    _check_path(path)
    if path.exists() and Path(image).exists() and path.samefile(image):
        raise ConfigError(
            f"cannot save to {str(path)!r}: it is the image itself, which would be lost; name another file"
        )


def check_threshold(threshold: float) -> None:
    """ConfigError unless it is a finite number."""
    number = isinstance(threshold, Real) and not isinstance(threshold, bool)  # numpy's numbers too
    try:
        finite = number and math.isfinite(threshold)
    except OverflowError:  # a whole number beyond the largest float
        finite = False
    if not finite:
        raise ConfigError(f"the threshold is {threshold!r}; it must be a finite number, in logits")


def _rings(mask: NDArray[np.bool_]) -> list[NDArray[np.int32]]:
    found, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if not found:
        return []
    next_, _, child, _ = range(4)  # the columns of OpenCV's table of contours; -1 means none
    links = tree[0]
    order, outer = [], 0
    while outer != -1:
        order.append(outer)
        hole = links[outer][child]
        while hole != -1:
            order.append(hole)
            hole = links[hole][next_]
        outer = links[outer][next_]
    # A part of one or two pixels has a ring of one or two points; readers of polygons want three.
    return [np.pad(found[i][:, 0], ((0, max(0, 3 - len(found[i]))), (0, 0)), mode="edge") for i in order]


def _check_picture(picture: Any, size: tuple[int, int]) -> None:
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape != (*size, 3):
        raise ConfigError(
            f"the image is {_what(picture)}; the masks are for one of uint8 ({size[0]}, {size[1]}, 3)"
        )


def _what(value: object) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype} {value.shape}"
    return f"{value!r:.80} ({type(value).__name__})"
