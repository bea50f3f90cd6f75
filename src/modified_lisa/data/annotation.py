"""ReasonSeg annotation files, and the label map that the original LISA draws from them.

Coordinates are pixels of the user's image (after EXIF rotation), x before y, (0, 0) the first pixel.
"""

import json
import os
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from modified_lisa.data.grouping import groups_of
from modified_lisa.errors import DataError
from modified_lisa.geometry import IGNORE

__all__ = [
    "KINDS",
    "Annotation",
    "ParsedAnnotation",
    "Shape",
    "draw_shape",
    "label_value",
    "parse_annotation",
    "rasterize",
    "read_annotation",
]

KINDS = ("polygon", "rectangle", "circle")
TARGET = 1
# OpenCV walks every row of a polygon, inside the image or not: 2e9 of them take 15 s. No image is this large.
LARGEST_COORDINATE = 1_000_000


@dataclass(frozen=True, eq=False)
class Shape:
    """One outlined region; DataError if the points do not make one."""

    label: str
    """``flag``: not drawn; with ``ignore`` in it: 255; anything else: the target. Case does not matter."""
    points: np.ndarray
    """(K, 2) float64, x before y: the corners of a polygon, two opposite corners of a rectangle, or the
    centre of a circle and a point on its rim."""
    kind: str = "polygon"
    """One of `KINDS`."""

    def __post_init__(self) -> None:
        if not isinstance(self.label, str):
            raise DataError(f"its label is {self.label!r}; a string is expected")
        if self.kind not in KINDS:
            raise DataError(f"its shape_type is {self.kind!r}; only {', '.join(KINDS)} can be drawn")
        points = _to_points(self.points)
        if self.kind == "rectangle" and len(points) == 4:  # some tools write all its corners
            object.__setattr__(self, "kind", "polygon")
        elif self.kind != "polygon" and len(points) != 2:
            raise DataError(f"it is a {self.kind} of {len(points)} points; LabelMe's {self.kind} has 2")
        object.__setattr__(self, "points", points)


@dataclass(frozen=True, eq=False)
class Annotation:
    """The texts and shapes of one image."""

    path: Path | None = None
    texts: tuple[str, ...] = ()
    """The queries, each a way to ask for the same pixels, without blanks around them; no empty ones."""
    is_sentence: bool | None = None
    """Whether the texts are whole sentences; None where the file does not say."""
    shapes: tuple[Shape, ...] = ()
    """In the order of the file, without those labelled ``flag``."""
    groups: dict[str, str] = field(default_factory=dict)
    """What results are reported by; see `groups_of`."""
    no_target: bool = False
    """Whether the file says (``"no_target": true``) that nothing in the image answers the texts."""


@dataclass(frozen=True, eq=False)
class ParsedAnnotation:
    """What could be made of a file, and everything that is wrong with it."""

    annotation: Annotation
    """The good parts."""
    shape_names: tuple[str, ...]
    """How messages call each of ``annotation.shapes``: its place in the file and its label."""
    problems: tuple[str, ...]
    """Without the name of the file."""
    texts_read: bool
    """Whether ``annotation.texts`` are all that the file has."""
    shapes_read: bool
    """Whether ``annotation.shapes`` are all that the file has."""


def read_annotation(path: str | os.PathLike[str]) -> Annotation:
    """Read one ReasonSeg (LabelMe) JSON file, in UTF-8 or else in cp1252, as the original does.

    ``text`` is a list of strings or one string and may be empty here; ``shapes`` is a list, ``shape_type``
    polygon (also if it is missing), rectangle or circle. Shapes labelled ``flag`` are left out unread.
    ``"no_target": true`` says that the right answer is nothing; there may be no shape of the target then.
    DataError names the file and all that is wrong with it: no JSON (with the line), no ``text``, no
    ``shapes``, another ``shape_type``, points that are not finite pixel coordinates.
    """
    parsed = parse_annotation(path)
    if parsed.problems:
        raise DataError(f"{os.fspath(path)}: {'; '.join(parsed.problems)}")
    return parsed.annotation


