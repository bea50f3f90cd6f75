import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from modified_lisa.data import ReasonSegDataset, Sample
from modified_lisa.errors import ConfigError, DataError, ImageError

SQUARE = [[2, 3], [5, 3], [5, 6], [2, 6]]


@pytest.fixture
def root(tmp_path):
    """Three images of different sizes; the second has two texts."""
    for split in ("train", "val"):
        folder = tmp_path / split
        folder.mkdir()
        for number, texts in ((10, ["ten"]), (2, ["two", "", "zwei"]), (1, ["one"])):
            pixels = np.full((12 + number, 20, 3), number, np.uint8)
            Image.fromarray(pixels).save(folder / f"image_{number}.png")
            shapes = [{"label": "target", "points": SQUARE}]
            (folder / f"image_{number}.json").write_text(json.dumps({"text": texts, "shapes": shapes}))
    return tmp_path


def test_training_has_a_sample_for_every_text(root):
    dataset = ReasonSegDataset(root, "train")
    assert dataset.names == ["train/image_1#0", "train/image_10#0", "train/image_2#0", "train/image_2#1"]
    assert [sample.text for sample in dataset] == ["one", "ten", "two", "zwei"]
    assert [sample.name for sample in dataset] == dataset.names
    assert len(dataset) == 4
    assert dataset.problems == []


def test_evaluation_has_the_first_text(root):
    dataset = ReasonSegDataset(str(root), "val")
    assert [sample.text for sample in dataset] == ["one", "ten", "two"]
    assert len(ReasonSegDataset(root, "val", every_text=True)) == 4
    assert len(ReasonSegDataset(root, "train", every_text=False)) == 3


def test_a_sample(root):
    sample = ReasonSegDataset(root, "train")[-1]
    assert (sample.image == 2).all()
    assert sample.image.shape == (14, 20, 3)
    assert sample.image.dtype == sample.target.dtype == np.uint8
    expected = np.zeros((14, 20), np.uint8)
    expected[3:7, 2:6] = 1
    np.testing.assert_array_equal(sample.target, expected)


def test_annotation(root):
    dataset = ReasonSegDataset(root, "train")
    assert dataset.annotation(3).texts == ("two", "zwei")
    assert dataset.annotation(3).path == root / "train" / "image_2.json"


def test_max_samples(root):
    assert ReasonSegDataset(root, "train", max_samples=3).names[-1] == "train/image_2#0"
    assert len(ReasonSegDataset(root, "train", max_samples=99)) == 4
    for bad in (0, -1, 1.5, True):
        with pytest.raises(ConfigError, match="max_samples"):
            ReasonSegDataset(root, "train", max_samples=bad)


def test_indices(root):
    dataset = ReasonSegDataset(root, "val")
    assert dataset[np.int64(1)].text == "ten"
    assert dataset[torch.tensor(1)].text == "ten"
    for index in (3, -4):
        with pytest.raises(IndexError):
            dataset[index]


def test_bad_samples_stop_it_or_are_skipped(root):
    (root / "train" / "image_10.json").write_text("{")
    (root / "train" / "extra.jpg").write_bytes(b"")
    with pytest.raises(DataError, match="--skip_bad_samples") as caught:
        ReasonSegDataset(root, "train")
    for name in ("extra.jpg", "extra.json", "image_10.json"):
        assert name in str(caught.value)
    dataset = ReasonSegDataset(root, "train", skip_bad_samples=True)
    assert dataset.names == ["train/image_1#0", "train/image_2#0", "train/image_2#1"]
    assert {problem.file.name for problem in dataset.problems} == {"extra.jpg", "image_10.json"}
    assert len(ReasonSegDataset(root, "val")) == 3


def test_nothing_left(root):
    for file in (root / "val").glob("*.json"):
        file.unlink()
    with pytest.raises(DataError, match=r"no sample of .*val can be used; 3 problems") as caught:
        ReasonSegDataset(root, "val", skip_bad_samples=True)
    assert "--skip_bad_samples" not in str(caught.value)


def test_missing_folders(root):
    with pytest.raises(DataError, match="no folder 'test'; its folders are train, val"):
        ReasonSegDataset(root, "test", skip_bad_samples=True)
    with pytest.raises(DataError, match="does not exist"):
        ReasonSegDataset(root / "nowhere", "train")
    with pytest.raises(DataError, match="images lie in it directly"):
        ReasonSegDataset(root / "train", "train")
    for bad in ("", "..", "train/x", None):
        with pytest.raises(DataError, match="the split is"):
            ReasonSegDataset(root, bad)


def test_files_that_go_bad_later_are_named(root):
    dataset = ReasonSegDataset(root, "val")
    (root / "val" / "image_1.png").unlink()
    with pytest.raises(ImageError, match=r"image_1\.png"):
        dataset[0]
    (root / "val" / "image_10.json").write_text("{")
    with pytest.raises(DataError, match=r"image_10\.json"):
        dataset[1]


def test_pickles(root):
    dataset = ReasonSegDataset(root, "train")
    assert [sample.text for sample in pickle.loads(pickle.dumps(dataset))] == [
        sample.text for sample in dataset
    ]


def test_sample_checks_itself():
    image, target = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8)
    assert Sample("train/a#0", image, "x", target).text == "x"
    with pytest.raises(DataError, match=r"train/a#0: the target"):
        Sample("train/a#0", image, "x", target.T)
    with pytest.raises(DataError, match=r"train/a#0: the image"):
        Sample("train/a#0", image.astype(float), "x", target)
