"""Sheets and curves: sizes, colours where they belong, long texts, odd images."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fake_lisa import FakeLISA
from modified_lisa.data.sample import Sample
from modified_lisa.inference.segmenter import Segmenter
from modified_lisa.pictures import CELL, GAP, curves, fixed_choice, overlay_sheet


def _sample(height: int, width: int, text: str = "what?") -> Sample:
    target = np.zeros((height, width), np.uint8)
    target[: height // 2] = 1
    target[-1:] = 255
    return Sample("val/x#0", np.full((height, width, 3), 128, np.uint8), text, target)


def _sheet(folder: Path, *samples: Sample, **options: Any) -> np.ndarray:
    path = overlay_sheet(folder / "sheet.png", Segmenter(FakeLISA()), samples, **options)
    return np.asarray(Image.open(path))


def test_truth_is_green_in_the_middle_column(tmp_path: Path) -> None:
    sheet = _sheet(tmp_path, _sample(60, 80)).astype(int)
    left = GAP + CELL + GAP
    greenish = sheet[..., 1] - sheet[..., 0] > 40
    columns = np.flatnonzero(greenish.any(axis=0))
    assert columns.min() >= left
    assert columns.max() < left + CELL
    assert greenish.sum() > 0.4 * CELL * CELL * 60 / 80


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 400), (400, 3), (900, 1200)])
def test_any_size_fits(tmp_path: Path, height: int, width: int) -> None:
    assert _sheet(tmp_path, _sample(height, width)).shape[1] == 3 * CELL + 4 * GAP


def test_long_text_is_wrapped_and_a_title_adds_a_line(tmp_path: Path) -> None:
    short, long = _sample(40, 40), _sample(40, 40, "the one that is " * 40)
    assert _sheet(tmp_path, long).shape[0] > _sheet(tmp_path, short).shape[0]
    assert _sheet(tmp_path, short, title="val").shape[0] > _sheet(tmp_path, short).shape[0]
    right_margin = _sheet(tmp_path, long)[:100, -GAP // 2 :]
    assert right_margin.min() == 255


@pytest.mark.filterwarnings("error")
def test_an_answer_without_a_mask(tmp_path: Path) -> None:
    sample = _sample(40, 40)
    silent = SimpleNamespace(mask=np.zeros((40, 40), bool), scores=np.zeros(0, np.float32))
    answering: Any = SimpleNamespace(segment=lambda image, query: silent)
    assert overlay_sheet(tmp_path / "sheet.png", answering, [sample]).is_file()


def test_fixed_choice_spreads() -> None:
    assert fixed_choice(3) == [0, 1, 2]
    assert fixed_choice(1) == [0]
    assert fixed_choice(101, 6) == [0, 20, 40, 60, 80, 100]
    assert fixed_choice(100) == fixed_choice(100)


@pytest.mark.parametrize("epochs", [1, 4])
def test_curves(tmp_path: Path, epochs: int) -> None:
    losses = {"loss": 1.0, "bce": 0.5, "dice": 0.3, "iou_loss": 0.2, "mIoU": 0.4, "cIoU": 0.5}
    records = [
        {"epoch": n, "train": losses, "val": {f"val_{key}": value / n for key, value in losses.items()}}
        for n in range(1, epochs + 1)
    ]
    with Image.open(curves(tmp_path / "curves.png", records)) as picture:
        assert picture.size == (1320, 504)