def parse_annotation(path: str | os.PathLike[str]) -> ParsedAnnotation:
    """Like `read_annotation`, but never raises for what is in the file: it lists the problems."""
    path = Path(path)
    try:
        content = _load_json(path)
    except DataError as error:
        return ParsedAnnotation(Annotation(path), (), (str(error),), False, False)
    problems: list[str] = []
    texts: tuple[str, ...] = ()
    is_sentence: bool | None = None
    try:
        texts = _to_texts(content)
    except DataError as error:
        problems.append(str(error))
    texts_read = not problems
    try:
        is_sentence = _to_is_sentence(content)
    except DataError as error:
        problems.append(str(error))
    shapes: list[Shape] = []
    names: list[str] = []
    listed = content.get("shapes")
    if not isinstance(listed, list):
        found = _brief(listed) if "shapes" in content else "missing"
        problems.append(f'"shapes" is {found}; a list of shapes is expected')
    no_target = content.get("no_target")
    if no_target is not None and not isinstance(no_target, bool):
        problems.append(f'"no_target" is {_brief(no_target)}; true, false or nothing is expected')
        no_target = False
    shapes_read = isinstance(listed, list)
    entries = listed if isinstance(listed, list) else []
    for index, entry in enumerate(entries):
        name = f"shape {index + 1} of {len(entries)}"
        if isinstance(entry, dict) and isinstance(entry.get("label"), str):
            name += f" (label {_brief(entry['label'])})"
        try:
            shape = _to_shape(entry)
        except DataError as error:
            problems.append(f"{name}: {error}")
            shapes_read = False
            continue
        if shape is not None:
            shapes.append(shape)
            names.append(name)
    targets = [name for shape, name in zip(shapes, names, strict=True) if label_value(shape.label) == TARGET]
    if no_target and targets:
        problems.append(
            f'"no_target" is true, and there is something to segment: {targets[0]}; leave one of them'
        )
    annotation = Annotation(
        path, texts, is_sentence, tuple(shapes), groups_of(content, is_sentence), bool(no_target)
    )
    return ParsedAnnotation(annotation, tuple(names), tuple(problems), texts_read, shapes_read)


def label_value(label: str) -> int | None:
    """What a shape with this label is drawn as: 1 (target), 255 (ignored), or None (not at all)."""
    lowered = label.lower()
    if lowered == "flag":
        return None
    return IGNORE if "ignore" in lowered else TARGET


def rasterize(annotation: Annotation, height: int, width: int) -> np.ndarray:
    """The label map of an image of this size: uint8 (height, width), 0 background, 1 target, 255 ignored.

    Bit for bit that of the original LISA's ``get_mask_from_json``: points are truncated to integers, shapes
    are outlined and filled, those that cover more of the image first, so that a small one lies on a large
    one, and parts outside the image are cut off. Of two that cover equally many pixels the one listed first
    ends on top (the original's reversed ascending sort). Rectangles and circles, which the original does not
    know, follow the same rules; a circle covers the pixels within its radius.
    """
    for name, size in (("height", height), ("width", width)):
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise DataError(f"{name} is {size!r}; a whole number of pixels, at least 1, is expected")
    drawn = [(shape, value) for shape in annotation.shapes if (value := label_value(shape.label)) is not None]
    if len(drawn) > 1:
        areas = [np.count_nonzero(draw_shape(np.zeros((height, width), np.uint8), s, 1)) for s, _ in drawn]
        drawn = [drawn[i] for i in np.argsort(areas, kind="stable")[::-1]]
    mask = np.zeros((height, width), np.uint8)
    for shape, value in drawn:
        draw_shape(mask, shape, value)
    return mask


def draw_shape(mask: np.ndarray, shape: Shape, value: int) -> np.ndarray:
    """Set the pixels of ``shape`` in ``mask`` (H, W) uint8 to ``value``, in place; returns ``mask``."""
    points = shape.points.astype(np.int32)  # truncates towards zero
    if shape.kind == "circle":
        return _draw_circle(mask, points, value)
    if shape.kind == "rectangle":
        (x0, y0), (x1, y1) = points
        points = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.int32)
    cv2.polylines(mask, [points], True, value, 1)
    cv2.fillPoly(mask, [points], value)
    return mask


