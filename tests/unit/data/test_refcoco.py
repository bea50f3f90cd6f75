"""refCOCO and its kin from files in their own format."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco

from modified_lisa.config import DATASETS
from modified_lisa.data.coco_masks import coco_area, coco_mask
from modified_lisa.data.opening import PROTOCOLS, open_dataset
from modified_lisa.data.refcoco import RefCocoDataset
from modified_lisa.errors import ConfigError, DataError
from refcoco_folder import (
    HEIGHT,
    SQUARE,
    TRIANGLE,
    WIDTH,
    block,
    compressed,
    make_refcoco,
    reference,
    uncompressed,
)


def drawn(*polygons: list[float]) -> np.ndarray:
    """As the original LISA draws them."""
    return (coco.decode(coco.frPyObjects(list(polygons), HEIGHT, WIDTH)).sum(axis=2) > 0).astype(np.uint8)


@pytest.mark.parametrize(("name", "split_by"), [("refcoco", "unc"), ("refcoco+", "unc"), ("refcocog", "umd")])
def test_a_sample_for_each_sentence(tmp_path: Path, name: str, split_by: str) -> None:
    make_refcoco(tmp_path, name, split_by)
    samples = RefCocoDataset(tmp_path, name, "val")
    assert samples.names == [
        "val/COCO_train2014_000000000008#100",
        "val/COCO_train2014_000000000008#101",
        "val/COCO_train2014_000000000007#200",
    ]
    assert [sample.text for sample in samples] == ["the square", "left thing", "two triangles"]
    assert [sample.name for sample in samples] == samples.names
    np.testing.assert_array_equal(samples[0].target, drawn(SQUARE))
    np.testing.assert_array_equal(samples[2].target, drawn(*TRIANGLE))
    assert samples[0].image.shape == (HEIGHT, WIDTH, 3)
    again = pickle.loads(pickle.dumps(samples))
    np.testing.assert_array_equal(again[1].target, samples[1].target)
    assert len(RefCocoDataset(tmp_path, name, "val", max_samples=2)) == 2


def test_run_lengths_of_both_kinds(tmp_path: Path) -> None:
    samples = RefCocoDataset(make_refcoco(tmp_path), "refcoco", "testA")
    for sample in samples:
        np.testing.assert_array_equal(sample.target, block())


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30))
def test_run_lengths_give_back_the_mask(seed: int, height: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((height, width)) < rng.random()).astype(np.uint8)
    for runs in (compressed(mask), uncompressed(mask)):
        np.testing.assert_array_equal(coco_mask(runs, height, width), mask)


def test_several_targets_and_none(tmp_path: Path) -> None:
    samples = list(RefCocoDataset(make_refcoco(tmp_path, "grefcoco"), "grefcoco", "val"))
    np.testing.assert_array_equal(samples[1].target, drawn(SQUARE) | drawn(*TRIANGLE) | block())
    assert not samples[2].target.any()
    assert [sample.groups["type"] for sample in samples] == ["one target", "several targets", "no target"]


def test_another_split_of_the_same_set_and_another_folder_of_images(tmp_path: Path) -> None:
    make_refcoco(tmp_path, "refcocog", "google")
    (tmp_path / "images").rename(tmp_path / "photos")
    photos = tmp_path / "photos" / "mscoco" / "images" / "train2014"
    with pytest.raises(DataError, match="--images_dir"):
        RefCocoDataset(tmp_path, "refcocog", "val")
    with pytest.raises(DataError, match=r"refs\(google\)\.p: choose by --split_by"):
        RefCocoDataset(tmp_path, "refcocog", "val", images_dir=photos)
    assert len(RefCocoDataset(tmp_path, "refcocog", "val", split_by="google", images_dir=photos)) == 3


def test_pickles_that_could_run_code_are_refused(tmp_path: Path) -> None:
    make_refcoco(tmp_path)
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps([{"split": print}]))
    with pytest.raises(DataError, match=r"refs\(unc\)\.p: it asks for .*print"):
        RefCocoDataset(tmp_path, "refcoco", "val")


def rewrite(root: Path, change: Any) -> None:
    """Change the content of instances.json."""
    file = root / "refcoco" / "instances.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("segmentation", "says"),
    [
        (None, "polygons or run lengths"),
        ([], "polygons or run lengths"),
        ([[1, 2, 3, 4]], "x, y, x, y"),
        ([[1, 2, 3, 4, 5, 6, 7]], "x, y, x, y"),
        ([[1, 2, 3, 4, 5, "6"]], "finite pixel"),
        ([[1, 2, 3, 4, 5, float("nan")]], "finite pixel"),
        ([[1, 2, 3, 4, 5, 1e12]], "finite pixel"),
        ({"size": [1, 2], "counts": [2]}, "are for the size"),
        ({"size": [HEIGHT, WIDTH], "counts": [2, 3]}, "cover 5 pixels"),
        ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH + 5, -5]}, "list of numbers"),
        ({"size": [HEIGHT, WIDTH], "counts": "abc"}, "cover|damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": "ooooooooooooooooooo"}, "damaged"),
        ({"size": [HEIGHT, WIDTH], "counts": "ß"}, "cover|damaged"),
        ({"size": [HEIGHT, WIDTH]}, "list of numbers"),
        ([[1000, 1000, 1100, 1000, 1100, 1100]], "no pixel in the image"),
        ([[1, 1, 1, 1, 1, 1]], "no pixel in the image"),
        ({"size": [HEIGHT, WIDTH], "counts": [HEIGHT * WIDTH]}, "no pixel in the image"),
    ],
)
def test_segmentations_that_cannot_be_drawn(tmp_path: Path, segmentation: Any, says: str) -> None:
    make_refcoco(tmp_path)
    rewrite(tmp_path, lambda content: content["annotations"][0].update(segmentation=segmentation))
    with pytest.raises(DataError, match=says) as raised:
        RefCocoDataset(tmp_path, "refcoco", "val")
    assert "reference 1" in str(raised.value)
    rest = RefCocoDataset(tmp_path, "refcoco", "val", skip_bad_samples=True)
    assert [sample.text for sample in rest] == ["two triangles"]
    assert len(rest.problems) == 1


def test_every_problem_is_listed_before_a_model_is_loaded(tmp_path: Path) -> None:
    make_refcoco(tmp_path)
    bad = [
        {**reference(1, 1001, "val", "it"), "image_id": 99},
        reference(2, 99, "val", "it"),
        reference(3, 1001, "val"),
        reference(4, 1001, "val", " "),
        {**reference(5, [1001], "val", "it"), "image_id": [1]},
        reference(6, [], "val", "it"),
        reference(7, 1001, "val", "a <SEG> and a <SEG>"),
        reference(8, 1001, "val", "\udc00 it"),
        reference(9, 1001, "val", "it"),
        reference(9, 1001, "val", "it again"),
    ]
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(bad))
    with pytest.raises(DataError, match="9 problems") as raised:
        RefCocoDataset(tmp_path, "refcoco", "val")
    wanted = [
        "image 99",
        "annotation 99",
        "no sentences",
        "sentence 1",
        "image",
        "no annotation; only gRefCOCO",
    ]
    wanted += ["sentence 1: it holds 2 <SEG>", "is not valid text", "sentence 900 is that of another"]
    for number, says in enumerate(wanted, 1):
        assert f"reference {number}: " in str(raised.value)
        assert says in str(raised.value)


def test_names_do_not_lead_out_of_the_folder_of_images(tmp_path: Path) -> None:
    make_refcoco(tmp_path)
    rewrite(tmp_path, lambda content: content["images"][1].update(file_name="../../secret.jpg"))
    with pytest.raises(DataError, match=r"train2014/secret\.jpg"):
        RefCocoDataset(tmp_path, "refcoco", "val")


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    make_refcoco(tmp_path)
    samples = RefCocoDataset(tmp_path, "refcoco", "val")
    Image.new("RGB", (9, 9)).save(samples.images_dir / "COCO_train2014_000000000008.jpg")
    with pytest.raises(DataError, match=r"9 x 9 and instances\.json says 60 x 40"):
        samples[0]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("instances.json", "{", "not valid JSON"),
        ("instances.json", "[]", "no list of images"),
        ("instances.json", '{"images": [{}], "annotations": []}', "with an id"),
        ("instances.json", None, "there is no file"),
        ("refs(unc).p", "(lp0\n.", "a list of references"),
        ("refs(unc).p", None, "download the references"),
    ],
)
def test_files_that_are_not_what_they_should_be(tmp_path: Path, file: str, content: Any, says: str) -> None:
    make_refcoco(tmp_path)
    if content is None:
        (tmp_path / "refcoco" / file).unlink()
    else:
        (tmp_path / "refcoco" / file).write_text(content)
    with pytest.raises(DataError, match=says):
        RefCocoDataset(tmp_path, "refcoco", "val")


def test_what_does_not_exist(tmp_path: Path) -> None:
    make_refcoco(tmp_path)
    with pytest.raises(DataError, match="testA, train, val"):
        RefCocoDataset(tmp_path, "refcoco", "testC")
    with pytest.raises(DataError, match=r"no folder .*refcoco\+"):
        RefCocoDataset(tmp_path, "refcoco+", "val")
    with pytest.raises(ConfigError, match="coco17"):
        RefCocoDataset(tmp_path, "coco17", "val")
    with pytest.raises(ConfigError, match="max_samples"):
        RefCocoDataset(tmp_path, "refcoco", "val", max_samples=0)


def test_the_one_door(tmp_path: Path) -> None:
    make_refcoco(tmp_path)
    assert len(open_dataset(tmp_path, "val", dataset="refcoco", max_samples=1)) == 1
    assert tuple(PROTOCOLS) == DATASETS
    with pytest.raises(ConfigError, match="--split_by"):
        open_dataset(tmp_path, "val", split_by="unc")
    with pytest.raises(ConfigError, match="--dataset"):
        open_dataset(tmp_path, "val", dataset="coco")


def test_ids_are_numbers_or_names(tmp_path: Path) -> None:
    make_refcoco(tmp_path)
    rewrite(tmp_path, lambda content: content["images"][0].update(id=[9]))
    with pytest.raises(DataError, match="no list of images with an id each"):
        RefCocoDataset(tmp_path, "refcoco", "val")


def test_areas_are_those_of_the_masks(tmp_path: Path) -> None:
    for segmentation in (TRIANGLE, compressed(block()), uncompressed(block())):
        assert coco_area(segmentation, HEIGHT, WIDTH) == coco_mask(segmentation, HEIGHT, WIDTH).sum()
