"""Answers of a `Segmenter` and dialogues of a `Session`: spans, forms, memory, interruptions."""

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from factory import picture, tiny_model
from modified_lisa import Segmenter
from modified_lisa.errors import ConfigError
from modified_lisa.inference.answer import Answer
from modified_lisa.model.answers.prompting import question_ids
from modified_lisa.prompts import SEG_TOKEN

QUESTION = "which of these would keep me dry in the rain?"


def speaking(boost: float = 30.0, **options: Any) -> Segmenter:
    model = tiny_model(answers=True, **options)
    with torch.no_grad():
        model.answer_head.column.row.mul_(boost)
    return Segmenter(model)


def words_and_masks(segmenter: Segmenter) -> dict[str, Any]:
    """Options that make a model write a word and a <SEG> in turn, three times."""
    word = segmenter.model.processor.tokenizer.encode("rain", add_special_tokens=False)[0]
    turns = [[word], [segmenter.model.processor.seg_token_id]]
    return {"max_new_tokens": 6, "prefix_allowed_tokens_fn": lambda _row, said: turns[len(said) % 2]}


def test_each_mask_knows_its_place_in_the_text() -> None:
    segmenter = speaking()
    answer = segmenter.answer(picture(), QUESTION, **words_and_masks(segmenter))
    assert answer.query == QUESTION
    assert len(answer) == answer.text.count(SEG_TOKEN) > 1
    assert isinstance(answer.masks, np.ndarray)
    assert answer.masks.dtype == np.bool_
    assert answer.masks.shape == (len(answer), 60, 80)
    for index, mask in enumerate(answer.masks):
        begin, end = mask.span
        assert answer.text[begin:end] == SEG_TOKEN
        assert answer.masks[index].span == mask.span == answer.spans[index]
        assert mask.shape == (60, 80)
    assert answer.masks[-1].span == answer.spans[-1]
    assert answer.masks[0].span != answer.masks[1].span
    for computed in (~answer.masks[0], answer.masks[0] | answer.masks[1], answer.masks[:1][0]):
        assert getattr(computed, "span", None) is None
    assert type(answer.mask) is np.ndarray
    for same in (pickle.loads(pickle.dumps(answer)), copy.deepcopy(answer)):
        assert same.masks[1].span == answer.masks[1].span
        assert np.array_equal(same.masks, answer.masks)


def test_an_answer_is_saved_like_any_segmentation(tmp_path: Path) -> None:
    segmenter = speaking()
    answer = segmenter.answer(picture(), QUESTION, **words_and_masks(segmenter))
    values = json.loads(answer.save(tmp_path / "a.json").read_text(encoding="utf-8"))
    assert values["query"] == QUESTION
    assert values["text"] == answer.text
    assert [tuple(mask["span"]) for mask in values["masks"]] == list(answer.spans)
    assert answer.save(tmp_path / "a.png").stat().st_size > 0
    with np.load(answer.save(tmp_path / "a.npz")) as arrays:
        assert np.array_equal(arrays["masks"], answer.masks)


def test_an_answer_without_masks(tmp_path: Path) -> None:
    answer = speaking(0.0).answer(picture(), QUESTION, max_new_tokens=4)
    assert len(answer) == 0
    assert answer.text
    assert not answer.complete
    assert not answer.mask.any()
    assert answer.save(tmp_path / "nothing.png").exists()
    assert answer.to_dict()["masks"] == []


def test_spans_must_fit_the_text() -> None:
    masks, scores = np.zeros((1, 2, 2), bool), np.zeros(1, np.float32)
    with pytest.raises(ConfigError, match="spans"):
        Answer(masks, scores, "It is <SEG>.", (2, 2), spans=())
    with pytest.raises(ConfigError, match="spans"):
        Answer(masks, scores, "It is <SEG>.", (2, 2), spans=((0, 5),))
    assert Answer(masks, scores, "It is <SEG>.", (2, 2), spans=((6, 11),)).masks[0].span == (6, 11)


