"""What is refused before a training starts."""

from pathlib import Path
from typing import Any

import pytest

from modified_lisa.config import TrainingConfig
from modified_lisa.errors import CheckpointError, ConfigError
from modified_lisa.training.report import make_accelerator
from modified_lisa.training.resume import find_checkpoint


def test_a_named_folder_without_a_checkpoint(tmp_path: Path) -> None:
    assert find_checkpoint("latest", tmp_path) is None
    (tmp_path / "best_model_epoch_1.pt").touch()
    with pytest.raises(CheckpointError, match=r"no checkpoint_epoch_N.pt in this folder"):
        find_checkpoint(str(tmp_path), "elsewhere")
    (tmp_path / "checkpoint_epoch_2.pt").touch()
    assert find_checkpoint(str(tmp_path), "elsewhere") == tmp_path / "checkpoint_epoch_2.pt"


def test_a_launcher_that_asks_for_what_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(**_: Any) -> None:
        raise ImportError("DeepSpeed is not installed.")

    monkeypatch.setattr("modified_lisa.training.report.Accelerator", without)
    with pytest.raises(ConfigError, match=r"DeepSpeed is not installed.*accelerate config"):
        make_accelerator(TrainingConfig(output_dir=str(tmp_path)))
