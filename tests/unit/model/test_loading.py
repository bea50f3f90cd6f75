"""Names to modules: what is 4-bit, and what a wrong name says."""

from pathlib import Path

import pytest
import torch

from factory import folders, tiny_model
from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError, ModelLoadError, QuantizationError
from modified_lisa.model.loading import find_device, load_vlm
from modified_lisa.model.quantization import inspect_quantization


def _config(**changes: object) -> ModelConfig:
    vlm, sam = folders()
    return ModelConfig(**{"vlm_name": vlm, "sam_name": sam, "dtype": "fp32", **changes})  # type: ignore[arg-type]


def test_exactly_the_language_models_linear_layers_are_in_four_bit() -> None:
    vlm, report = load_vlm(_config(), torch.device("cpu"))
    four_bit = {name for name, module in vlm.named_modules() if type(module).__name__ == "Linear4bit"}
    expected = {
        f"model.language_model.layers.{layer}.{part}"
        for layer in range(2)
        for part in (
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
            *(f"self_attn.{n}_proj" for n in "qkvo"),
        )
    }
    assert four_bit == expected
    assert {layer.name for layer in report.quantized} == expected
    with pytest.raises(QuantizationError, match="asked for no quantisation"):
        inspect_quantization(vlm, "none").check()


def test_a_plain_model_is_noticed_when_four_bit_was_asked_for() -> None:
    vlm, _ = load_vlm(_config(quantize=False), torch.device("cpu"))
    with pytest.raises(QuantizationError, match="14 of the language model's are not"):
        inspect_quantization(vlm, "nf4").check()


@pytest.mark.parametrize("source", ["vlm", "sam", "dual"])
def test_bridge_projection_embeddings_and_decoder_are_never_quantised(source: str) -> None:
    model = tiny_model(quantize=True, dtype="bf16", vision_source=source)
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit":
            assert name.startswith("language_model.layers.")
    assert (
        model.describe_parameters()["total"]
        == tiny_model(vision_source=source).describe_parameters()["total"]
    )


def test_wrong_names_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    vlm, sam = folders()
    cases = [
        ({"vlm_name": str(tmp_path / "none")}, "no such folder"),
        ({"vlm_name": "./none"}, "no such folder"),
        ({"vlm_name": "nobody/nothing-of-this-name"}, "hf download nobody/nothing-of-this-name"),
        ({"vlm_name": sam}, "of type 'sam'"),
        ({"sam_name": vlm}, "of type 'llava'"),
        ({"sam_name": str(tmp_path)}, "it holds nothing"),
    ]
    for changes, message in cases:
        with pytest.raises(ModelLoadError, match=message):
            _build(vision_source="dual", **changes)


@pytest.mark.parametrize("device", ["meta", "hpu", "gpu", ""])
def test_devices_that_nothing_can_run_on(device: str) -> None:
    with pytest.raises(ConfigError, match=f"the device is '{device}'"):
        find_device(device)


def _build(**changes: object) -> object:
    from modified_lisa import ModifiedLISA

    return ModifiedLISA.from_config(_config(quantize=False, **changes), device="cpu")


def test_torn_weights_are_an_error_of_their_own(tmp_path: Path) -> None:
    import shutil

    vlm, _ = folders()
    copy = tmp_path / "vlm"
    shutil.copytree(vlm, copy)
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ModelLoadError, match="cannot be read"):
        load_vlm(_config(vlm_name=str(copy), quantize=False), torch.device("cpu"))


def test_missing_weights_are_an_error_not_random_numbers(tmp_path: Path) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    vlm, _ = folders()
    copy = tmp_path / "vlm"
    shutil.copytree(vlm, copy)
    weights = load_file(copy / "model.safetensors")
    weights.pop(next(name for name in weights if "q_proj" in name))
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelLoadError, match="1 weights are missing"):
        load_vlm(_config(vlm_name=str(copy), quantize=False), torch.device("cpu"))
