"""A checkpoint in the original's layout."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from original_lisa_factory import make_checkpoint


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Its folder, and its weights."""
    folder = tmp_path_factory.mktemp("lisa") / "lisa"
    return folder, make_checkpoint(folder)


@pytest.fixture
def copy(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(made[0], tmp_path / "lisa"))