def _draw_circle(mask: np.ndarray, points: np.ndarray, value: int) -> np.ndarray:
    (x, y), (rim_x, rim_y) = points.astype(np.int64)
    square = (rim_x - x) ** 2 + (rim_y - y) ** 2
    columns = (np.arange(mask.shape[1]) - x) ** 2
    rows = (np.arange(mask.shape[0]) - y) ** 2
    mask[rows[:, None] + columns <= square] = value
    return mask


def _load_json(path: Path) -> dict[str, Any]:
    """The object in the file; DataError without the file's name."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise DataError("there is no such file") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise DataError(f"it cannot be read: {error}") from error
    try:
        text = data.decode("utf-8-sig")  # some editors put a byte order mark in front
    except UnicodeDecodeError:
        try:
            text = data.decode("cp1252")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise DataError(f"line {line}: the text is neither UTF-8 nor cp1252") from error
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"line {error.lineno}, column {error.colno}: not valid JSON ({error.msg})") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets without end
        raise DataError(f"not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f'it holds {_brief(content)}; an object with "text" and "shapes" is expected')
    return content


def _to_texts(content: dict[str, Any]) -> tuple[str, ...]:
    if "text" not in content:
        raise DataError('"text" is missing; a list of queries is expected')
    listed = content["text"]
    if isinstance(listed, str):
        listed = [listed]
    if not isinstance(listed, list) or not all(isinstance(text, str) for text in listed):
        raise DataError(f'"text" is {_brief(listed)}; a list of strings is expected')
    return tuple(stripped for text in listed if (stripped := text.strip()))


def _to_is_sentence(content: dict[str, Any]) -> bool | None:
    value = content.get("is_sentence")
    if value is not None and value not in (False, True):  # 0 and 1 are equal to them
        raise DataError(f'"is_sentence" is {_brief(value)}; true, false or nothing is expected')
    return None if value is None else bool(value)


def _to_shape(entry: object) -> Shape | None:
    """None for one labelled ``flag``; those need not be of a kind that can be drawn."""
    if not isinstance(entry, dict):
        raise DataError(f"it is {_brief(entry)}; an object is expected")
    missing = [key for key in ("label", "points") if key not in entry]
    if isinstance(entry.get("label"), str) and label_value(entry["label"]) is None:
        return None
    if missing:
        raise DataError(f"it has no {' and no '.join(missing)}")
    kind = entry.get("shape_type")
    return Shape(entry["label"], entry["points"], "polygon" if kind is None else kind)


def _to_points(points: object) -> np.ndarray:
    """(K, 2) float64, K >= 1, finite; DataError."""
    if isinstance(points, np.ndarray):
        if points.dtype.kind not in "iuf":
            raise DataError(f"its points are {points.dtype}; numbers are expected")
        points = points.tolist()
    if not isinstance(points, list | tuple):
        raise DataError(f"its points are {_brief(points)}; a list of [x, y] is expected")
    if not points:
        raise DataError("it has no points; a list of [x, y] is expected")
    if (plain := _plain_points(points)) is not None:
        return plain
    for number, point in enumerate(points, 1):
        if not isinstance(point, list | tuple | np.ndarray) or len(point) != 2:
            raise DataError(f"its point {number} is {_brief(point)}; [x, y] is expected")
        for value in point:
            if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
                raise DataError(f"its point {number} is {_brief(point)}; two numbers are expected")
            if not -LARGEST_COORDINATE <= value <= LARGEST_COORDINATE:  # NaN compares as false
                raise DataError(
                    f"its point {number} is {_brief(point)}; finite pixel coordinates up to "
                    f"{LARGEST_COORDINATE} are expected"
                )
    return np.array(points, dtype=np.float64)


def _plain_points(points: list[Any] | tuple[Any, ...]) -> np.ndarray | None:
    """Those of a good file, without a look at each: outlines have hundreds. None: look what is wrong."""
    if set(map(type, points)) != {list} or set(map(type, chain.from_iterable(points))) - {int, float}:
        return None
    try:
        array = np.array(points, dtype=np.float64)
    except (ValueError, OverflowError):
        return None
    # NaN compares as false.
    good = array.ndim == 2 and array.shape[1] == 2 and bool((np.abs(array) <= LARGEST_COORDINATE).all())
    return array if good else None


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
