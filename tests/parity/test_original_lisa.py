"""Imported checkpoints of the original LISA against its own code: recorded, and rewritten plainly for other sizes."""

import json
import runpy
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from modified_lisa import ModifiedLISA
from modified_lisa.model.original_lisa.importing import import_lisa
from original_lisa_factory import Sizes, example, make_checkpoint
from original_lisa_reference import original_forward

WITHIN = 1e-4  # relative to the largest value, as the issue asks; what is seen is below 1e-5

CASES = {
    "one layer of projector, 224": Sizes(clip_image=224),
    "two layers of projector, 336": Sizes(projector=2, clip_image=336, files="bin-sharded"),
    "tower inside, grouped keys": Sizes(tower_inside=True, kv_heads=2, files="safetensors-sharded"),
    "another SAM": Sizes(
        sam_grid=12, sam_patch=8, sam_width=40, sam_head=10, sam_window=5, sam_layers=4, sam_global=(0, 3),
        channels=64, files="safetensors",
    ),
    "another language model": Sizes(width=72, heads=6, layers=3, mlp=96, vocabulary=600, clip_width=48, clip_layers=4),
    "all of SAM's layers global": Sizes(sam_global=(0, 1, 2), old_buffers=False),
}  # fmt: skip


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def run(model: ModifiedLISA, given: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """SAM's embedding and the logits on the user's image."""
    inputs = model.processor.from_tensors(
        given["input_ids"][None],
        given["images_clip"],
        given["image"],
        [given["original_size"]],
        seg_token_id=given["seg_token_id"],
    )
    with torch.no_grad():
        embedding = model.vision(inputs.vlm_pixels, inputs.sam_pixels).embedding
        return embedding, inputs.frames[0].mask_to_image(model(inputs)["pred_masks"][0])


@pytest.mark.filterwarnings("ignore:.*no tokenizer")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.replace(" ", "-"))
@pytest.mark.parametrize(("segs", "size"), [(1, (90, 60)), (2, (37, 128))], ids=["one-tall", "two-wide"])
def test_other_sizes_agree_with_a_plain_forward_pass(
    tmp_path: Path, case: str, segs: int, size: tuple[int, int]
) -> None:
    made = make_checkpoint(tmp_path / "lisa", CASES[case])
    given = example(CASES[case], segs=segs, original=size)
    embedding, masks = original_forward(**made, **given)
    assert len(masks) == segs
    model = ModifiedLISA.from_pretrained(tmp_path / "lisa", device="cpu")
    ours = run(model, given)
    assert difference(ours[0], embedding) < WITHIN
    assert difference(ours[1], masks) < WITHIN


def _tower_of_transformers_5(folder: Path, made: dict[str, Any]) -> None:
    """Its ``CLIPVisionModel.save_pretrained`` writes no ``vision_model.`` before the names."""
    (folder / "clip" / "pytorch_model.bin").unlink()
    bare = {name.removeprefix("vision_model."): tensor for name, tensor in made["clip"].items()}
    save_file(bare, folder / "clip" / "model.safetensors")


def _tied_head(folder: Path, made: dict[str, Any]) -> None:
    """Where the configuration ties the head to the embedding, files may leave it out."""
    made["config"]["tie_word_embeddings"] = True
    del made["weights"]["lm_head.weight"]
    torch.save(made["weights"], folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps(made["config"]))


def _rope_of_transformers_5(folder: Path, made: dict[str, Any]) -> None:
    made["config"]["rope_parameters"] = {"rope_type": "default", "rope_theta": 500000.0}
    made["config"]["rope_theta"] = 500000.0  # for the plain forward pass; the file has it not
    values = {name: value for name, value in made["config"].items() if name != "rope_theta"}
    (folder / "config.json").write_text(json.dumps(values))


@pytest.mark.filterwarnings("ignore:.*no tokenizer")
@pytest.mark.parametrize("change", [_tower_of_transformers_5, _tied_head, _rope_of_transformers_5])
@pytest.mark.parametrize("way", ["direct", "imported"])
def test_files_that_newer_versions_wrote(tmp_path: Path, change: Any, way: str) -> None:
    source = tmp_path / "lisa"
    made = make_checkpoint(source)
    given = example(Sizes())
    change(source, made)
    _, masks = original_forward(**made, **given)
    if way == "imported":
        source = import_lisa(source, tmp_path / "out")
    assert difference(run(ModifiedLISA.from_pretrained(source, device="cpu"), given)[1], masks) < WITHIN


@pytest.mark.filterwarnings("ignore:.*no tokenizer")
def test_imported_and_moved_it_is_the_same_model(tmp_path: Path) -> None:
    sizes = Sizes(files="bin-sharded")
    made = make_checkpoint(tmp_path / "lisa", sizes)
    given = example(sizes, segs=2)
    _, masks = original_forward(**made, **given)
    import_lisa(tmp_path / "lisa", tmp_path / "out")
    moved = (tmp_path / "out").rename(tmp_path / "elsewhere")
    (tmp_path / "lisa").rename(tmp_path / "gone")
    model = ModifiedLISA.from_pretrained(moved, device="cpu")
    assert model.config.protocol == "lisa"
    assert difference(run(model, given)[1], masks) < WITHIN
    saved = ModifiedLISA.from_pretrained(model.save_pretrained(tmp_path / "again"), device="cpu")
    assert difference(run(saved, given)[1], masks) < WITHIN


