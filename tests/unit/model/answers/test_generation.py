"""Generated answers: their states, batches, streams, options, and what is refused."""

import functools
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from factory import picture, tiny_model
from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.model.answers.prompting import answer_inputs
from modified_lisa.model.answers.words import TextStream, read_tokens
from modified_lisa.model.cache_names import cache_name

QUESTIONS = ["which of these would keep me dry in the rain?", "all that is not round"]


def speaking(boost: float = 30.0, **options: Any) -> Any:
    """A random model; the larger ``boost``, the more ``<SEG>`` it writes."""
    model = tiny_model(answers=True, **options)
    with torch.no_grad():
        model.answer_head.column.row.mul_(boost)
    return model


def pictures(number: int = 2) -> list[Any]:
    return [picture(seed=seed) for seed in range(number)]


@torch.no_grad()
def forced_states(model: Any, image: Any, question: str, answer: list[int]) -> torch.Tensor:
    """The states of the ``<SEG>`` of an answer, by one pass over the prompt and the whole of it."""
    inputs = answer_inputs(model.processor, [image], [question])
    asked = inputs.input_ids[0].tolist()
    whole = model.processor.assemble([asked + answer], inputs.frames, inputs.vlm_pixels, inputs.sam_pixels)
    embeds = model.embed(model.vision(whole.vlm_pixels, whole.sam_pixels).tokens, whole)
    hidden = model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
    places = whole.segs[1] - int(model.config.seg_state == "before")
    return model.seg_projection(hidden[0, places].float())


@pytest.mark.parametrize("seg_state", ["at", "before"])
@pytest.mark.parametrize("source", ["vlm", "sam", "dual"])
def test_states_of_generated_seg_equal_those_of_a_teacher_forced_pass(seg_state: str, source: str) -> None:
    model = speaking(seg_state=seg_state, vision_source=source)
    out = model.generate(pictures(), QUESTIONS, max_new_tokens=8)
    assert [len(spans) for spans in out.spans] == [len(masks) for masks in out.pred_masks]
    assert sum(map(len, out.spans)) > 2
    assert out.sequences[:, -1].eq(model.processor.seg_token_id).any()  # its state takes a step of its own
    for image, question, row, found in zip(
        pictures(), QUESTIONS, out.sequences.tolist(), out.seg_embeddings, strict=True
    ):
        expected = forced_states(model, image, question, row)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_masks_are_those_of_the_states_and_the_image() -> None:
    model = speaking()
    out = model.generate(pictures(), QUESTIONS, max_new_tokens=6)
    inputs = answer_inputs(model.processor, pictures(), QUESTIONS)
    with torch.no_grad():
        embedding = model.vision(inputs.vlm_pixels, inputs.sam_pixels).embedding
        assert sum(map(len, out.seg_embeddings))
        for row, prompts in enumerate(out.seg_embeddings):
            if not len(prompts):
                continue
            logits, iou = model.mask_head(embedding[row].expand(len(prompts), -1, -1, -1), prompts)
            torch.testing.assert_close(out.pred_masks[row], logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(out.iou_predictions[row], iou, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("boost", [1.0, 30.0])
def test_a_batch_gives_what_its_questions_give_one_by_one(boost: float) -> None:
    model = speaking(boost)
    images, questions = pictures(3), [*QUESTIONS, "x"]
    together = model.generate(images, questions, max_new_tokens=10)
    for row, (image, question) in enumerate(zip(images, questions, strict=True)):
        alone = model.generate([image], [question], max_new_tokens=10)
        assert alone.texts[0] == together.texts[row]
        assert alone.spans[0] == together.spans[row]
        torch.testing.assert_close(alone.pred_masks[0], together.pred_masks[row], rtol=1e-3, atol=1e-3)


def test_no_seg_gives_the_text_and_no_mask() -> None:
    model = speaking(0.0)
    out = model.generate(pictures(), QUESTIONS, max_new_tokens=5)
    assert all(out.texts)
    assert out.spans == [[], []]
    assert [tuple(masks.shape) for masks in out.pred_masks] == [(0, 256, 256)] * 2
    assert [tuple(iou.shape) for iou in out.iou_predictions] == [(0,)] * 2


def test_an_answer_ends_at_its_end() -> None:
    model = speaking(0.0)
    end = model.processor.tokenizer.eos_token_id
    with torch.no_grad():
        model.answer_head.lm_head.weight[end] = 50 * model.answer_head.lm_head.weight.mean(dim=0)
    free = model.generate(pictures(), QUESTIONS, max_new_tokens=40, do_sample=True, temperature=3.0)
    for text, row, complete in zip(free.texts, free.sequences.tolist(), free.complete, strict=True):
        assert complete == (end in row)
        assert "</s>" not in text
    # A <SEG> right before the end, in the longest row and in a shorter one.
    seg = model.processor.seg_token_id
    forced = model.generate(
        pictures(),
        QUESTIONS,
        max_new_tokens=6,
        prefix_allowed_tokens_fn=lambda row, said: [seg] if len(said) < 1 + 2 * row else [end],
    )
    assert forced.complete == [True, True]
    assert [len(spans) for spans in forced.spans] == [1, 3]
    for image, question, count, found in zip(
        pictures(), QUESTIONS, [1, 3], forced.seg_embeddings, strict=True
    ):
        expected = forced_states(model, image, question, [seg] * count)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("boost", [0.0, 3.0, 30.0])
def test_the_stream_is_the_text(boost: float) -> None:
    model = speaking(boost)
    pieces: list[str] = []
    stream = TextStream(model.processor, pieces.append)
    out = model.generate(pictures(1), QUESTIONS[:1], max_new_tokens=30, streamer=stream)
    assert "".join(pieces) == out.texts[0]
    assert len(pieces) > 1


def test_a_transformers_streamer_works_too() -> None:
    from transformers import TextStreamer

    model = speaking(3.0)
    shown: list[str] = []

    class Kept(TextStreamer):
        def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
            shown.append(text)

    model.generate(pictures(1), QUESTIONS[:1], max_new_tokens=8, streamer=Kept(model.processor.tokenizer))
    assert "".join(shown)


def test_stopping_criteria_and_sampling() -> None:
    from transformers import StoppingCriteria

    model = speaking(1.0)

    class AfterThree(StoppingCriteria):
        def __call__(self, ids: torch.Tensor, _scores: Any, **_: Any) -> torch.Tensor:
            return torch.full((len(ids),), ids.shape[1] >= 3)

    out = model.generate(pictures(), QUESTIONS, stopping_criteria=[AfterThree()])
    assert out.sequences.shape == (2, 3)
    assert out.complete == [False, False]
    torch.manual_seed(0)
    first = model.generate(pictures(), QUESTIONS, max_new_tokens=6, do_sample=True, temperature=5.0)
    torch.manual_seed(0)
    second = model.generate(pictures(), QUESTIONS, max_new_tokens=6, do_sample=True, temperature=5.0)
    assert first.texts == second.texts
    assert first.texts != model.generate(pictures(), QUESTIONS, max_new_tokens=6).texts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"guidance_scale": 2.0}, "guidance_scale is not supported"),
        ({"num_beams": 2}, "num_beams=2 is not supported"),
        ({"num_return_sequences": 2}, "num_return_sequences=2 is not supported"),
        ({"prompt_lookup_num_tokens": 3}, "prompt_lookup_num_tokens is not supported"),
        ({"past_key_values": ()}, "past_key_values: set by this package"),
        ({"cache": ()}, "cache: set by this package"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"no_such_option": 1}, "no_such_option"),
    ],
)
def test_refused_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        speaking().generate(pictures(1), QUESTIONS[:1], **options)


