"""An imported LISA answers in words: its own lm_head and [SEG], its own turns."""

from pathlib import Path

import pytest
import torch

from factory import picture
from modified_lisa import ModifiedLISA, Segmenter
from modified_lisa.errors import ConfigError
from modified_lisa.model.answers.prompting import answer_inputs, question_ids
from original_lisa_factory import Sizes, make_checkpoint

QUESTION = "what is in this image?"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lisa") / "lisa"
    make_checkpoint(folder, Sizes(tokenizer=True))
    return folder


def test_words_are_those_of_the_files_own_lm_head(folder: Path) -> None:
    model = ModifiedLISA.from_pretrained(folder, device="cpu", answers=None)
    assert model.config.answers
    seg = model.processor.seg_token_id
    head = model.answer_head
    hidden = torch.randn(3, head.lm_head.weight.shape[1])
    with torch.no_grad():
        logits = head(hidden)
        torch.testing.assert_close(logits[:, seg], (hidden @ head.lm_head.weight[seg]))
        torch.testing.assert_close(head.column.row[0], head.lm_head.weight[seg].float())
    silent = ModifiedLISA.from_pretrained(folder, device="cpu")
    assert silent.answer_head is None
    with pytest.raises(ConfigError, match="load it with answers=None"):
        silent.generate([picture()], [QUESTION])


def test_an_answer_and_its_masks(folder: Path) -> None:
    model = ModifiedLISA.from_pretrained(folder, device="cpu", answers=None)
    seg = model.processor.seg_token_id
    turns = [[seg], model.processor.tokenizer.encode("mask")[1:2]]
    options = {"max_new_tokens": 5, "prefix_allowed_tokens_fn": lambda _row, said: turns[len(said) % 2]}
    segmenter = Segmenter(model)
    answer = segmenter.answer(picture(), QUESTION, **options)
    assert answer.text.count("<SEG>") == len(answer) == 3
    assert all(answer.text[slice(*mask.span)] == "<SEG>" for mask in answer.masks)
    said = model.generate([picture()], [QUESTION], **options)
    asked = question_ids(model.processor, QUESTION)
    inputs = answer_inputs(model.processor, [picture()], [QUESTION])
    whole = model.processor.assemble(
        [asked + said.sequences[0].tolist()], inputs.frames, inputs.vlm_pixels, inputs.sam_pixels
    )
    with torch.no_grad():
        outputs = model(whole)
    torch.testing.assert_close(said.seg_embeddings[0], outputs["seg_embeddings"][0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(said.pred_masks[0], outputs["pred_masks"][0], rtol=1e-3, atol=1e-3)
    with segmenter.open(picture()) as session:
        assert session.ask(QUESTION, **options).text == answer.text
        assert len(session.ask("mask", **options)) == 3


def test_the_prompt_is_that_of_the_measured_one_up_to_the_answer(folder: Path) -> None:
    processor = ModifiedLISA.from_pretrained(folder, device="cpu").processor
    given = processor.encode("the image")
    asked = question_ids(processor, processor.measured_question("the image"))
    assert given[: len(asked)] == asked
    assert given[len(asked) :][-1] == processor.seg_token_id
    with pytest.raises(ConfigError, match="leave it out"):
        question_ids(processor, "what is <im_start>?")
