"""Training in answer mode: what is labelled, what it costs, and that a model learns to speak."""

import dataclasses
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from factory import picture, tiny_model
from modified_lisa.config import LossWeights, ModelConfig, TrainingConfig
from modified_lisa.data.answers import AnswerWriter, read_explanations
from modified_lisa.data.collate import Collator
from modified_lisa.data.sample import Sample
from modified_lisa.errors import ConfigError, DataError
from modified_lisa.evaluation import score_batch, terms_of
from modified_lisa.model.answers.prompting import UNLABELLED, answer_inputs, question_ids
from modified_lisa.model.answers.teaching import teach
from modified_lisa.templates import ANSWERS, NO_TARGET_ANSWER, PHRASES, SENTENCES

ANSWER_MODE = LossWeights(ce=1.0)


def sample(number: int = 0, empty: bool = False, text: str = "all that is not round") -> Sample:
    target = np.zeros((60, 80), np.uint8)
    if not empty:
        target[10:30, 20 + number % 8 : 50] = 1
    return Sample(f"train/image_{number}#0", picture(seed=number), text, target)


def test_labels_are_the_answer_and_its_end() -> None:
    processor = tiny_model(answers=True).processor
    answers = ["Sure, it is <SEG>.", NO_TARGET_ANSWER]
    inputs = answer_inputs(processor, [picture(), picture()], ["all that is not round", "x"], answers)
    for row, answer in enumerate(answers):
        labels = inputs.labels[row]
        said = labels[labels != UNLABELLED]
        assert said[-1] == processor.tokenizer.eos_token_id
        text = processor.tokenizer.decode(said[:-1], clean_up_tokenization_spaces=False)
        assert text.replace(" ", "") == answer.replace(" ", "")
        places = (labels != UNLABELLED).nonzero()[:, 0]
        assert places.tolist() == list(range(int(places[0]), int(inputs.lengths[row])))
        assert torch.equal(inputs.input_ids[row, places], said)
    assert inputs.seg_counts == [1, 0]
    assert inputs.answer_begin == min(int((row != UNLABELLED).nonzero()[0]) for row in inputs.labels)


def test_a_prompt_is_the_same_tokens_in_training_and_in_generation() -> None:
    processor = tiny_model(answers=True).processor
    for answer in (*ANSWERS, NO_TARGET_ANSWER):
        assert processor.dialogue_ids("where?", answer)[0] == question_ids(processor, "where?")
    # A given <SEG> stands in the answer, one for each in the query.
    ids = processor.encode("the cups <SEG> and the plates <SEG>")
    asked = question_ids(processor, "the cups and the plates")
    assert ids[: len(asked)] == asked
    assert ids[len(asked) :].count(processor.seg_token_id) == 2
    assert ids[-1] == processor.seg_token_id


@pytest.mark.parametrize("seg_state", ["at", "before"])
def test_the_fast_pass_gives_the_gradients_of_the_full_one(seg_state: str) -> None:
    found = []
    for full in (False, True):
        model = tiny_model(answers=True, seg_state=seg_state).train()
        if full:

            def whole(language_model: Any, embeds: torch.Tensor, cut: int) -> torch.Tensor:
                return language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state[:, cut:]

            model.split_forward = whole
        batch = Collator(model.processor, AnswerWriter())([sample(0), sample(1, empty=True), sample(2)])
        scores = score_batch(model, batch, ANSWER_MODE)
        scores.losses["loss"].sum().backward()
        found.append((scores, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}))
    (fast, gradients), (slow, expected) = found
    for term in fast.losses:
        torch.testing.assert_close(fast.losses[term], slow.losses[term], rtol=1e-4, atol=1e-5)
    assert gradients.keys() == expected.keys() >= {"answer_head.column.row", "seg_embedding.row"}
    for name in expected:
        torch.testing.assert_close(gradients[name], expected[name], rtol=1e-3, atol=1e-6, msg=name)


def test_text_loss_is_the_mean_over_the_answer() -> None:
    model = tiny_model(answers=True)
    batch = Collator(model.processor, AnswerWriter())([sample(0), sample(1, empty=True)])
    inputs = batch.inputs
    with torch.no_grad():
        taught = teach(model, inputs)
        encoding = model.vision(inputs.vlm_pixels, inputs.sam_pixels)
        hidden = model.language_model(
            inputs_embeds=model.embed(encoding.tokens, inputs), use_cache=False
        ).last_hidden_state
        logits = model.answer_head(hidden)[:, :-1]
        for row in range(2):
            labels = inputs.labels[row, 1:]
            expected = torch.nn.functional.cross_entropy(logits[row], labels, ignore_index=UNLABELLED)
            torch.testing.assert_close(taught.text_loss[row], expected)


