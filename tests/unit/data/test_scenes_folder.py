"""The folder writer: the same bytes for the same seed, ReasonSeg's layout, errors."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from modified_lisa.data import ReasonSegDataset, check_folder
from modified_lisa.data.annotation import rasterize, read_annotation
from modified_lisa.data.scenes import generate, make_sample
from modified_lisa.data.scenes.generate import to_labelme
from modified_lisa.errors import ConfigError, DataError


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("scenes") / "out"
    summary = generate(out, train=12, val=10, test=0, seed=7, workers=1, progress=False)
    assert summary["samples"] == {"train": 12, "val": 10}
    assert sum(summary["kinds"]["train"].values()) == 12
    assert summary["held_out"]["train"] == {"wording": 0, "combination": 0, "kind": 0}
    return out


def test_the_layout(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["train", "val"]
    assert sorted(path.name for path in (folder / "train").glob("*.json"))[:2] == [
        "scene_00001.json",
        "scene_00002.json",
    ]
    assert len(list((folder / "val").iterdir())) == 20


def test_same_seed_same_bytes_whatever_the_number_of_processes(folder: Path, tmp_path: Path) -> None:
    generate(tmp_path / "two", train=12, val=10, test=0, seed=7, workers=2, progress=False)
    assert contents(tmp_path / "two") == contents(folder)
    generate(tmp_path / "fewer", train=0, val=3, test=0, seed=7, workers=1, progress=False)
    fewer = contents(tmp_path / "fewer")
    assert len(fewer) == 6
    assert fewer.items() <= contents(folder).items()
    generate(tmp_path / "other", train=0, val=3, test=0, seed=8, workers=1, progress=False)
    assert not contents(tmp_path / "other").items() & fewer.items()


def test_the_reader_sees_the_drawn_pixels(folder: Path) -> None:
    for number in range(1, 11):
        scene, query = make_sample(7, "val", number)
        path = folder / "val" / f"scene_{number:05d}.json"
        annotation = read_annotation(path)
        assert annotation.texts == query.texts
        assert annotation.is_sentence is query.is_sentence
        expected = np.zeros((scene.height, scene.width), bool)
        for index in query.targets:
            expected |= scene.mask(index)
        drawn = rasterize(annotation, scene.height, scene.width)
        np.testing.assert_array_equal(drawn == 1, expected)
        with Image.open(path.with_suffix(".jpg")) as image:
            assert image.size == (scene.width, scene.height)
            assert image.mode == "RGB"
            assert not image.getexif()
            difference = np.abs(np.asarray(image).astype(int) - scene.image).mean()
        assert difference < 12  # noise is hard to compress; another picture is above 30
        facts = json.loads(path.read_text(encoding="utf-8"))
        assert facts["imagePath"] == f"scene_{number:05d}.jpg"
        assert facts["scene"]["kind"] == query.kind
        assert facts["scene"]["wording_held_out"] is query.wording_held_out
        assert facts["scene"]["kind_held_out"] is query.kind_held_out
        assert annotation.no_target is (not query.targets)
        assert ("no_target" in facts) is (not query.targets)
        assert len(facts["scene"]["objects"]) == len(scene.objects)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0), (1.0, 8)])
def test_the_share_without_a_target(tmp_path: Path, share: float, expected: int) -> None:
    made = generate(
        tmp_path / "out", train=8, val=0, test=0, seed=2, workers=1, no_target_share=share, progress=False
    )
    assert made["kinds"]["train"].get("no-target", 0) == expected
    assert not check_folder(tmp_path / "out", ["train"])
    samples = ReasonSegDataset(tmp_path / "out", "train", every_text=False)
    assert sum(not (sample.target == 1).any() for sample in samples) == expected
    for path in (tmp_path / "out" / "train").glob("*.json"):
        facts = json.loads(path.read_text(encoding="utf-8"))
        assert facts.get("no_target", False) is (facts["shapes"] == [])


def test_a_mirror_image_of_the_target_is_ignored() -> None:
    for number in range(1, 400):
        scene, query = make_sample(1, "train", number)
        if set(scene.reflections) & set(query.targets):
            shapes = to_labelme(scene, query, "x.jpg")["shapes"]
            mirrored = [shape for shape in shapes if shape["label"] == "ignore"]
            assert mirrored
            for polygon in mirrored:
                x, y = polygon["points"][0]
                assert scene.owner[y, x] == 0
            return
    pytest.fail("no reflection in 400 scenes")


def test_what_is_there_is_kept_or_replaced_on_demand(tmp_path: Path) -> None:
    out = tmp_path / "out"
    generate(out, train=3, val=0, test=0, seed=1, workers=1, progress=False)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        generate(out, train=1, val=0, test=0, seed=1, progress=False)
    generate(out, train=1, val=0, test=0, seed=2, overwrite=True, progress=False)
    assert sorted(contents(out)) == ["notes.txt", "train/scene_00001.jpg", "train/scene_00001.json"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        generate(tmp_path / "file", train=1, val=0, test=0, seed=0, progress=False)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ({"train": -1}, "--train is -1"),
        ({}, "all 0"),
        ({"train": 1, "seed": -3}, "--seed is -3"),
        ({"train": 1, "workers": 0}, "--workers is 0"),
        ({"train": 1, "no_target_share": 1.5}, "--no_target_share is 1.5"),
    ],
)
def test_numbers_that_cannot_be(tmp_path: Path, counts: dict[str, float], message: str) -> None:
    arguments = {"train": 0, "val": 0, "test": 0, "seed": 0, **counts}
    with pytest.raises(ConfigError, match=message):
        generate(tmp_path / "out", **arguments, progress=False)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(os.name != "posix", reason="needs a group of processes that gets one signal")
def test_an_interruption_is_one_line(tmp_path: Path) -> None:
    """Ctrl-C reaches the workers too, which say nothing and are ended by the command."""
    # As in a terminal: what is started in the background may be deaf to it.
    command = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    command += "from modified_lisa.apps.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["scenes", str(tmp_path / "out"), "--train", "5000", "--workers", "2"]
    process = subprocess.Popen(
        [sys.executable, "-c", command, *words],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("out/train/*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in said
    assert said.rstrip().endswith("modified-lisa: interrupted")