def test_the_first_answer_of_a_session_is_that_of_the_segmenter() -> None:
    segmenter = speaking()
    options = words_and_masks(segmenter)
    alone = segmenter.answer(picture(), QUESTION, **options)
    with segmenter.open(picture()) as session:
        pieces: list[str] = []
        asked = session.ask(QUESTION, on_text=pieces.append, **options)
    assert "".join(pieces) == asked.text == alone.text
    assert asked.spans == alone.spans
    assert np.mean(asked.masks != alone.masks) < 1e-3


@pytest.mark.parametrize("boost", [1.0, 30.0])
@pytest.mark.parametrize("seg_state", ["at", "before"])
def test_a_dialogue_equals_one_long_pass(boost: float, seg_state: str) -> None:
    """The second answer is what the model says behind all tokens so far, read at once."""
    segmenter = speaking(boost, seg_state=seg_state)
    model = segmenter.model
    processor = model.processor
    with segmenter.open(picture()) as session:
        session.ask(QUESTION, max_new_tokens=5)
        first = session._conversation._unread[:-1]
        length = session._conversation.length
        second = session.ask("all that is not round", max_new_tokens=5)
        assert session._conversation.turns == 2
    said = model.generate([picture()], [QUESTION], max_new_tokens=5).sequences[0].tolist()
    asked = question_ids(processor, QUESTION)
    assert length + len(first) == len(asked) + len(said)
    whole = [
        *asked,
        *said,
        processor.tokenizer.eos_token_id,
        *processor.follow_up_ids("all that is not round"),
    ]
    inputs = processor([picture()], ["x"])
    for _ in range(5):
        inputs = processor.assemble([whole], inputs.frames, inputs.vlm_pixels, inputs.sam_pixels)
        with torch.no_grad():
            embeds = model.embed(model.vision(inputs.vlm_pixels, inputs.sam_pixels).tokens, inputs)
            hidden = model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        whole.append(int(model.answer_head(hidden[:, -1]).argmax()))
    from modified_lisa.model.answers.words import read_tokens

    assert second.text == read_tokens(processor, whole[-5:])[0]


def test_an_interrupted_question_leaves_no_trace() -> None:
    segmenter = speaking()

    def stop(_: str) -> None:
        raise KeyboardInterrupt

    with segmenter.open(picture()) as session:
        first = session.ask(QUESTION, max_new_tokens=4)
        length = session._conversation.length
        with pytest.raises(KeyboardInterrupt):
            session.ask("all", max_new_tokens=6, on_text=stop)
        assert session._conversation.length == length
        with pytest.raises(ConfigError, match="num_beams"):
            session.ask("all", num_beams=2)
        after = session.ask("all", max_new_tokens=4)
        session.forget()
        assert session.ask(QUESTION, max_new_tokens=4).text == first.text
        assert session.ask("all", max_new_tokens=4).text == after.text
        masks = session.segment("all").masks
    assert np.mean(masks != segmenter.segment(picture(), "all").masks) < 1e-3


def test_refusals() -> None:
    with Segmenter(tiny_model()).open(picture()) as session, pytest.raises(ConfigError, match="not trained"):
        session.ask(QUESTION)
    session = speaking().open(picture())
    session.close()
    with pytest.raises(ConfigError, match="closed"):
        session.ask(QUESTION)


def test_segment_asks_a_model_in_answer_mode_as_it_was_taught() -> None:
    """The given <SEG> stands in the answer; a session's segment gives the same mask."""
    segmenter = speaking()
    whole = segmenter.segment(picture(), "the cups <SEG> and the plates <SEG>")
    with segmenter.open(picture()) as session:
        parts = session.segment("the cups <SEG> and the plates <SEG>")
    assert len(whole) == len(parts) == 2
    assert np.mean(whole.masks != parts.masks) < 1e-3
