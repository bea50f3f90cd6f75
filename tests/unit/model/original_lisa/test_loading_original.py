"""Every key accounted for, every error said at once; nothing unpickled; nothing left behind."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from modified_lisa import ModelConfig, ModifiedLISA
from modified_lisa.apps.cli import main
from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.model.loading import load_vlm
from modified_lisa.model.original_lisa import shards as shards_module
from modified_lisa.model.original_lisa.importing import import_lisa
from modified_lisa.model.original_lisa.shards import Shards
from modified_lisa.model.original_lisa.source import OriginalLisa, find_original
from original_lisa_factory import Sizes, make_checkpoint, shapes_of, write_tokenizer, write_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*no tokenizer")


def test_all_that_is_wrong_is_in_one_error(made: tuple[Path, dict[str, Any]], copy: Path) -> None:
    weights = dict(made[1]["weights"])
    del weights["model.layers.1.mlp.up_proj.weight"]
    del weights["model.visual_model.mask_decoder.iou_token.weight"]
    weights["model.layers.0.self_attn.q_proj.lora_A.weight"] = torch.zeros(2, 2)
    weights["model.text_hidden_fcs.0.2.bias"] = torch.zeros(5)
    write_weights(copy, weights, "bin")
    tower = torch.load(copy / "clip" / "pytorch_model.bin", weights_only=True)
    del tower["vision_model.pre_layrnorm.bias"]
    torch.save({**tower, "text_model.anything": torch.zeros(1)}, copy / "clip" / "pytorch_model.bin")
    with pytest.raises(ModelLoadError) as caught:
        ModifiedLISA.from_pretrained(copy, device="cpu")
    message = str(caught.value)
    assert "3 missing" in message
    for name in ("up_proj", "iou_token", "vision_model.pre_layrnorm.bias (of "):
        assert name in message
    assert "1 unknown: model.layers.0.self_attn.q_proj.lora_A.weight" in message
    assert "1 of another shape: model.text_hidden_fcs.0.2.bias is (5,) and should be (32,)" in message
    assert "text_model" not in message
    with pytest.raises(ModelLoadError, match="3 missing"):
        import_lisa(copy, copy.parent / "out")
    assert sorted(entry.name for entry in copy.parent.iterdir()) == ["lisa"]


KEYS = sorted(shapes_of(Sizes()))


@settings(max_examples=25, print_blob=False, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(gone={"model.visual_model.prompt_encoder.point_embeddings.3.weight"})
@given(gone=st.sets(st.sampled_from(KEYS), min_size=1, max_size=12))
def test_whatever_is_missing_is_named(
    made: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch, gone: set[str]
) -> None:
    find = Shards.find

    def without(source: str) -> Shards:
        found = find(source)
        for name in gone:
            found.shapes.pop(name, None)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(Shards, "find", without)
        with pytest.raises(ModelLoadError) as caught:
            OriginalLisa(made[0])
    for name in gone:
        assert name in str(caught.value)


def test_pickles_that_run_code_are_refused(copy: Path) -> None:
    class Trick:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return print, ("this ran",)

    torch.save({"model.norm.weight": Trick()}, copy / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=r"safe loader: it asks for (\w+\.)?print;.* could run code$"):
        ModifiedLISA.from_pretrained(copy, device="cpu")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"state_dict": {"a": torch.zeros(1)}}, "state_dict"),
        ({5: torch.zeros(1)}, "5"),
        ({"lm_head.weight": torch.eye(2).to_sparse()}, "lm_head.weight"),
    ],
    ids=["nested", "a number", "sparse"],
)
def test_files_of_other_things_than_named_tensors(copy: Path, content: object, named: str) -> None:
    torch.save(content, copy / "pytorch_model.bin")
    with pytest.raises(ModelLoadError, match=f"no dense tensors with a name: {named}$"):
        OriginalLisa(copy)


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.complex64])
def test_weights_that_are_codes_of_a_quantiser_are_not_taken_for_weights(
    made: tuple[Path, dict[str, Any]], copy: Path, dtype: torch.dtype
) -> None:
    name = "model.layers.0.mlp.up_proj.weight"
    write_weights(copy, {**made[1]["weights"], name: made[1]["weights"][name].to(dtype)}, "bin")
    with pytest.raises(ModelLoadError, match=rf"1 not in 16, 32 or 64 bit floating point: {name} is {dtype}"):
        OriginalLisa(copy)


def test_a_configuration_that_is_refused_says_why(copy: Path) -> None:
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, "hidden_size": 50}))
    with pytest.raises(ModelLoadError, match=r"fits no LLaVA: .*hidden size \(50\)"):
        OriginalLisa(copy)


def test_a_folder_that_cannot_be_made_is_told_before_the_weights_are_read(copy: Path) -> None:
    (copy / "pytorch_model.bin").write_bytes(b"torn")
    (copy / "a file").touch()
    with pytest.raises(ConfigError, match=r"OUT is .* a file; name a folder"):
        import_lisa(copy, copy / "a file" / "out")


def test_files_of_old_pytorch_are_read_too(made: tuple[Path, dict[str, Any]], copy: Path) -> None:
    torch.save(made[1]["weights"], copy / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    ours = OriginalLisa(copy).trained_weights(3)
    assert torch.equal(ours["seg_embedding.row"][0], made[1]["weights"]["model.embed_tokens.weight"][3])


def test_missing_and_odd_files(made: tuple[Path, dict[str, Any]], copy: Path) -> None:
    (copy / "pytorch_model.bin").unlink()
    with pytest.raises(ModelLoadError, match=r"none of model.safetensors, pytorch_model.bin.*it holds clip"):
        OriginalLisa(copy)
    write_weights(copy, made[1]["weights"], "bin-sharded")
    (copy / "pytorch_model-00002-of-00003.bin").unlink()
    with pytest.raises(ModelLoadError, match=r"1 are not there: pytorch_model-00002"):
        OriginalLisa(copy)
    index = {"weight_map": {"a": "../../secret.bin"}}
    (copy / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match="not the name of a file"):
        OriginalLisa(copy)
    shutil.rmtree(copy / "clip")
    write_weights(copy, made[1]["weights"], "safetensors")
    with pytest.raises(ModelLoadError, match=r"vision tower is 'clip'.*--vision_tower"):
        OriginalLisa(copy)
    assert OriginalLisa(copy, str(made[0] / "clip")).dtype == "fp32"


def test_what_is_taken_for_an_original(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    assert find_original(made[0]) == str(made[0])
    assert find_original(tmp_path) is None
    assert find_original(tmp_path / "nowhere.pt") is None
    assert find_original("no-such/hub-name") is None
    with pytest.raises(ModelLoadError, match="hf download no-such/hub-name"):
        ModifiedLISA.from_pretrained("no-such/hub-name", device="cpu")
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llava", "text_config": {}, "vision_tower": "x"})
    )
    assert find_original(tmp_path) is None


def test_one_file_is_open_at_a_time(copy: Path, made: tuple[Path, dict[str, Any]], monkeypatch: Any) -> None:
    """Importing opens each file of the source twice: once for the names, once for all of its tensors."""
    (copy / "pytorch_model.bin").unlink()
    write_weights(copy, made[1]["weights"], "bin-sharded")
    opened: list[str] = []
    really = shards_module._open
    monkeypatch.setattr(shards_module, "_open", lambda path: opened.append(path.name) or really(path))
    monkeypatch.setattr("modified_lisa.model.original_lisa.importing._BUFFER", 20_000)
    import_lisa(copy, copy.parent / "out")
    # The weights that train are read once more at the end, by name.
    of_models = opened[: opened.index("pytorch_model-00003-of-00003.bin") + 5]
    assert all(of_models.count(name) <= 2 for name in set(of_models)), opened
    index = json.loads((copy.parent / "out" / "vlm" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 3


def test_half_precision_stays_half(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    make_checkpoint(tmp_path / "lisa", Sizes(dtype=torch.bfloat16))
    out = import_lisa(tmp_path / "lisa", tmp_path / "out")
    assert ModifiedLISA.from_pretrained(out, device="cpu").config.dtype == "bf16"
    files = [load_file(file) for file in (out / "vlm").glob("*.safetensors")]
    head = next(f["language_model.lm_head.weight"] for f in files if "language_model.lm_head.weight" in f)
    assert head.dtype == torch.bfloat16


def test_huggingface_reads_the_parts(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    from transformers import LlavaForConditionalGeneration, SamModel

    out = import_lisa(made[0], tmp_path / "out")
    vlm, report = LlavaForConditionalGeneration.from_pretrained(out / "vlm", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(vlm.lm_head.weight, made[1]["weights"]["lm_head.weight"])
    _, report = SamModel.from_pretrained(out / "sam", output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]


def test_the_place_of_seg_without_a_tokenizer(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"\[SEG\] is taken for the token 557"):
        model = ModifiedLISA.from_pretrained(made[0], device="cpu")
    assert model.processor.seg_token_id == 557
    model = ModifiedLISA.from_pretrained(made[0], device="cpu", seg_token_id=400)
    rows = made[1]["weights"]["model.embed_tokens.weight"]
    assert torch.equal(model.seg_embedding.row[0].detach(), rows[400])
    with pytest.raises(ModelLoadError, match="came without a tokenizer"):
        model.processor.encode("the cup")
    with pytest.raises(ModelLoadError, match="0 to 559"):
        import_lisa(made[0], tmp_path / "out", seg_token_id=560)
    with pytest.raises(ConfigError, match="LISA's protocol"):
        ModelConfig(seg_token_id=5)


def test_tokenizers_that_do_not_fit(made: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    words = tmp_path / "words"
    words.mkdir()
    with pytest.raises(ModelLoadError, match=r"neither a tokenizer.json nor a tokenizer.model"):
        import_lisa(made[0], tmp_path / "out", tokenizer=str(words))
    write_tokenizer(words, 700)
    with pytest.raises(ModelLoadError, match="do not belong together"):
        import_lisa(made[0], tmp_path / "out", tokenizer=str(words))
    write_tokenizer(words, 560)
    (words / "added_tokens.json").write_text(json.dumps({"[SEG]": 559}))
    with pytest.raises(ModelLoadError, match="has the id 559, and 557"):
        import_lisa(made[0], tmp_path / "out", tokenizer=str(words))
    (words / "tokenizer.model").write_bytes(b"\xff\xff no model")
    with pytest.raises(ModelLoadError, match="not a sentencepiece model"):
        import_lisa(made[0], tmp_path / "out", tokenizer=str(words))
    # A LLaMA tokenizer without the added tokens gets them as the original adds them.
    write_tokenizer(words, 560, added=False)
    (words / "added_tokens.json").unlink()
    out = import_lisa(made[0], tmp_path / "out", tokenizer=str(words))
    assert ModifiedLISA.from_pretrained(out, device="cpu").processor.seg_token_id == 557


def test_the_command(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert (
        main(
            ["import-lisa", str(made[0]), str(out), "--seg_token_id", "500", "--quantize", "--dtype", "bf16"]
        )
        == 0
    )
    assert f"wrote {out}" in capsys.readouterr().out
    written = json.loads((out / "config.json").read_text())
    assert (written["protocol"], written["seg_state"], written["seg_token_id"]) == ("lisa", "before", 500)
    assert (written["quantize"], written["dtype"], written["vlm_name"]) == (True, "bf16", "./vlm")
    assert main(["import-lisa", str(made[0]), str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["import-lisa", str(tmp_path / "typo"), str(tmp_path / "new")]) == 2
    assert "there is no folder of that name" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["/nowhere/else/clip", "openai/clip-vit-large-patch14", "clip"])
def test_a_moved_checkpoint_finds_its_tower(copy: Path, name: str) -> None:
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**values, "mm_vision_tower": name}))
    assert OriginalLisa(copy).tower_source == str(copy / "clip")


@pytest.mark.parametrize("way", ["direct", "imported"])
def test_the_head_is_there_for_whoever_asks(
    made: tuple[Path, dict[str, Any]], tmp_path: Path, way: str
) -> None:
    source = made[0] if way == "direct" else import_lisa(made[0], tmp_path / "out") / "vlm"
    config = ModelConfig(vlm_name=str(source), vision_source="dual", dtype="fp32", quantize=False)
    vlm, _ = load_vlm(config, torch.device("cpu"), with_lm_head=True)
    assert torch.equal(vlm.lm_head.weight, made[1]["weights"]["lm_head.weight"])
    assert load_vlm(config, torch.device("cpu"))[0].lm_head is None
