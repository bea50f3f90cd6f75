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


@pytest.fixture
def uncompiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compiled while graphs are captured runs as it is written: compiling takes seconds, and is torch's."""
    for name in ("fused.compiled", "fused._whole", "fused_llama.compiled"):
        monkeypatch.setattr(f"modified_lisa.model.{name}", lambda function: function)
