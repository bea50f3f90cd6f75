"""Weights are read tensor by tensor, only those that are kept, whatever the layout of the files."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from factory import folders, tiny_model
from modified_lisa.config import ModelConfig
from modified_lisa.errors import ModelLoadError
from modified_lisa.model import loading
from modified_lisa.model.shards import FileTensor, find_shards, read_headers

CPU = torch.device("cpu")
HEAD, EMBEDDING = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
"""In the layout of the files."""


def _config(vlm: str | Path = "", **changes: Any) -> ModelConfig:
    settings = {"sam_name": folders()[1], "dtype": "fp32", "quantize": False, **changes}
    return ModelConfig(vlm_name=str(vlm or folders()[0]), **settings)


def _copy(to: Path, weights: dict[str, torch.Tensor], parts: int = 1) -> Path:
    """The tiny VLM's folder with other weights, in ``parts`` files with an index if more than one."""
    shutil.copytree(folders()[0], to)
    (to / "model.safetensors").unlink()
    names = sorted(weights)
    if parts == 1:
        save_file(weights, to / "model.safetensors", {"format": "pt"})
        return to
    files = {f"model-{part + 1:05}-of-{parts:05}.safetensors": names[part::parts] for part in range(parts)}
    for file, held in files.items():
        save_file({name: weights[name] for name in held}, to / file, {"format": "pt"})
    places = {name: file for file, held in files.items() for name in held}
    index = {"metadata": {}, "weight_map": places}
    (to / "model.safetensors.index.json").write_text(json.dumps(index))
    return to


def _weights() -> dict[str, torch.Tensor]:
    return load_file(Path(folders()[0]) / "model.safetensors")


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the tensors that are read from files."""
    names: set[str] = set()
    original = FileTensor.__getitem__

    def note(self: FileTensor, index: Any) -> Any:
        names.add(self.name)
        return original(self, index)

    monkeypatch.setattr(FileTensor, "__getitem__", note)
    return names


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_several_files_give_the_weights_that_one_file_gives(tmp_path: Path, quantization: str) -> None:
    folder = _copy(tmp_path / "vlm", _weights(), parts=5)
    changes = {"quantize": None, "quantization": quantization}
    first, report = loading.load_vlm(_config(**changes), CPU)
    second, _ = loading.load_vlm(_config(folder, **changes), CPU)
    expected, found = first.state_dict(), second.state_dict()
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name
    assert len(report.quantized) == (0 if quantization == "none" else 14)


def test_they_are_the_weights_that_transformers_reads() -> None:
    from transformers import LlavaForConditionalGeneration

    theirs = LlavaForConditionalGeneration.from_pretrained(folders()[0], dtype=torch.bfloat16).state_dict()
    ours = loading.load_vlm(_config(dtype="bf16"), CPU, with_lm_head=True)[0].state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_layout_of_the_module_names_is_read_too(tmp_path: Path, read: set[str]) -> None:
    """Published LLaVA-1.5 files, and what transformers writes, have an older layout than its modules."""
    assert HEAD in _weights()
    now = {}
    for name, tensor in _weights().items():
        new = name.replace("language_model.model.", "model.language_model.").replace(HEAD, "lm_head.weight")
        now[new if new.startswith(("model.", "lm_head")) else f"model.{new}"] = tensor
    vlm, _ = loading.load_vlm(_config(_copy(tmp_path / "vlm", now)), CPU)
    expected = loading.load_vlm(_config(), CPU)[0].state_dict()
    found = vlm.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not any("lm_head" in name for name in read)


@pytest.mark.parametrize("source", ["vlm", "sam", "dual"])
def test_what_is_not_used_is_not_read(source: str, read: set[str]) -> None:
    model = tiny_model(vision_source=source)
    assert not any("lm_head" in name for name in read)
    assert any("vision_tower" in name for name in read) == (source != "sam")
    assert any(name.startswith("vision_encoder.") for name in read) == (source != "vlm")
    assert not [
        name for name, tensor in [*model.named_parameters(), *model.named_buffers()] if tensor.is_meta
    ]


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_what_must_be_fp32_is_never_rounded(dtype: str) -> None:
    weights = load_file(Path(folders()[1]) / "model.safetensors")
    sam = loading.load_sam(_config(dtype=dtype, vision_source="dual"), CPU)
    for name, tensor in sam.state_dict().items():
        if name.startswith("vision_encoder."):
            assert tensor.dtype == loading.DTYPES[dtype]
        elif name in weights:  # the code of places is there once
            assert torch.equal(tensor, weights[name]), name


def test_the_output_matrix_is_there_when_words_are_wanted(read: set[str]) -> None:
    vlm, _, _ = loading.load_parts(_config(), CPU, with_lm_head=True)
    assert torch.equal(vlm.lm_head.weight, _weights()[HEAD])
    assert loading.load_parts(_config(), CPU)[0].lm_head is None


@pytest.mark.parametrize("held", [EMBEDDING, HEAD])
@pytest.mark.parametrize("with_lm_head", [False, True])
def test_tied_embeddings_are_one_matrix_under_either_name(
    tmp_path: Path, held: str, with_lm_head: bool
) -> None:
    weights = _weights()
    matrix = weights.pop(EMBEDDING)
    del weights[HEAD]
    folder = _copy(tmp_path / "vlm", {**weights, held: matrix})
    config = json.loads((folder / "config.json").read_text())
    config["tie_word_embeddings"] = config["text_config"]["tie_word_embeddings"] = True
    (folder / "config.json").write_text(json.dumps(config))
    vlm, _ = loading.load_vlm(_config(folder), CPU, with_lm_head=with_lm_head)
    assert torch.equal(vlm.get_input_embeddings().weight, matrix)
    if with_lm_head:
        assert vlm.lm_head.weight is vlm.get_input_embeddings().weight
    else:
        assert vlm.lm_head is None


def test_headers_say_what_is_in_the_files() -> None:
    files = find_shards(folders()[0])
    assert files is not None
    tensors = read_headers(files, skip=r"(^|\.)lm_head\.")
    expected = _weights()
    del expected[HEAD]
    assert tensors.keys() == expected.keys()
    for name, tensor in expected.items():
        assert tensors[name].get_shape() == list(tensor.shape)
        assert tensors[name].nbytes == tensor.nbytes
        assert tensors[name].get_dtype() == "F32"
        assert torch.equal(tensors[name][...], tensor)


def test_a_torn_index_is_an_error_of_its_own(tmp_path: Path) -> None:
    folder = _copy(tmp_path / "vlm", _weights(), parts=2)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ')
    with pytest.raises(ModelLoadError, match="is torn or no index"):
        loading.load_vlm(_config(folder), CPU)


def test_a_missing_shard_names_the_model(tmp_path: Path) -> None:
    folder = _copy(tmp_path / "vlm", _weights(), parts=2)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelLoadError, match="the weights cannot be read from this folder"):
        loading.load_vlm(_config(folder), CPU)


def test_sizes_are_announced_before_and_the_outcome_after(capsys: pytest.CaptureFixture[str]) -> None:
    loading.load_vlm(_config(quantize=True), CPU, verbose=True)
    lines = capsys.readouterr().err
    assert "1 file(s) of" in lines
    assert "million parameters" in lines
    assert "in nf4, the rest in float32" in lines
    assert "quantised to nf4: 14 linear layers" in lines
    for quiet in (None, False):  # not a terminal
        loading.load_vlm(_config(quantize=True), CPU, verbose=quiet)
        assert "file(s)" not in capsys.readouterr().err
