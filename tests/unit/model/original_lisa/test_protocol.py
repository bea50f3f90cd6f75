"""LISA's prompts, its CLIP preprocessing, its frames; word by word and pixel by pixel."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from factory import folders, picture
from modified_lisa import ModifiedLISA, Segmenter
from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.geometry import Frame
from modified_lisa.model.original_lisa.importing import import_lisa
from modified_lisa.model.original_lisa.protocol import CropSpec, SamFrame, is_sentence, prompt_parts
from modified_lisa.prompts import Query
from original_lisa_factory import Sizes, make_checkpoint

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the human's questions."
)
SIZES = Sizes(tokenizer=True)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lisa")
    make_checkpoint(folder / "lisa", SIZES)
    return import_lisa(folder / "lisa", folder / "out")


@pytest.fixture(scope="module")
def segmenter(imported: Path) -> Segmenter:
    return Segmenter.from_pretrained(imported, device="cpu")


@pytest.mark.parametrize(
    ("query", "question", "answer"),
    [
        ("Where could I sit?", "Where could I sit?", "[SEG]."),
        ("the red cup", "What is the red cup in this image?", "[SEG]."),
        ("the cup <SEG>", "What is the cup in this image?", "[SEG]."),
        ("the cup <SEG> and the lid <SEG>", "What is the cup and the lid in this image?", "[SEG] and [SEG]."),
        (Query("who runs", is_sentence=False), "What is who runs in this image?", "[SEG]."),
        (Query("a  cup ", is_sentence=True), "a  cup", "[SEG]."),
    ],
)  # fmt: skip
def test_prompts_are_the_originals(query: str, question: str, answer: str) -> None:
    before, behind = prompt_parts(query)
    assert before == f"{SYSTEM} USER: <im_start>"
    assert behind == f"<im_end>\n {question} Please output segmentation mask. ASSISTANT: {answer}</s>"
    assert prompt_parts(query, start_end=False) == (before[:-10], behind[8:])


def test_what_is_a_sentence() -> None:
    assert is_sentence("Segment the cup")
    assert is_sentence("the man runs.")
    assert not is_sentence("the cup that is red")
    assert is_sentence(Query("the cup", None)) is False
    query = pickle.loads(pickle.dumps(Query("the cup", True)))  # workers send it
    assert (query, query.is_sentence) == ("the cup", True)


def test_tokens_of_a_prompt(segmenter: Segmenter) -> None:
    """Built by hand as the original's slow tokenizer does: split at added tokens, which swallow white space."""
    processor = segmenter.model.processor
    words = processor.tokenizer
    seg, start, end = (words.convert_tokens_to_ids(token) for token in ("[SEG]", "<im_start>", "<im_end>"))
    assert (seg, start, end) == tuple(SIZES.vocabulary - 3 + n for n in range(3))

    def plain(text: str) -> list[int]:
        return words.encode(text, add_special_tokens=False)

    asked = "What is the cup in this image? Please output segmentation mask. ASSISTANT:"
    patches = (SIZES.clip_image // SIZES.clip_patch) ** 2
    expected = [
        1, *plain(f"{SYSTEM} USER:"), start, *[processor.image_token_id] * patches, end, *plain(asked), seg,
    ]  # fmt: skip
    assert processor.encode("the cup") == expected
    assert words.convert_ids_to_tokens(plain("the cup")) == ["▁the", "▁cup"]
    two = processor.encode("the cup <SEG> <SEG>")
    assert two.count(seg) == 2
    assert two[-1] == seg


def test_unknown_letters_become_bytes(segmenter: Segmenter) -> None:
    words = segmenter.model.processor.tokenizer
    ids = words.encode("é", add_special_tokens=False)
    assert words.convert_ids_to_tokens(ids)[1:] == ["<0xC3>", "<0xA9>"]
    assert words.decode(words.encode("the cup é", add_special_tokens=False)) == "the cup é"


def test_a_segmenter_answers_in_words(segmenter: Segmenter, imported: Path) -> None:
    result = segmenter.segment(picture(50, 90), "the cup <SEG> and the mask <SEG>")
    assert result.masks.shape == (2, 50, 90)
    batch = segmenter.segment_batch([picture(50, 90), picture(80, 40)], ["the cup", "Where is the red cup?"])
    assert [len(each) for each in batch] == [1, 1]
    one = segmenter.segment(picture(80, 40), "Where is the red cup?")
    np.testing.assert_allclose(one.scores, batch[1].scores, rtol=1e-4)


def test_the_source_itself_gives_the_same(imported: Path, segmenter: Segmenter) -> None:
    direct = Segmenter.from_pretrained(imported.parent / "lisa", device="cpu")
    ours, theirs = (s.segment(picture(50, 90), "the cup") for s in (segmenter, direct))
    np.testing.assert_array_equal(ours.masks, theirs.masks)
    np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5)


