"""refCOCO, refCOCO+, refCOCOg and gRefCOCO, read from their own files.

The layout is that of their authors and of LISA's ``refer_seg``::

    ROOT/refcoco/instances.json      COCO's images and annotations
    ROOT/refcoco/refs(unc).p         who is meant by which words (gRefCOCO: grefs(unc).json)
    ROOT/images/mscoco/images/train2014/COCO_train2014_000000000009.jpg
"""

import json
import operator
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modified_lisa.data.check import text_fault
from modified_lisa.data.coco_masks import coco_area, coco_mask
from modified_lisa.data.plain_pickle import read_plain_pickle
from modified_lisa.data.sample import Sample
from modified_lisa.errors import ConfigError, DataError
from modified_lisa.images import read_image
from modified_lisa.prompts import Query

__all__ = ["REFCOCO", "RefCocoDataset"]

REFCOCO = {"refcoco": "unc", "refcoco+": "unc", "refcocog": "umd", "grefcoco": "unc"}
"""{name of the set: who made its usual split}."""
IMAGES = Path("images") / "mscoco" / "images" / "train2014"
_LISTED = 20


@dataclass(frozen=True)
class _Reference:
    """One sentence and what it means."""

    name: str
    text: str
    image: Path
    size: tuple[int, int]
    """(height, width)."""
    segmentations: tuple[Any, ...]
    """As COCO has them, one for each object that is meant; () where none is."""


