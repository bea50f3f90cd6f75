"""VLM and SAM folders that differ from the usual ones: they work, or the error names the mistake."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    SamConfig,
    SamModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
)

from factory import TEXTS, folders, picture, tiny_model
from modified_lisa import ModifiedLISA
from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.model.tiny import build_tokenizer
from modified_lisa.tokens import initial_seg_row

SIZES = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "patch_size": 14,
}
IMAGES = [picture(60, 80, 1), picture(90, 40, 2)]
QUERIES = ["the round one", "what would keep me dry here, <SEG> or <SEG>?"]


def _vlm(folder: Path, siglip: bool = False, rows: int | None = None, **changes: Any) -> Path:
    """A random LLaVA and its processor, without a chat template."""
    tokenizer = changes.pop("tokenizer", None) or build_tokenizer(TEXTS, 400)
    vision = (
        SiglipVisionConfig(image_size=60, **SIZES) if siglip else CLIPVisionConfig(image_size=56, **SIZES)
    )
    text = LlamaConfig(
        vocab_size=rows or len(tokenizer) + 8,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
    )
    settings = {"image_token_id": tokenizer.convert_tokens_to_ids("<image>"), **changes}
    config = LlavaConfig(vision_config=vision, text_config=text, **settings)
    torch.manual_seed(0)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    images = SiglipImageProcessor() if siglip else CLIPImageProcessor()
    LlavaProcessor(images, tokenizer, patch_size=14).save_pretrained(folder)
    return folder


def _build(vlm: Path | str, sam: Path | str | None = None, **options: Any) -> ModifiedLISA:
    settings = {"dtype": "fp32", "quantize": False, "device": "cpu", **options}
    return ModifiedLISA(str(vlm), str(sam or folders()[1]), **settings)


@pytest.mark.filterwarnings("ignore:.*no chat template")
@pytest.mark.parametrize("siglip", [False, True])
@pytest.mark.parametrize(
    ("layer", "strategy"), [(-1, "full"), (-2, "default"), ([-2, 1], "default"), ([1, -1], "full")]
)
def test_the_language_model_sees_what_llava_shows_it(
    tmp_path: Path, siglip: bool, layer: int | list[int], strategy: str
) -> None:
    folder = _vlm(tmp_path, siglip, vision_feature_layer=layer, vision_feature_select_strategy=strategy)
    model = _build(folder)
    llava = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    inputs = model.processor(IMAGES, QUERIES)
    with torch.no_grad():
        llava.get_input_embeddings().weight[model.processor.seg_token_id] = model.seg_embedding.row[0]
        theirs = llava.model(input_ids=inputs.input_ids, pixel_values=inputs.vlm_pixels).last_hidden_state
        ours = model.seg_states(model.vision(inputs.vlm_pixels, None).tokens, inputs)
    torch.testing.assert_close(ours, theirs[inputs.is_seg], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:.*no chat template")
def test_a_pad_token_beyond_the_embedding_is_never_looked_up(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(TEXTS, 400)
    rows = len(tokenizer)
    tokenizer.add_special_tokens({"pad_token": "<padding>"})
    model = _build(_vlm(tmp_path, rows=rows, tokenizer=tokenizer))
    assert [len(masks) for masks in model(IMAGES, QUERIES)["pred_masks"]] == [1, 2]
    with pytest.raises(ModelLoadError, match="'<padding>'"):
        model([IMAGES[0]], ["the <padding> one"])


@pytest.mark.filterwarnings("ignore:.*no chat template")
def test_a_tokenizer_of_another_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="do not belong together"):
        _build(_vlm(tmp_path / "small", rows=8))
    with pytest.raises(ModelLoadError, match="the id 9999"):
        _build(_vlm(tmp_path / "image", image_token_id=9999))


def test_a_chat_template_for_text_alone_is_an_error(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(TEXTS, 400)
    tokenizer.chat_template = "{% for message in messages %}{{ 'USER: ' + message['content'] }}{% endfor %}"
    with pytest.raises(ModelLoadError, match="chat template cannot be used"):
        _build(_vlm(tmp_path, tokenizer=tokenizer))


def test_a_sam_whose_parts_do_not_fit_together(tmp_path: Path) -> None:
    vlm, sam = folders()
    config = SamConfig.from_pretrained(sam)
    config.prompt_encoder_config.image_size = 1024
    config.prompt_encoder_config.image_embedding_size = 256
    SamModel(config).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="64 x 64 cells and its mask decoder is made for 256 x 256"):
        _build(vlm, tmp_path, vision_source="sam")


def test_lora_needs_layers_it_knows() -> None:
    from modified_lisa.config import ModelConfig
    from modified_lisa.model.adapters import add_lora

    with pytest.raises(ModelLoadError, match="leave --lora_r out"):
        add_lora(torch.nn.Sequential(torch.nn.Linear(2, 2)), ModelConfig(lora_r=2))
    with pytest.raises(ConfigError, match="whole number"):
        ModelConfig(lora_r=2.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="True or False"):
        ModelConfig(quantize="no")  # type: ignore[arg-type]


def test_words_without_a_token_start_the_seg_row_at_the_mean() -> None:
    class Mute:
        def encode(self, text: str, add_special_tokens: bool) -> list[int]:
            return []

    embedding = tiny_model().language_model.get_input_embeddings()
    expected = embedding.weight.detach().mean(dim=0, keepdim=True)
    torch.testing.assert_close(initial_seg_row(Mute(), embedding), expected)
