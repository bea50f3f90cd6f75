"""Checkpoints that say less, or say it elsewhere: where [SEG] is, what the tower's names begin with, odd values."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from modified_lisa import ModifiedLISA
from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.model.original_lisa import vocabulary
from modified_lisa.model.original_lisa.importing import import_lisa
from modified_lisa.model.original_lisa.source import OriginalLisa
from original_lisa_factory import Sizes, make_checkpoint, write_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.*no tokenizer")


def _with_values(folder: Path, **changes: Any) -> Path:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, **changes}))
    return folder


def test_a_list_of_the_added_tokens_says_the_place_of_seg(copy: Path, tmp_path: Path) -> None:
    _with_values(copy, seg_token_idx=321)
    assert ModifiedLISA.from_pretrained(copy, device="cpu").processor.seg_token_id == 321
    (copy / "added_tokens.json").write_text(json.dumps({"[SEG]": 300, "<im_start>": 301, "<im_end>": 302}))
    assert ModifiedLISA.from_pretrained(copy, device="cpu").processor.seg_token_id == 300
    out = import_lisa(copy, tmp_path / "out")
    assert ModifiedLISA.from_pretrained(out, device="cpu").processor.seg_token_id == 300
    with pytest.raises(ConfigError, match=r"\[SEG\] is 300"):
        import_lisa(copy, tmp_path / "other", seg_token_id=557)
    (words := tmp_path / "words").mkdir()
    write_tokenizer(words, 560)
    with pytest.raises(ConfigError, match=r"\[SEG\] is 557 in the tokenizer, and 300 among the added"):
        import_lisa(copy, tmp_path / "other", tokenizer=str(words))


def test_added_tokens_beside_a_tokenizer_json(copy: Path, tmp_path: Path) -> None:
    (words := tmp_path / "words").mkdir()
    write_tokenizer(words, 560, added=False)
    core = vocabulary._from_sentencepiece(words / "tokenizer.model", dict(vocabulary._SPECIAL))
    core.save(str(copy / "tokenizer.json"))
    (copy / "added_tokens.json").write_text(json.dumps({"<im_start>": 557, "<im_end>": 558, "[SEG]": 559}))
    assert ModifiedLISA.from_pretrained(copy, device="cpu").processor.seg_token_id == 559


def test_without_start_and_end_only_seg_is_added(copy: Path, tmp_path: Path) -> None:
    _with_values(copy, mm_use_im_start_end=False)
    write_tokenizer(copy, 562, added=False)  # 559 words: the last row is that of [SEG]
    for source in (copy, import_lisa(copy, tmp_path / "out")):
        processor = ModifiedLISA.from_pretrained(source, device="cpu").processor
        ids = processor.encode("the cup")
        assert processor.seg_token_id == 559 == ids[-1]
        assert max(token for token in ids if token != processor.image_token_id) == 559


@pytest.mark.parametrize(
    "changes",
    [
        {"num_attention_heads": 5},
        {"hidden_act": "nonsense"},
        {"rope_scaling": {"type": "odd"}},
        {"rope_scaling": "odd"},
        {"mm_vision_select_layer": None},
        {"mm_vision_select_layer": -5},
        {"mm_vision_select_layer": 4},
        {"hidden_size": 0},
    ],
    ids=str,
)
def test_configurations_that_cannot_be(copy: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ModelLoadError):
        OriginalLisa(_with_values(copy, **changes))


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("clip/config.json", "[]"),
        ("clip/preprocessor_config.json", '{"size": null}'),
        ("clip/preprocessor_config.json", '{"crop_size": null}'),
        ("clip/preprocessor_config.json", '{"image_mean": 0.5}'),
        ("clip/preprocessor_config.json", '{"image_std": [0.5]}'),
        ("added_tokens.json", '{"[SEG]": "x"}'),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"557": "[SEG]"}}'),
    ],
)
def test_files_beside_it_that_cannot_be(copy: Path, file: str, content: str) -> None:
    (copy / file).write_text(content)
    with pytest.raises(ModelLoadError):
        ModifiedLISA.from_pretrained(copy, device="cpu")
    with pytest.raises(ModelLoadError):
        import_lisa(copy, copy / "out")
    assert not (copy / "out").exists()


def test_a_towers_files_are_accounted_for_without_their_prefix(
    copy: Path, made: tuple[Path, dict[str, Any]]
) -> None:
    clip = {name.removeprefix("vision_model."): tensor for name, tensor in made[1]["clip"].items()}
    del clip["post_layernorm.bias"]
    clip |= {"encoder.extra": torch.ones(1), "pre_layrnorm.weight": torch.ones(3)}
    torch.save(clip, copy / "clip" / "pytorch_model.bin")
    with pytest.raises(ModelLoadError) as caught:
        OriginalLisa(copy)
    for what in ("post_layernorm.bias", "1 unknown: encoder.extra", "pre_layrnorm.weight (of"):
        assert what in str(caught.value)


@pytest.mark.parametrize("files", ["bin", "safetensors"])
def test_double_precision_is_loaded_as_single(tmp_path: Path, files: str) -> None:
    make_checkpoint(tmp_path / "lisa", Sizes(dtype=torch.float64, files=files))
    assert ModifiedLISA.from_pretrained(tmp_path / "lisa", device="cpu").config.dtype == "fp32"
