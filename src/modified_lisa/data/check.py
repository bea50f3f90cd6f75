"""Everything that is wrong with a data folder, found before the training starts and without decoding good images."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from modified_lisa.data.annotation import Shape, draw_shape, label_value, parse_annotation, rasterize
from modified_lisa.errors import ConfigError, DataError, ImageError
from modified_lisa.geometry import IGNORE
from modified_lisa.images import image_size, read_image
from modified_lisa.prompts import SEG_TOKEN, with_seg

__all__ = [
    "IMAGE_SUFFIXES",
    "Pair",
    "Problem",
    "check_folder",
    "check_split",
    "problems_error",
    "split_folder",
    "text_fault",
]

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
FAR_OUTSIDE = 0.25
"""A shape may run over the border of its image by this share of the longer side; of another picture's size, it is more."""
_LISTED = 50
_LAYOUT = "a data folder holds train/, val/ and test/, each with pairs such as image_1.jpg and image_1.json"


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file."""

    file: Path
    what: str
    split: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"


@dataclass(frozen=True)
class Pair:
    """An image and its annotation, both good."""

    stem: str
    image: Path
    annotation: Path
    texts: tuple[str, ...]


def check_folder(root: str | os.PathLike[str], splits: str | Iterable[str]) -> list[Problem]:
    """All problems of these splits of a data folder, sorted by split (as given) and file; [] if it is good.

    Found for each file: an image without annotation and the reverse, two images for one annotation, an
    image that is empty, cut short, damaged (PNG) or not readable, JSON that cannot be read, a missing or empty ``text``, a text
    without words or with several ``<SEG>``,
    shapes that cannot be drawn, no shape left to segment (unless the file says ``"no_target": true``), polygons of fewer than 3 points, and shapes
    outside the image. Outside is a shape that covers no pixel at all, or that reaches over the border by more than
    a quarter of the image's longer side (and more than a pixel), which is what annotations made for another size
    of the image do. One that runs over the border by less is fine: it is cut off there, as in the original.

    A split without a folder or without any pair is a problem of its own. Hidden files, subfolders and files
    of other kinds are not looked at.
    """
    problems: list[Problem] = []
    for split in [splits] if isinstance(splits, str) else splits:
        try:
            problems += check_split(root, split)[1]
        except DataError as error:
            problems.append(Problem(Path(root) / split, str(error), split))
    return problems


def problems_error(problems: Sequence[Problem]) -> DataError:
    """One error that lists the problems (the first 50, then how many more) and says what can be done."""
    return DataError(
        f"{list_problems(problems)}\nRepair these files, or go on without them: --skip_bad_samples "
        "(skip_bad_samples=True in Python)"
    )


def list_problems(problems: Sequence[Problem]) -> str:
    """One line for each of the first 50 problems, under a line with their number."""
    lines = [f"{len(problems)} problem{'s' * (len(problems) != 1)} in the data:"]
    lines += [f"  {problem}" for problem in problems[:_LISTED]]
    if len(problems) > _LISTED:
        lines.append(f"  ... and {len(problems) - _LISTED} more")
    return "\n".join(lines)


def split_folder(root: str | os.PathLike[str], split: str) -> Path:
    """The folder of a split; DataError that says what is there instead."""
    root = Path(root)
    if not isinstance(split, str) or split in ("", ".", "..") or Path(split).name != split:
        raise DataError(f"the split is {split!r}; the name of a folder such as 'train' is expected")
    folder = root / split
    if folder.is_dir():
        return folder
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"the data folder {root} {what}; check --data_dir: {_LAYOUT}")
    found = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    there = f"its folders are {', '.join(found[:20])}" if found else "it has no folders"
    if any(entry.suffix.lower() in IMAGE_SUFFIXES for entry in root.iterdir()):
        there += ", but images lie in it directly: --data_dir is the folder above the splits"
    raise DataError(f"the data folder {root} has no folder {split!r}; {there}; {_LAYOUT}")


def check_split(root: str | os.PathLike[str], split: str) -> tuple[list[Pair], list[Problem]]:
    """(the good pairs, the problems) of one split, both sorted by file stem.

    DataError if there is no such folder or if it holds neither images nor annotations.
    """
    folder = split_folder(root, split)
    images: dict[str, list[Path]] = defaultdict(list)
    annotations: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.iterdir()):
        suffix = file.suffix.lower()
        if file.name.startswith(".") or not file.is_file():
            continue
        if suffix == ".json":
            annotations[file.stem].append(file)
        elif suffix in IMAGE_SUFFIXES:
            images[file.stem].append(file)
    stems = sorted({*images, *annotations})
    if not stems:
        raise DataError(
            f"the folder {folder} holds no images ({', '.join(IMAGE_SUFFIXES)}) and no annotations (.json); "
            f"{_LAYOUT}"
        )
    pairs: list[Pair] = []
    problems: list[Problem] = []
    for stem in tqdm(stems, desc=f"checking {split}", unit="file", delay=1, leave=False, disable=None):
        found = _check_stem(stem, images[stem], annotations[stem])
        if isinstance(found, Pair):
            pairs.append(found)
        else:
            problems += [Problem(file, what, split) for file, what in found]
    return pairs, problems


def _check_stem(stem: str, images: list[Path], annotations: list[Path]) -> Pair | list[tuple[Path, str]]:
    problems: list[tuple[Path, str]] = []
    if not annotations:
        problems.append((images[0], f"has no annotation; {stem}.json is expected beside it"))
    elif not images:
        expected = ", ".join(stem + suffix for suffix in IMAGE_SUFFIXES)
        problems.append((annotations[0], f"has no image; one of {expected} is expected beside it"))
    for files, kind in ((images, "image"), (annotations, "annotation")):
        if len(files) > 1:
            others = ", ".join(file.name for file in files[1:])
            problems.append((files[0], f"is not the only {kind} for {stem!r} (also {others}); leave one"))
    if os.fsencode(stem).decode("utf-8", "replace") != stem:
        # Escaped, so that the message can be printed.
        named = [Path(ascii(str(file))[1:-1]) for file in (*images, *annotations)]
        return [(file, "its name is not UTF-8; rename it") for file in named]
    size: tuple[int, int] | None = None
    for image in images:
        try:
            size = _check_image(image)
        except ImageError as error:
            problems.append((image, str(error).removeprefix(str(image)).strip()))
    texts: tuple[str, ...] = ()
    for annotation in annotations:
        texts, found = _check_annotation(annotation, size if len(images) == 1 else None)
        problems += [(annotation, what) for what in found]
    return problems or Pair(stem, images[0], annotations[0], texts)


def _check_image(path: Path) -> tuple[int, int]:
    """(height, width); ImageError."""
    size = image_size(path)
    if _may_be_damaged(path):
        read_image(path)
    return size


def _may_be_damaged(path: Path) -> bool:
    """Whether a JPEG does not end with its mark, or a PNG's checksums are wrong; only then is it decoded."""
    with path.open("rb") as file:
        head = file.read(8)
        file.seek(max(0, os.fstat(file.fileno()).st_size - 65536))
        tail = file.read()
    if head.startswith(b"\xff\xd8"):
        # The end mark must come after the pixels begin: the thumbnail in the header has one too.
        return tail.rfind(b"\xff\xd9") <= tail.rfind(b"\xff\xda")
    if not head.startswith(b"\x89PNG"):
        return True
    try:
        with Image.open(path) as image:
            image.verify()
    except Exception:  # what is wrong, and whether it matters, is said by decoding it
        return True
    return False


