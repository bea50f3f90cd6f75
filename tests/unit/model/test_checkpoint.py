"""Checkpoints hold the trained weights, all of them, and nothing else."""

from pathlib import Path

import pytest
import torch

from factory import picture, tiny_model
from modified_lisa import ModifiedLISA
from modified_lisa.errors import CheckpointError
from modified_lisa.model.checkpoint import load_checkpoint, save_checkpoint


def _mask(model: ModifiedLISA) -> torch.Tensor:
    with torch.no_grad():
        return model([picture()], ["round"])["pred_masks"][0]


@pytest.mark.parametrize("source", ["vlm", "sam", "dual"])
@pytest.mark.parametrize("options", [{}, {"lora_r": 2, "train_mask_decoder": True, "train_projector": True}])
def test_both_forms_bring_the_model_back(tmp_path: Path, source: str, options: dict[str, object]) -> None:
    model = tiny_model(3, vision_source=source, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.01)
    path = save_checkpoint(tmp_path / "best_model_epoch_1.pt", model, epoch=1, metrics={"mIoU": 0.5})
    model.save_pretrained(tmp_path / "folder")
    for saved in (path, tmp_path / "folder"):
        again = ModifiedLISA.from_pretrained(saved, device="cpu")
        assert again.config == model.config
        assert torch.equal(_mask(again), _mask(model))


def test_the_inference_snippet_of_the_specification(tmp_path: Path) -> None:
    model = tiny_model(3)
    save_checkpoint(tmp_path / "best_model_epoch_20.pt", model)
    fresh = tiny_model(4)
    assert not torch.equal(_mask(fresh), _mask(model))
    checkpoint = torch.load(tmp_path / "best_model_epoch_20.pt")
    fresh.load_state_dict(checkpoint["model_state_dict"])
    fresh.eval()
    assert torch.equal(_mask(fresh), _mask(model))


def test_the_file_holds_trained_weights_only(tmp_path: Path) -> None:
    model = tiny_model(quantize=True)
    content = load_checkpoint(save_checkpoint(tmp_path / "a.pt", model))
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set(content["model_state_dict"]) == names
    assert not any(".encoder." in name or name.startswith("language_model") for name in names)


def test_what_does_not_fit_is_named_all_at_once() -> None:
    model = tiny_model()
    before = _mask(model)
    weights = model.trainable_state_dict()
    weights.pop("seg_embedding.row")
    weights["somewhere.else"] = torch.zeros(1)
    weights["seg_projection.1.weight"] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError) as caught:
        model.load_state_dict(weights)
    for part in ("seg_embedding.row", "somewhere.else", "seg_projection.1.weight is (2, 2)"):
        assert part in str(caught.value)
    assert torch.equal(_mask(model), before), "a refused load leaves the model as it was"


def test_frozen_weights_may_be_given() -> None:
    model, other = tiny_model(1), tiny_model(2)
    other.load_state_dict(model.state_dict())
    assert torch.equal(_mask(model), _mask(other))


def test_lora_weights_do_not_slip_into_a_model_without_lora(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "lora.pt", tiny_model(lora_r=2))
    with pytest.raises(CheckpointError, match="unknown"):
        tiny_model().load_state_dict(load_checkpoint(path)["model_state_dict"])


def test_bad_files_say_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "nowhere" / "a.pt")
    path = save_checkpoint(tmp_path / "best_model_epoch_3.pt", tiny_model())
    with pytest.raises(CheckpointError, match=r"holds best_model_epoch_3\.pt"):
        load_checkpoint(tmp_path / "best_model_epoch_4.pt")
    torn = tmp_path / "torn.pt"
    torn.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint: it is cut short"):
        load_checkpoint(torn)
    (tmp_path / "text.pt").write_text("hello")
    with pytest.raises(CheckpointError, match=r"\(5 bytes\) cannot be read .* not what torch\.save writes"):
        load_checkpoint(tmp_path / "text.pt")
    torch.save({"weights": 1}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="not a Modified LISA checkpoint"):
        load_checkpoint(tmp_path / "foreign.pt")
    torch.save(
        {"format": "modified-lisa-1", "config": {"depth": 3}, "model_state_dict": {}}, tmp_path / "newer.pt"
    )
    with pytest.raises(CheckpointError, match="depth"):
        ModifiedLISA.from_pretrained(tmp_path / "newer.pt")
    content = {"format": "modified-lisa-1", "config": {"bridge_layers": "last"}, "model_state_dict": {}}
    torch.save(content, tmp_path / "edited.pt")
    with pytest.raises(CheckpointError, match="bridge_layers is 'last'; it must be a list"):
        ModifiedLISA.from_pretrained(tmp_path / "edited.pt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no config.json and no model.safetensors"):
        ModifiedLISA.from_pretrained(tmp_path / "empty")


class _Trick:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this ran",)


def test_nothing_in_a_file_is_ever_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"format": "modified-lisa-1", "x": _Trick()}, tmp_path / "trick.pt")
    with pytest.raises(CheckpointError, match=r"it asks for (\w+\.)?print;.* could run code$"):
        load_checkpoint(tmp_path / "trick.pt")
    assert "this ran" not in capsys.readouterr().out
