"""What the runner of graphs does around the graphs, with plain calls in their place that keep their results as graphs do."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from factory import picture, tiny_model
from modified_lisa import Segmenter
from modified_lisa.errors import ConfigError
from modified_lisa.inference import runner as runners
from static_calls import StaticCalls

QUERIES = ["the one that could roll away", "<SEG> which of <SEG> these is red?", "what would keep me dry?"]


@pytest.fixture
def segmenter(monkeypatch) -> Segmenter:
    monkeypatch.setattr(runners, "Graphs", StaticCalls)
    segmenter = Segmenter(tiny_model())
    segmenter.runner = runners.GraphRunner(segmenter.model)
    return segmenter


@pytest.mark.parametrize("count", [1, 3, 7, 21])
def test_batches_of_any_size_give_what_plain_calls_give(segmenter, count):
    images = [picture(40 + 7 * (row % 4), 60, seed=row) for row in range(count)]
    inputs = segmenter.model.processor(images, [QUERIES[row % 3] for row in range(count)])
    plain = runners.PlainRunner(segmenter.model)
    with torch.inference_mode():
        for _ in range(2):
            for given, wanted in zip(segmenter.runner.masks(inputs), plain.masks(inputs), strict=True):
                torch.testing.assert_close(given, wanted, rtol=1e-4, atol=1e-4)
    lengths = {key[0][1] for key in segmenter.runner._forward.kept}
    assert all(length % 32 == 0 for length in lengths)
    assert all(key[0][0] in (1, 2, 4, 8, 16) for key in segmenter.runner._forward.kept)


@pytest.mark.parametrize("count", [1, 2, 3, 21])
def test_pictures_seen_while_the_words_are_read_give_what_plain_calls_give(segmenter, count):
    images = [picture(40 + 7 * (row % 4), 60, seed=row) for row in range(count)]
    queries = [QUERIES[row % 3] for row in range(count)]
    wanted = Segmenter(segmenter.model, fast=False).segment_batch(images, queries)
    seen = []
    segmenter.model.vision.register_forward_hook(lambda *_: seen.append(1))
    for _ in range(2):
        for one, other in zip(segmenter.segment_batch(images, queries), wanted, strict=True):
            assert one.text == other.text
            assert one.masks.shape == other.masks.shape
            assert (one.masks == other.masks).mean() > 0.999
    parts = {1: 1, 2: 1, 3: 2, 21: 3}[count]
    assert len(seen) == 2 * parts, "each part of the batch is seen once"


def test_a_query_that_cannot_be_put_leaves_the_next_one_alone(segmenter):
    wanted = segmenter.segment(picture(seed=1), QUERIES[0])
    with pytest.raises(ConfigError, match="stands for the image"):
        segmenter.segment(picture(seed=2), f"what is {segmenter.model.processor.image_token}?")
    assert (segmenter.segment(picture(seed=1), QUERIES[0]).masks == wanted.masks).all()


@pytest.mark.parametrize(
    "queries", ["", ["the ball", " "], ["the ball", "\udfff"], ["the ball", 3]], ids=repr
)
def test_what_is_no_query_is_refused_before_anything_runs(segmenter, queries):
    seen = []
    segmenter.model.vision.register_forward_hook(lambda *_: seen.append(1))
    for images in (picture(), [picture(), picture()]):
        with pytest.raises(ConfigError, match="query"):
            segmenter.segment_batch(images, queries)
    with pytest.raises(ConfigError, match="stands for the image"):
        segmenter.segment_batch(picture(), ["the ball", f"a {segmenter.model.processor.image_token}"])
    assert not seen


def test_sessions_take_turns_with_one_set_of_buffers(segmenter):
    pictures = [picture(seed=seed) for seed in range(3)]
    plain = Segmenter(segmenter.model, fast=False)
    sessions = [segmenter.open(image) for image in pictures]
    for turn in (2, 0, 1, 1, 0, 2):
        given = sessions[turn].segment_many(QUERIES)
        wanted = plain.segment_batch(pictures[turn], QUERIES)
        for one, other in zip(given, wanted, strict=True):
            assert (one.masks == other.masks).mean() > 0.999
    held = [session.state is not None for session in sessions]
    assert held == [True, True, False], "the last to be asked has the buffers, the others their own copies"


def test_a_closed_session_is_not_put_aside(segmenter):
    first = segmenter.open(picture(seed=1))
    first.close()
    second = segmenter.open(picture(seed=2))
    assert first.state is None
    assert second.segment("the red one").masks.shape[0] == 1


def test_what_stands_between_sessions_does_not_disturb_them(segmenter):
    with segmenter.open(picture(seed=1)) as session:
        before = session.segment("the red one").masks
        segmenter.segment(picture(seed=2), "something else")
        assert (session.segment("the red one").masks == before).all()


def test_a_template_with_many_words_behind_the_image_is_warmed_up(segmenter, monkeypatch):
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: None)
    processor = segmenter.model.processor
    longer = processor.queries(["warm up " + 9 * "and then some more "])
    monkeypatch.setattr(processor, "queries", lambda _: longer)
    assert longer.length > 16
    segmenter.warm_up(query_tokens=48)
    lengths = {key[0][1] for key in segmenter.runner._answer.kept}
    assert lengths == set(range(-(-longer.length // 16) * 16, 49, 16))


def test_padding_never_takes_away(segmenter):
    processor = segmenter.model.processor
    queries, inputs = processor.queries(["the red <SEG> one"]), processor([picture()], ["the red one"])
    with pytest.raises(ValueError, match="cannot take away"):
        queries.padded(queries.length - 1)
    with pytest.raises(ValueError, match="cannot take away"):
        queries.padded(64, 0)
    with pytest.raises(ValueError, match="cannot take away"):
        inputs.padded(inputs.length - 1, 1)


def test_several_threads_get_their_own_answers(segmenter):
    plain = Segmenter(segmenter.model, fast=False)
    pictures = [picture(40, 60, seed=seed) for seed in range(6)]
    wanted = [plain.segment(image, QUERIES[0]).masks for image in pictures]

    def ask(number: int) -> float:
        if number % 2:
            return float((segmenter.segment(pictures[number], QUERIES[0]).masks == wanted[number]).mean())
        with segmenter.open(pictures[number]) as session:
            return float((session.segment(QUERIES[0]).masks == wanted[number]).mean())

    with ThreadPoolExecutor(3) as threads:
        assert all(share > 0.999 for share in threads.map(ask, [0, 1, 2, 3, 4, 5] * 3))


def test_the_first_session_does_not_drop_what_was_captured_for_sessions(segmenter):
    kept = segmenter.runner._answer.kept
    kept["captured before"] = ()
    segmenter.open(picture(seed=1)).close()
    assert "captured before" in kept
