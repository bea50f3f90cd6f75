"""A session answers as the whole prompt does, reads its image once, and frees it."""

import pytest
import torch

from factory import picture, tiny_model
from modified_lisa import Segmenter
from modified_lisa.errors import ConfigError

QUERIES = ["the one that could roll away", "<SEG> which of <SEG> these is red?", "what would keep me dry?"]


@pytest.mark.parametrize(
    "options", [{}, {"vision_source": "sam"}, {"vision_source": "dual", "seg_state": "before"}], ids=str
)
def test_queries_of_a_session_equal_whole_prompts(options):
    segmenter = Segmenter(tiny_model(**options))
    image = picture(50, 90)
    with segmenter.open(image) as session, torch.inference_mode():
        inputs = segmenter.model.processor([image] * 3, QUERIES)
        whole, whole_iou = segmenter.runner.masks(inputs)
        queries = segmenter.model.processor.queries(QUERIES)
        for given in (queries, queries.padded(queries.length + 9, 8)):
            logits, iou = segmenter.runner.answer(session, given)
            torch.testing.assert_close(logits[:4], whole, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(iou[:4], whole_iou, rtol=1e-4, atol=1e-4)
        alone = [session.segment(query) for query in QUERIES]
    whole_prompts = segmenter.segment_batch([image] * 3, QUERIES)
    for one, other in zip(alone, whole_prompts, strict=True):
        assert (one.masks == other.masks).mean() > 0.999
        assert one.text == other.text


def test_the_image_is_encoded_once():
    segmenter = Segmenter(tiny_model())
    calls = []
    segmenter.model.vision.register_forward_hook(lambda *_: calls.append(1))
    with segmenter.open(picture()) as session:
        session.segment("the red one")
        assert session.segment_many(QUERIES)[1].masks.shape[0] == 2
    assert len(calls) == 1


def test_many_queries_about_one_image_encode_it_once():
    segmenter = Segmenter(tiny_model())
    image = picture(50, 90)
    queries = [
        *QUERIES,
        30 * "and so on " + "to the end",
        *QUERIES,
        *(f"number {number}" for number in range(12)),
    ]
    rows = segmenter.model.processor.queries_in_rows(queries, 128)
    assert [count for row in rows for count in row.seg_counts] == [1, 2, 1, 1, 1, 2, 1, *[1] * 12]
    assert all(row.length <= 128 or len(row.seg_counts) == 1 for row in rows)
    assert any(row.length > 128 for row in rows)
    assert any(len(row.seg_counts) > 3 for row in rows)
    wanted = [segmenter.segment(image, query) for query in queries]
    calls = []
    segmenter.model.vision.register_forward_hook(lambda *_: calls.append(1))
    found = segmenter.segment_batch(image, queries)
    assert len(calls) == 1
    assert [one.text for one in found] == queries
    for one, other in zip(found, wanted, strict=True):
        assert one.masks.shape == other.masks.shape
        assert (one.masks == other.masks).mean() > 0.999


def test_two_sessions_do_not_mix():
    segmenter = Segmenter(tiny_model())
    first, second = segmenter.open(picture(seed=1)), segmenter.open(picture(seed=2))
    answers = [session.segment("the red one").masks for session in (first, second, first)]
    assert (answers[0] == answers[2]).all()
    assert (answers[0] != answers[1]).any()


@pytest.mark.parametrize("queries", ["the cup", None, iter(["the cup"])], ids=["str", "None", "iterator"])
def test_queries_must_be_a_list(queries):
    with Segmenter(tiny_model()).open(picture()) as session, pytest.raises(ConfigError, match="give a list"):
        session.segment_many(queries)


@pytest.mark.parametrize("queries", [[], ["the cup"]], ids=str)
def test_a_threshold_is_checked_before_anything_runs(queries, monkeypatch):
    segmenter = Segmenter(tiny_model())
    with segmenter.open(picture()) as session:
        monkeypatch.setattr(segmenter.runner, "answer", lambda *_: pytest.fail("it ran"))
        with pytest.raises(ConfigError, match="finite number"):
            session.segment_many(queries, threshold=float("nan"))


def test_what_a_session_holds_is_stated_and_freed():
    session = Segmenter(tiny_model()).open(picture())
    assert session.nbytes > 0
    session.close()
    assert session.nbytes == 0
    with pytest.raises(ConfigError, match=r"closed; open the image again"):
        session.segment("the red one")


def test_mistakes_are_named():
    segmenter = Segmenter(tiny_model())
    with segmenter.open(picture()) as session:
        assert session.segment_many([]) == []
        with pytest.raises(ConfigError, match="got one string"):
            session.segment_many("the red one")
        with pytest.raises(ConfigError, match="threshold"):
            session.segment("the red one", threshold=float("nan"))
    with pytest.raises(ConfigError, match="needs CUDA graphs: the model is on 'cpu'"):
        Segmenter(segmenter.model, fast=True)
    assert segmenter.warm_up() == 0.0


def test_a_query_beyond_the_positions_of_the_language_model_is_refused() -> None:
    """Rotary positions go on for ever, so that it would answer with noise instead."""
    segmenter = Segmenter(tiny_model())
    most = segmenter.model.language_model.config.max_position_embeddings
    assert segmenter.model.processor.most_tokens == most
    long = "round " * most
    with pytest.raises(ConfigError, match=rf"and the language model reads {most}; shorten it"):
        segmenter.segment(picture(), long)
    with segmenter.open(picture()) as session, pytest.raises(ConfigError, match="shorten it"):
        session.segment(long)


def test_positions_that_leave_no_room_for_a_question_are_no_limit() -> None:
    from types import SimpleNamespace

    from modified_lisa.model.inputs import longest_prompt

    assert longest_prompt(SimpleNamespace(max_position_embeddings=4096), 576) == 4096
    assert longest_prompt(SimpleNamespace(max_position_embeddings=600), 576) is None
    assert longest_prompt(SimpleNamespace(), 576) is None