def _check_annotation(path: Path, size: tuple[int, int] | None) -> tuple[tuple[str, ...], list[str]]:
    """(the texts, what is wrong); ``size`` is (height, width) of the image where that is known."""
    parsed = parse_annotation(path)
    annotation, problems = parsed.annotation, list(parsed.problems)
    # Where a part could not be read, what seems to be missing may be just that.
    if parsed.texts_read and not annotation.texts:
        problems.append('"text" is empty; at least one query is expected')
    for number, text in enumerate(annotation.texts, 1):
        if fault := text_fault(text):
            problems.append(f"text {number} of {len(annotation.texts)}: {fault}")
    has_target = annotation.no_target or any(label_value(shape.label) == 1 for shape in annotation.shapes)
    if parsed.shapes_read and not has_target:
        problems.append(
            "no polygon: it has no shape to segment, apart from 'flag' and 'ignore'; where nothing is the right "
            'answer, say so: "no_target": true'
        )
    for name, shape in zip(parsed.shape_names, annotation.shapes, strict=True):
        if shape.kind == "polygon" and len(shape.points) < 3:
            problems.append(f"{name}: a polygon of {len(shape.points)} points; at least 3 are expected")
        elif size is not None and (where := _outside(shape, *size)):
            problems.append(f"{name}: {where}, which is {size[1]} x {size[0]}")
    hides = any(label_value(shape.label) == IGNORE for shape in annotation.shapes)
    drawn = rasterize(annotation, *size) if size is not None and hides and not problems else None
    if drawn is not None and not annotation.no_target and not (drawn == 1).any():
        problems.append("its target is completely covered by 'ignore'; nothing of it would be counted")
    return annotation.texts, problems


def text_fault(text: str) -> str | None:
    """What is wrong with a query that has one mask, in words; None: nothing that shows without a model."""
    try:
        with_seg(text)
    except ConfigError as error:
        return str(error)
    if (count := text.count(SEG_TOKEN)) > 1:
        return (
            f"it holds {count} {SEG_TOKEN} and the annotation one mask; leave one, or none (it is appended)"
        )
    return None


def _outside(shape: Shape, height: int, width: int) -> str | None:
    points = np.trunc(shape.points)
    if shape.kind == "circle":
        radius = float(np.hypot(*(points[1] - points[0])))
        points = np.array([points[0] - radius, points[0] + radius])
    last = np.array([width - 1, height - 1])
    beyond = float(max((-points).max(), (points - last).max()))
    if beyond <= 0:
        return None
    if not draw_shape(np.zeros((height, width), np.uint8), shape, 1).any():
        return f"the {shape.kind} lies outside the image"
    # One pixel in any case: tools write the width and height themselves for the right and lower border.
    if beyond > max(1.0, FAR_OUTSIDE * max(height, width)):
        return f"the {shape.kind} reaches {beyond:.0f} pixels outside the image"
    return None