class RefCocoDataset:
    """One sample for each sentence of a split, in the order of the file; the objects meant are one mask.

    A sentence that means nothing in the image (gRefCOCO's ``no_target``) has an empty target. Masks are
    drawn by COCO's own rasteriser, so they are the masks that published results are measured on.

    ``root``: see above; ``name``: one of `REFCOCO`; ``split``: ``val``, ``testA``, ...; ``split_by``: the part
    in brackets of the file's name; ``images_dir``: the folder with COCO's images. ``max_samples``: only the
    first so many. All annotations are checked as the set is opened, and one DataError lists what is wrong,
    unless ``skip_bad_samples``: then those samples are left out, and ``problems`` says which. A file that is
    missing or cannot be read, and a set in which no sample is left, is a DataError in any case. Images are
    read when a sample is asked for. Pickles, for the workers of a `torch.utils.data.DataLoader`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        name: str,
        split: str,
        *,
        split_by: str | None = None,
        images_dir: str | os.PathLike[str] | None = None,
        max_samples: int | None = None,
        skip_bad_samples: bool = False,
    ) -> None:
        if name not in REFCOCO:
            raise ConfigError(f"the data set is {name!r}; one of {', '.join(REFCOCO)} is expected")
        if max_samples is not None and (isinstance(max_samples, bool) or max_samples < 1):
            raise ConfigError(f"max_samples is {max_samples!r}; at least 1, or None, is expected")
        self.name, self.split = name, split
        folder = Path(root) / name
        if not folder.is_dir():
            raise DataError(
                f"there is no folder {folder}; it should hold instances.json and the references of {name}"
            )
        self.images_dir = Path(root) / IMAGES if images_dir is None else Path(images_dir)
        if not self.images_dir.is_dir():
            raise DataError(
                f"there is no folder {self.images_dir}; name the folder of COCO's images (--images_dir)"
            )
        file, references = _read_references(folder, name, split_by or REFCOCO[name])
        splits = sorted({str(entry.get("split")) for entry in references})
        chosen = [entry for entry in references if entry.get("split") == split]
        if not chosen:
            raise DataError(f"{file} has no split {split!r}; its splits are {', '.join(splits[:_LISTED])}")
        images, annotations = _read_instances(folder / "instances.json")
        self.skips = skip_bad_samples
        self._samples: list[_Reference] = []
        self.problems: list[str] = []
        """What was left out; empty without ``skip_bad_samples``."""
        known: set[str] = set()
        for entry in chosen:
            try:
                found = self._parse(entry, images, annotations)
                if twice := sorted({one.name for one in found} & known):
                    raise DataError(
                        f"its sentence {twice[0].rpartition('#')[2]} is that of another reference"
                    )
                known |= {one.name for one in found}
                self._samples += found
            except DataError as error:
                self.problems.append(f"{file}: reference {entry.get('ref_id')!r}: {error}")
            if max_samples is not None and len(self._samples) >= max_samples:
                break
        self._samples = self._samples[:max_samples]
        if self.problems and (not skip_bad_samples or not self._samples):
            more = [f"... and {len(self.problems) - _LISTED} more"] if len(self.problems) > _LISTED else []
            listed = "\n  ".join([*self.problems[:_LISTED], *more])
            raise DataError(
                f"{len(self.problems)} problem{'s' * (len(self.problems) != 1)} in the data:\n  {listed}\nRepair these files, or go on without those "
                "samples: --skip_bad_samples (skip_bad_samples=True in Python)"
            )

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and draw its mask; ImageError or DataError if they do not fit."""
        reference = self._samples[operator.index(index)]
        image = read_image(reference.image)
        if image.shape[:2] != reference.size:
            height, width = reference.size
            raise DataError(
                f"{reference.image} is {image.shape[1]} x {image.shape[0]} and instances.json says {width} x {height}"
            )
        target = np.zeros(reference.size, np.uint8)
        for segmentation in reference.segmentations:
            target |= coco_mask(segmentation, *reference.size)
        text = Query(reference.text, is_sentence=False)
        return Sample(reference.name, image, text, target, self._groups(reference))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def names(self) -> list[str]:
        """``SPLIT/image_file#number of the sentence``, without reading the samples."""
        return [reference.name for reference in self._samples]

    @property
    def texts(self) -> list[str]:
        """The samples' sentences, without reading them."""
        return [reference.text for reference in self._samples]

    def leave_out(self, faults: Mapping[int, str]) -> None:
        """Drop the samples of these numbers, for what is wrong with each; it is among ``problems`` then."""
        self.problems += [f"{self._samples[number].name}: {what}" for number, what in faults.items()]
        self._samples = [sample for number, sample in enumerate(self._samples) if number not in faults]

    def _groups(self, reference: _Reference) -> dict[str, str]:
        if self.name != "grefcoco":
            return {}
        return {
            "type": {0: "no target", 1: "one target"}.get(len(reference.segmentations), "several targets")
        }

    def _parse(
        self, entry: Mapping[str, Any], images: Mapping[Any, Any], annotations: Mapping[Any, Any]
    ) -> list[_Reference]:
        """The sentences of one reference; DataError."""
        image = images.get(_key(entry.get("image_id")))
        if image is None:
            raise DataError(f"its image {entry.get('image_id')!r} is not in instances.json")
        try:
            file, size = str(image["file_name"]), (int(image["height"]), int(image["width"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"its image {image.get('id')!r} has no file_name, height and width") from error
        # A name with folders in it must not lead out of the folder of images.
        path = self.images_dir / Path(file).name
        if not path.is_file():
            raise DataError(f"there is no image {path}")
        wanted = entry.get("ann_id")
        wanted = list(wanted) if isinstance(wanted, list | tuple) else [wanted]
        if entry.get("no_target") or wanted in ([], [-1]):  # gRefCOCO writes both
            wanted = []
        if not wanted and self.name != "grefcoco":
            raise DataError("it means no annotation; only gRefCOCO has references to what is not there")
        found = [annotations.get(_key(number)) for number in wanted]
        for number, annotation in zip(wanted, found, strict=True):
            if annotation is None:
                raise DataError(f"its annotation {number!r} is not in instances.json")
            if not coco_area(annotation.get("segmentation"), *size):
                raise DataError(f"its annotation {number!r} has no pixel in the image")
        segmentations = tuple(annotation["segmentation"] for annotation in found if annotation is not None)
        sentences = entry.get("sentences")
        if not isinstance(sentences, list) or not sentences:
            raise DataError("it has no sentences")
        references = []
        for number, sentence in enumerate(sentences):
            text = (sentence.get("sent") or sentence.get("raw")) if isinstance(sentence, dict) else None
            if not isinstance(text, str) or not text.strip():
                raise DataError(
                    f"its sentence {number + 1} is {sentence!r:.60}; an object with 'sent' is expected"
                )
            if fault := text_fault(text):
                raise DataError(f"its sentence {number + 1}: {fault}")
            name = f"{self.split}/{Path(file).stem}#{_sentence_id(entry, sentence, number)}"
            references.append(_Reference(name, text.strip(), path, size, segmentations))
        return references


def _sentence_id(entry: Mapping[str, Any], sentence: Mapping[str, Any], number: int) -> object:
    return sentence.get("sent_id", f"{entry.get('ref_id')}.{number}")


def _key(value: object) -> object:
    return value if isinstance(value, int | str) else None


def _read_references(folder: Path, name: str, split_by: str) -> tuple[Path, list[dict[str, Any]]]:
    stem = "grefs" if name == "grefcoco" else "refs"
    choices = [folder / f"{stem}({split_by}){ending}" for ending in (".json", ".p")]
    file = next((choice for choice in choices if choice.is_file()), None)
    if file is None:
        there = sorted(entry.name for entry in folder.iterdir() if "refs(" in entry.name)
        raise DataError(
            f"{folder} has neither {choices[0].name} nor {choices[1].name}; "
            + (f"there is {', '.join(there)}: choose by --split_by" if there else "download the references")
        )
    content = _read_json(file) if file.suffix == ".json" else read_plain_pickle(file)
    if not isinstance(content, list) or not content or not all(isinstance(entry, dict) for entry in content):
        raise DataError(f"{file} holds {content!r:.60}; a list of references is expected")
    return file, content


def _read_instances(file: Path) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """({image id: image}, {annotation id: annotation})."""
    content = _read_json(file)
    tables = []
    for key in ("images", "annotations"):
        listed = content.get(key) if isinstance(content, dict) else None
        if not isinstance(listed, list) or not all(
            isinstance(e, dict) and isinstance(e.get("id"), int | str) for e in listed
        ):
            raise DataError(f"{file} has no list of {key} with an id each; COCO's instances.json is expected")
        tables.append({entry["id"]: entry for entry in listed})
    return tables[0], tables[1]


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"there is no file {file}; check the path") from error
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file} is not valid JSON ({error}); download it again") from error
