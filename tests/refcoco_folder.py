"""A small folder in the layout of refCOCO and its kin, for tests."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco

HEIGHT, WIDTH = 40, 60
SQUARE = [10.5, 10.0, 25.0, 10.0, 25.0, 22.25, 10.5, 22.25]
TRIANGLE = [[30.0, 5.0, 50.0, 5.0, 50.0, 30.0], [2.0, 30.0, 8.0, 30.0, 8.0, 38.0]]


def block() -> np.ndarray:
    """The mask of the annotations that are run lengths."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[3:12, 40:55] = 1
    return mask


def compressed(mask: np.ndarray) -> dict[str, Any]:
    run = coco.encode(np.asfortranarray(mask))
    return {"size": list(run["size"]), "counts": run["counts"].decode("ascii")}


def uncompressed(mask: np.ndarray) -> dict[str, Any]:
    flat = mask.flatten(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *edges, len(flat)]).tolist()
    return {"size": list(mask.shape), "counts": counts if flat[0] == 0 else [0, *counts]}


def reference(number: int, ann: Any, split: str, *sentences: str, **other: Any) -> dict[str, Any]:
    first = 100 * number
    return {
        "ref_id": number,
        "ann_id": ann,
        "image_id": 7 + number % 2,
        "category_id": 1,
        "file_name": f"COCO_train2014_{7 + number % 2:012d}_{number}.jpg",
        "split": split,
        "sent_ids": [first + i for i in range(len(sentences))],
        "sentences": [
            {"sent": text, "raw": text.upper(), "sent_id": first + i, "tokens": text.split()}
            for i, text in enumerate(sentences)
        ],
        **other,
    }


def make_refcoco(root: Path, name: str = "refcoco", split_by: str = "unc") -> Path:
    """Two images, four annotations; references in train, val and testA (gRefCOCO: train and val). Returns ``root``."""
    images = root / "images" / "mscoco" / "images" / "train2014"
    images.mkdir(parents=True, exist_ok=True)
    folder = root / name
    folder.mkdir(exist_ok=True)
    for number in (7, 8):
        pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"COCO_train2014_{number:012d}.jpg")
    segmentations = [[SQUARE], TRIANGLE, compressed(block()), uncompressed(block())]
    instances = {
        "images": [
            {"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg", "height": HEIGHT, "width": WIDTH}
            for n in (7, 8)
        ],
        "annotations": [
            {"id": 1001 + i, "image_id": 7, "category_id": 1, "iscrowd": 0, "segmentation": segmentation}
            for i, segmentation in enumerate(segmentations)
        ],
    }
    (folder / "instances.json").write_text(json.dumps(instances))
    if name == "grefcoco":
        references = [
            reference(1, [1001], "val", "the square"),
            reference(2, [1001, 1002, 1003], "val", "all of them", no_target=False),
            reference(3, [-1], "val", "the elephant", no_target=True),
            reference(4, [-1], "train", "the other elephant", no_target=True),
            reference(5, [1002, 1003], "train", "two of them", no_target=False),
        ]
        (folder / f"grefs({split_by}).json").write_text(json.dumps(references))
    else:
        references = [
            reference(1, 1001, "val", "the square", "left thing"),
            reference(2, 1002, "val", "two triangles"),
            reference(3, 1003, "testA", "the block"),
            reference(4, 1004, "testA", "the same block"),
            reference(5, 1001, "train", "one square", "the box"),
        ]
        (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(references, 2))
    return root
