"""What is refused before a training starts."""

import os
from pathlib import Path
from typing import Any

import pytest

from modified_lisa.config import TrainingConfig
from modified_lisa.data.scenes import generate
from modified_lisa.errors import CheckpointError, ConfigError
from modified_lisa.model.sharding import BLOCKS
from modified_lisa.training import resume
from modified_lisa.training.report import make_accelerator, wants_sharding
from modified_lisa.training.resume import find_checkpoint
from modified_lisa.training.run import train


def test_a_named_folder_without_a_checkpoint(tmp_path: Path) -> None:
    assert find_checkpoint("latest", tmp_path) is None
    (tmp_path / "best_model_epoch_1.pt").touch()
    with pytest.raises(CheckpointError, match=r"no checkpoint_epoch_N.pt in this folder"):
        find_checkpoint(str(tmp_path), "elsewhere")
    (tmp_path / "checkpoint_epoch_2.pt").touch()
    assert find_checkpoint(str(tmp_path), "elsewhere") == tmp_path / "checkpoint_epoch_2.pt"


@pytest.mark.parametrize("resume", ["latest", "checkpoint_epoch_1.pt", "nothing.pt"])
def test_a_checkpoint_to_resume_from_is_read_before_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resume: str
) -> None:
    monkeypatch.chdir(tmp_path)
    generate("data", train=1, val=1, test=0, seed=1, progress=False)
    Path("checkpoint_epoch_1.pt").write_bytes(b"PK torn")
    monkeypatch.setattr("modified_lisa.training.run.ModifiedLISA.from_config", None)
    config = TrainingConfig(data_dir="data", checkpoint_dir=".", resume=resume)
    with pytest.raises(CheckpointError, match=r"there is no checkpoint nothing|it is cut short"):
        train(config)


def test_an_earlier_run_stays_where_it_is_if_this_one_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("checkpoints").mkdir()
    earlier = Path("checkpoints/checkpoint_epoch_1.pt")
    earlier.touch()
    Path("outputs").touch()
    with pytest.raises(ConfigError, match="--output_dir is 'outputs', a file"):
        train(TrainingConfig())
    assert earlier.exists()


def test_a_launcher_that_asks_for_what_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(**_: Any) -> None:
        raise ImportError("DeepSpeed is not installed.")

    monkeypatch.setattr("modified_lisa.training.report.Accelerator", without)
    with pytest.raises(ConfigError, match=r"DeepSpeed is not installed.*accelerate config"):
        make_accelerator(TrainingConfig(output_dir=str(tmp_path)))


def test_the_configuration_for_fsdp_names_what_is_dealt_out(repository: Path) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(repository / "configs/accelerate/fsdp2.yaml"))
    settings = config.fsdp_config
    assert settings["fsdp_version"] == 2
    assert tuple(settings["fsdp_transformer_layer_cls_to_wrap"].split(",")) == BLOCKS
    assert not settings["fsdp_cpu_ram_efficient_loading"]


def test_fsdp_of_version_1_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Two:
        num_processes = 2
        distributed_type = type("Kind", (), {"value": "FSDP"})

    monkeypatch.setattr("modified_lisa.training.report.Accelerator", lambda **_: Two())
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ConfigError, match=r"fsdp_version: 2, as in configs/accelerate/fsdp2\.yaml"):
        make_accelerator(TrainingConfig(output_dir=str(tmp_path)))
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_CPU_RAM_EFFICIENT_LOADING", "true")
    assert wants_sharding(make_accelerator(TrainingConfig(output_dir=str(tmp_path))))
    assert os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] == "false"


def test_the_bridge_of_a_source_that_has_none_does_not_keep_from_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "--use_vlm_vision/--vision_source"
    for name in ("sam", "dual", "vlm"):
        was = {source: name, "--bridge": "pyramid", "--seed": 1}
        monkeypatch.setattr(resume, "load_checkpoint", lambda _, was=was: {"training": {"identity": was}})
        wanted = {**was, "--bridge": "fpn"}
        if name == "vlm":
            with pytest.raises(CheckpointError, match="--bridge: pyramid then, fpn now"):
                resume.load_resumable(tmp_path, wanted)
        else:
            assert resume.load_resumable(tmp_path, wanted)["training"]["identity"] == was
        with pytest.raises(CheckpointError, match="--seed: 1 then, 2 now"):
            resume.load_resumable(tmp_path, {**wanted, "--seed": 2})