@pytest.mark.parametrize(
    "query", [None, "<image> the cup", "the <im_end>", "  ", "<SEG>", "[SEG]", "cup " * 2500]
)
def test_queries_that_cannot_be(segmenter: Segmenter, query: Any) -> None:
    with pytest.raises(ConfigError, match="query"):
        segmenter.segment(picture(), query)


def test_tensors_that_cannot_be(segmenter: Segmenter) -> None:
    make = segmenter.model.processor.from_tensors
    side, seg = SIZES.sam_grid * SIZES.sam_patch, SIZES.vocabulary - 3
    ids = torch.tensor([[1, -200, 5, seg]])
    clip, image = torch.zeros(1, 3, SIZES.clip_image, SIZES.clip_image), torch.zeros(1, 3, side, side)
    assert make(ids, clip, image, [(5, 6)]).seg_counts == [1]
    with pytest.raises(ConfigError, match="-200 once"):
        make(ids[:, 2:], clip, image, [(5, 6)])
    with pytest.raises(ConfigError, match="must hold"):
        make(ids[:, :3], clip, image, [(5, 6)])
    for before in ([[seg, -200, 5]], [[seg, -200, 5, seg]], [[1, seg, -200, 5]]):  # it would see no image
        with pytest.raises(ConfigError, match="only behind the image"):
            make(torch.tensor(before), clip, image, [(5, 6)])
    for odd in ([[1, -200, SIZES.vocabulary, seg]], [[1, -200, -5, seg]], [[1.0, -200, 5, seg]]):
        with pytest.raises(ConfigError, match="whole numbers from 0 to"):
            make(torch.tensor(odd), clip, image, [(5, 6)])
    with pytest.raises(ConfigError, match="-200 once"):
        make(ids[:0], clip, image, [(5, 6)])
    with pytest.raises(ConfigError, match="images is"):
        make(ids, clip, image[..., 1:], [(5, 6)])
    with pytest.raises(ConfigError, match="load it with seg_token_id=7"):
        make(ids, clip, image, [(5, 6)], seg_token_id=7)


@given(st.integers(30, 300), st.integers(30, 300), st.sampled_from([28, 56]))
def test_clip_sees_what_its_own_processor_shows_it(height: int, width: int, side: int) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    # Lying pictures: for standing ones newer versions of Pillow resize columns first, older ones never did.
    image = picture(min(height, width), max(height, width))
    square = {"height": side, "width": side}
    theirs = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=square)(image, return_tensors="pt")
    spec = CropSpec(
        resize=side,
        side=side,
        mean=(0.48145466, 0.4578275, 0.40821073),
        std=(0.26862954, 0.26130258, 0.27577711),
    )
    torch.testing.assert_close(spec.pixels(image), theirs["pixel_values"][0], rtol=1e-5, atol=1e-5)


@given(st.integers(1, 300), st.integers(1, 300))
def test_sams_frame_is_the_usual_one_at_1024(height: int, width: int) -> None:
    logits = torch.randn(1, 8, 8)
    torch.testing.assert_close(
        SamFrame(height, width, 1024).mask_to_image(logits), Frame(height, width).mask_to_image(logits)
    )
    assert SamFrame(height, width, 64).mask_to_image(logits).shape == (1, height, width)


def test_the_protocol_is_not_for_sams_encoder_alone(imported: Path) -> None:
    with pytest.raises(ConfigError, match="'dual'"):
        ModifiedLISA.from_pretrained(imported, device="cpu", vision_source="sam")
    with pytest.raises(ModelLoadError, match="import-lisa"):
        ModifiedLISA(*folders(), vision_source="dual", protocol="lisa", quantize=False, device="cpu")


def test_a_session_answers_as_single_queries_do(segmenter: Segmenter) -> None:
    queries = ["the cup", "Where is the red cup?", "the mask <SEG> and the cup <SEG>"]
    with segmenter.open(picture(50, 90)) as session:
        many = session.segment_many(queries)
    for query, ours in zip(queries, many, strict=True):
        alone = segmenter.segment(picture(50, 90), query)
        np.testing.assert_allclose(ours.scores, alone.scores, rtol=1e-4, atol=1e-5)
        assert (ours.masks == alone.masks).mean() > 0.999


def test_evaluation_asks_as_the_annotation_says(segmenter: Segmenter, tmp_path: Path) -> None:
    from PIL import Image

    from modified_lisa.data import ReasonSegDataset

    (tmp_path / "val").mkdir()
    shape = {"label": "target", "shape_type": "polygon", "points": [[1, 1], [9, 1], [9, 9]]}
    for name, sentence in (("a", True), ("b", False)):
        Image.fromarray(picture(20, 30)).save(tmp_path / "val" / f"{name}.png")
        content = {"text": ["the cup"], "is_sentence": sentence, "shapes": [shape]}
        (tmp_path / "val" / f"{name}.json").write_text(json.dumps(content))
    words = segmenter.model.processor
    prompts = [
        words.tokenizer.decode(words.encode(sample.text)) for sample in ReasonSegDataset(tmp_path, "val")
    ]
    assert "What is" not in prompts[0]
    assert "What is the cup in this image?" in prompts[1]
