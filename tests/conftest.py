"""Fixtures that any test may use."""

from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no failed test.
settings.register_profile("default", deadline=None)
settings.load_profile("default")

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Reference material beside the checkout; tests that read it skip where it is absent."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("the reference material (../shared) is not beside this checkout")
    return folder
