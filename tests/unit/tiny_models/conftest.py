"""The scripts of scripts/tiny_models can be imported here by their names, and a small tokenizer is there."""

import sys
from pathlib import Path

import pytest

from factory import TEXTS
from modified_lisa.model.tiny import build_tokenizer

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts" / "tiny_models"


@pytest.fixture(scope="module", autouse=True)
def scripts():
    sys.path.insert(0, str(SCRIPTS))
    yield
    sys.path.remove(str(SCRIPTS))


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer([*TEXTS, *["segmentation mask"] * 20], 500)