def test_refused_beams_in_a_generation_config() -> None:
    from transformers import GenerationConfig

    with pytest.raises(ConfigError, match="num_beams=3"):
        speaking().generate(
            pictures(1), QUESTIONS[:1], generation_config=GenerationConfig(num_beams=3, max_new_tokens=2)
        )


def test_a_step_without_the_tokens_so_far_is_refused() -> None:
    """As when transformers hands them over under a name that nobody looks at."""
    from modified_lisa.model.answers.speaker import Speaker

    with pytest.raises(ModelLoadError, match=f"without {cache_name()}.* but with another_name, use_cache"):
        Speaker(speaking())(input_ids=torch.tensor([[5]]), another_name=object(), use_cache=True)


def test_refused_inputs() -> None:
    model = speaking()
    with pytest.raises(ConfigError, match="not trained to answer in words"):
        tiny_model().generate(pictures(1), QUESTIONS[:1])
    with pytest.raises(ConfigError, match="leave it out"):
        model.generate(pictures(1), ["what? <SEG>"])
    with pytest.raises(ConfigError, match="stands for the image"):
        model.generate(pictures(1), ["what is <image>?"])
    with pytest.raises(ConfigError, match="is empty"):
        model.generate(pictures(1), [" "])
    with pytest.raises(ConfigError, match="2 images, 1 questions"):
        model.generate(pictures(2), QUESTIONS[:1])
    with pytest.raises(ConfigError, match="without questions"):
        model.generate(pictures(2))
    with pytest.raises(ConfigError, match="reads 2048; shorten it"):
        model.generate(pictures(1), ["word " * 2500])
    model.processor.most_tokens = None  # as in a dialogue, whose turns are short
    with pytest.raises(ConfigError, match="begin a new one"):
        model.generate(pictures(1), ["word " * 2500])


@functools.cache
def silent_processor() -> Any:
    return tiny_model(answers=True).processor


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 339).filter(lambda token: token not in (1, 2, 3, 4)), max_size=12))
def test_spans_point_at_seg(tokens: list[int]) -> None:
    processor = silent_processor()
    text, spans = read_tokens(processor, tokens)
    assert len(spans) == tokens.count(processor.seg_token_id)
    assert all(text[begin:end] == "<SEG>" for begin, end in spans)
    assert spans == sorted(set(spans))