@pytest.mark.filterwarnings("ignore:.*no tokenizer")
@pytest.mark.parametrize("way", ["direct", "imported"])
def test_in_four_bit_the_masks_are_finite_and_alike(tmp_path: Path, way: str) -> None:
    sizes = Sizes(width=128, heads=4, mlp=256)
    made = make_checkpoint(tmp_path / "lisa", sizes)
    given = example(sizes)
    _, masks = original_forward(**made, **given)
    source = tmp_path / "lisa"
    if way == "imported":
        source = import_lisa(source, tmp_path / "out", quantize=True)
    model = ModifiedLISA.from_pretrained(
        source, device="cpu", **({} if way == "imported" else {"quantize": True})
    )
    assert type(model.language_model.layers[0].mlp.up_proj).__name__ == "Linear4bit"
    ours = run(model, given)[1]
    assert ours.isfinite().all()
    assert torch.corrcoef(torch.stack((ours.flatten(), masks.flatten())))[0, 1] > 0.9


@pytest.mark.filterwarnings("error:.*no tokenizer")
def test_random_weights_of_the_script_import(tmp_path: Path, repository: Path) -> None:
    script = runpy.run_path(str(repository / "scripts" / "random_lisa.py"))
    assert script["main"]([str(tmp_path / "random"), "--size", "tiny", "--shard_gb", "0.01"]) == 0
    assert len(list((tmp_path / "random").glob("pytorch_model-*.bin"))) == 2
    model = ModifiedLISA.from_pretrained(import_lisa(tmp_path / "random", tmp_path / "out"), device="cpu")
    assert model.config.dtype == "bf16"
    assert model.processor.seg_token_id == 32000
    largest, smallest = (model.processor.encode(f"the {size} thing") for size in ("largest", "smallest"))
    assert largest[-1] == 32000, "cut behind [SEG]"
    assert {32001, 32002} <= set(largest), "<im_start> and <im_end>"
    assert len(largest) == 256 + 51
    assert largest != smallest, "it knows the words of a distillation"
    main, clip, _, _ = script["shapes_of"]("7b")
    elements = sum(torch.Size(shape).numel() for shape in main.values())
    assert 7.3e9 < elements < 7.5e9  # LLaMA 6.74, SAM ViT-H 0.64, and what joins them
    assert len(clip) == 391


# ------------------------------------------------------------------------------------ the recorded model


@pytest.fixture(scope="module")
def recorded(shared_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recorded")
    with tarfile.open(shared_dir / "parity" / "lisa_tiny.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "lisa_tiny"


def inputs_of(recorded: Path) -> dict[str, Any]:
    io = torch.load(recorded / "io.pt", weights_only=True)
    image = io["sam_image_64"].repeat_interleave(16, 2).repeat_interleave(16, 3).clone()
    image[:, :, io["resize"][0] :] = 0
    image[:, :, :, io["resize"][1] :] = 0
    return {**io, "image": image, "input_ids": io["input_ids"][0]}


def test_the_plain_forward_pass_is_the_originals(recorded: Path) -> None:
    io = inputs_of(recorded)
    names = ("input_ids", "images_clip", "image", "resize", "original_size", "seg_token_id")
    embedding, masks = original_forward(
        torch.load(recorded / "pytorch_model.bin", weights_only=True),
        json.loads((recorded / "config.json").read_text()),
        torch.load(recorded / "clip" / "pytorch_model.bin", weights_only=True),
        json.loads((recorded / "clip" / "config.json").read_text()),
        **{name: io[name] for name in names},
    )
    sample = io["image_embeddings_every_8th_channel_4th_row_4th_column"]
    assert difference(embedding[:, ::8, ::4, ::4], sample) < WITHIN
    assert difference(masks, io["pred_masks"]) < WITHIN


@pytest.mark.filterwarnings("ignore:.*no tokenizer")
@pytest.mark.parametrize("way", ["direct", "imported"])
def test_the_recorded_embedding_and_masks(recorded: Path, tmp_path: Path, way: str) -> None:
    io = inputs_of(recorded)
    source = recorded if way == "direct" else import_lisa(recorded, tmp_path / "out")
    embedding, masks = run(ModifiedLISA.from_pretrained(source, device="cpu"), io)
    sample = io["image_embeddings_every_8th_channel_4th_row_4th_column"]
    assert difference(embedding[:, ::8, ::4, ::4], sample) < WITHIN
    assert difference(masks, io["pred_masks"]) < WITHIN


def test_the_script_that_compares(
    recorded: Path, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = runpy.run_path(str(repository / "scripts" / "check_lisa.py"))
    assert script["main"]([str(recorded), str(recorded / "io.pt")]) == 0
    assert capsys.readouterr().out.count("ok") == 2
    assert script["main"]([str(recorded), str(recorded / "io.pt"), "--limit", "1e-9"]) == 1
