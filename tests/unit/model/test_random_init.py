"""Full-size models without files: sizes, determinism, precision, and sane activations. Run here at tiny sizes."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from factory import folders, picture
from modified_lisa import ModifiedLISA
from modified_lisa.errors import ModelLoadError
from modified_lisa.model.sizes import KNOWN_SAMS, KNOWN_VLMS, sizes_of

# Numbers of weights of the published checkpoints.
PUBLISHED = {
    "llava-hf/llava-1.5-7b-hf": 7_063_427_072,
    "llava-hf/llava-1.5-13b-hf": 13_351_494_656,
    "facebook/sam-vit-base": 93_735_728,
    "facebook/sam-vit-large": 312_343_088,
    "facebook/sam-vit-huge": 641_090_864,
}


def _random(seed: int = 0, **options: object) -> ModifiedLISA:
    vlm, sam = folders()
    return ModifiedLISA.from_random(vlm, sam, seed=seed, device="cpu", **{"quantization": "none", **options})


def _shapes(model: ModifiedLISA) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """By name; without bitsandbytes' packed descriptions, whose length depends on the digits of a number."""
    return {
        name: (tensor.shape, tensor.dtype)
        for name, tensor in model.state_dict().items()
        if not name.endswith("bitsandbytes__nf4")
    }


@pytest.mark.parametrize("name", [*KNOWN_VLMS, *KNOWN_SAMS])
def test_known_sizes_are_those_of_the_published_checkpoints(name: str) -> None:
    from transformers import LlavaForConditionalGeneration, SamModel

    kind, flag = ("llava", "--vlm_name") if name in KNOWN_VLMS else ("sam", "--sam_name")
    _, config = sizes_of(name, flag, kind)
    with torch.device("meta"):
        model = (LlavaForConditionalGeneration if kind == "llava" else SamModel)(config)
    assert sum(parameter.numel() for parameter in model.parameters()) == PUBLISHED[name]


def test_the_processor_of_a_known_name_has_its_image_tokens_and_rows() -> None:
    from modified_lisa.config import ModelConfig
    from modified_lisa.model.building import build_processor

    processor = build_processor(
        ModelConfig(sam_name="facebook/sam-vit-huge", vision_source="dual"), random_init=True
    )
    assert (processor.image_tokens, processor.vocabulary, processor.mask_side) == (576, 32064, 256)
    inputs = processor([picture()], ["the round one"])
    assert int(inputs.is_image.sum()) == 576
    assert inputs.vlm_pixels is not None
    assert inputs.vlm_pixels.shape == (1, 3, 336, 336)
    assert inputs.sam_pixels is not None
    assert inputs.sam_pixels.shape == (1, 3, 1024, 1024)


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("source", ["vlm", "sam", "dual"])
def test_the_seed_decides_the_weights_and_nothing_stays_empty(source: str, quantization: str) -> None:
    state = torch.get_rng_state()
    options = {"vision_source": source, "quantization": quantization}
    first, again, other = _random(1, **options), _random(1, **options), _random(2, **options)
    assert torch.equal(torch.get_rng_state(), state)
    weights, same = first.state_dict(), again.state_dict()
    assert weights.keys() == same.keys()
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    row = "language_model.embed_tokens.weight"
    assert not torch.equal(weights[row], other.state_dict()[row])
    everything = [*first.named_parameters(), *first.named_buffers()]
    assert not [name for name, tensor in everything if tensor.is_meta]
    assert first.quantization_report.asked == quantization
    masks = first([picture()], ["the round one"])["pred_masks"][0]
    assert masks.isfinite().all()
    assert masks.std() > 0.01


def test_it_has_the_modules_and_precisions_of_a_model_from_files() -> None:
    vlm, sam = folders()
    for source in ("vlm", "sam", "dual"):
        options = {"vision_source": source, "quantization": "nf4", "device": "cpu"}
        drawn = ModifiedLISA.from_random(vlm, sam, **options)
        read = ModifiedLISA(vlm, sam, **options)
        assert _shapes(drawn) == _shapes(read)
        buffers = dict(read.named_buffers())
        for name, buffer in drawn.named_buffers():
            if name != "mask_head.positions":  # of SAM's random frequencies
                assert torch.equal(buffer, buffers[name]), name


def test_activations_stay_near_one_through_many_layers(tmp_path: Path) -> None:
    config = json.loads((Path(folders()[0]) / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 24
    config["text_config"].pop("layer_types", None)
    shutil.copytree(folders()[0], tmp_path / "vlm", ignore=shutil.ignore_patterns("*.safetensors"))
    (tmp_path / "vlm" / "config.json").write_text(json.dumps(config))
    model = ModifiedLISA.from_random(str(tmp_path / "vlm"), folders()[1], quantization="none", device="cpu")
    sizes = []
    for layer in model.language_model.layers:
        layer.register_forward_hook(
            lambda _m, _i, out: sizes.append((out[0] if isinstance(out, tuple) else out).std())
        )
    with torch.no_grad():
        model([picture()], ["the round one"])
    assert len(sizes) == 24
    assert min(sizes) > 0.3
    assert max(sizes) < 10


def test_a_folder_with_nothing_but_sizes_uses_the_bundled_tokenizer(tmp_path: Path) -> None:
    config = json.loads((Path(folders()[0]) / "config.json").read_text())
    config["text_config"]["vocab_size"] = 3000
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = ModifiedLISA.from_random(str(tmp_path), "tiny", quantization="none", device="cpu")
    assert model([picture()], ["the round one"])["pred_masks"][0].shape == (1, 256, 256)


def test_an_unknown_name_says_which_are_known() -> None:
    with pytest.raises(ModelLoadError, match=r"or one of .*facebook/sam-vit-base"):
        ModifiedLISA.from_random("tiny", "facebook/sam2-hiera", device="cpu")
    with pytest.raises(ModelLoadError, match=r"llava-1\.5-13b-hf, tiny"):
        ModifiedLISA.from_random("nobody/nothing", "tiny", device="cpu")


def test_trained_weights_of_one_model_go_into_another_of_the_same_seed(tmp_path: Path) -> None:
    model = _random(5)
    torch.nn.init.normal_(model.seg_embedding.row)
    model.save_pretrained(tmp_path)
    copy = _random(5)
    copy.load_state_dict(model.trainable_state_dict())
    expected = model([picture()], ["it"])["pred_masks"][0]
    torch.testing.assert_close(copy([picture()], ["it"])["pred_masks"][0], expected)