def test_a_sample_without_target_has_no_mask_and_no_mask_loss() -> None:
    model = tiny_model(answers=True)
    batch = Collator(model.processor, AnswerWriter())([sample(0, empty=True), sample(1)])
    with torch.no_grad():
        scores = score_batch(model, batch, LossWeights(ce=0.5))
    assert set(scores.losses) == set(terms_of(ANSWER_MODE))
    assert scores.losses["dice"][0] == scores.losses["iou_prediction"][0] == 0
    assert scores.losses["dice"][1] > 0
    assert not scores.predicted[0].any()
    assert scores.metrics.scores[0].iou == 1
    torch.testing.assert_close(scores.losses["loss"][0], 0.5 * scores.losses["ce"][0])
    alone = Collator(model.processor, AnswerWriter())([sample(0, empty=True)])
    with torch.no_grad():
        assert score_batch(model, alone, ANSWER_MODE).losses["loss"][0] > 0


def test_a_model_learns_to_answer_with_and_without_a_mask() -> None:
    """Some steps are enough to tell the two questions apart by the text alone, whatever the machine's rounding."""
    torch.manual_seed(0)
    model = tiny_model(answers=True, lora_r=8).train()
    samples = [sample(0), sample(1, empty=True, text="which of these would keep me dry?")]
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=2e-2)
    collator = Collator(
        model.processor, lambda s: ("x" if s is samples[0] else s.text, WANTED[samples.index(s)])
    )
    batch = collator(samples)
    for _ in range(160):
        optimizer.zero_grad()
        scores = score_batch(model, batch, LossWeights(ce=1.0))
        scores.losses["loss"].mean().backward()
        optimizer.step()
    model.eval()
    out = model.generate([s.image for s in samples], ["x", samples[1].text], max_new_tokens=20)
    assert out.texts == WANTED
    assert [len(masks) for masks in out.pred_masks] == [1, 0]
    assert out.complete == [True, True]


WANTED = ["It is <SEG>.", "all round"]


def test_a_writer_draws_the_same_for_the_same_epoch() -> None:
    samples = [sample(number) for number in range(40)]
    first, again, later = AnswerWriter(1, 1), AnswerWriter(1, 1), AnswerWriter(1, 2)
    assert [first(s) for s in samples] == [again(s) for s in samples]
    assert [first(s) for s in samples] != [later(s) for s in samples]
    assert {answer for _, answer in map(first, samples)} == set(ANSWERS)
    phrases = {question for question, _ in map(first, samples)}
    assert phrases <= {template.format("all that is not round") for template in PHRASES}
    sentence = dataclasses.replace(samples[0], groups={"length": "long"})
    assert first(sentence)[0] in {template.format(sentence.text) for template in SENTENCES}
    assert first(sample(0, empty=True))[1] == NO_TARGET_ANSWER
    assert AnswerWriter(no_target_answer="No.")(sample(0, empty=True))[1] == "No."
    assert pickle.loads(pickle.dumps(first)) == first


def test_explanations_follow_the_mask(tmp_path: Path) -> None:
    path = tmp_path / "explanatory" / "train.json"
    path.parent.mkdir()
    entry = {"image": "image_3.jpg", "query": "q", "outputs": "They keep  one dry."}
    path.write_text(json.dumps([entry]), encoding="utf-8")
    explanations = read_explanations(tmp_path)
    assert explanations == {"image_3": "They keep one dry."}
    drawn = {AnswerWriter(0, epoch, explanations=explanations)(sample(3)) for epoch in range(20)}
    explained = [pair for pair in drawn if pair[1].endswith("They keep one dry.")]
    assert explained
    assert len(explained) < len(drawn)
    assert all("<SEG>" in answer and "expla" in question for question, answer in explained)
    assert read_explanations(tmp_path / "elsewhere") == {}
    for bad in ("{}", "[3]", '[{"image": "x"}]', "[", '[{"image": 3, "outputs": "x"}]'):
        path.write_text(bad, encoding="utf-8")
        with pytest.raises(DataError, match=r"train\.json"):
            read_explanations(tmp_path)


def test_weights_and_switches() -> None:
    config = TrainingConfig(model=ModelConfig(quantize=False), loss=ANSWER_MODE)
    assert config.model.answers
    assert config.model.quantization == "none"
    assert not TrainingConfig().model.answers
    assert LossWeights(bce=0, dice=0, iou=0, ce=1).ce == 1
    with pytest.raises(ConfigError, match="no_target_answer"):
        TrainingConfig(no_target_answer="<SEG>")
    with pytest.raises(ConfigError, match="no_target_answer"):
        TrainingConfig(no_target_answer=" ")


def test_a_checkpoint_keeps_the_answer_head(tmp_path: Path) -> None:
    from modified_lisa import ModifiedLISA

    model = tiny_model(answers=True)
    with torch.no_grad():
        model.answer_head.column.row.mul_(7)
    again = ModifiedLISA.from_pretrained(model.save_pretrained(tmp_path), device="cpu")
    assert again.config.answers
    asked = ([picture()], ["all round"])
    assert again.generate(*asked, max_new_tokens=6).texts == model.generate(*asked, max_new_tokens=6).texts
