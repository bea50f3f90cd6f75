"""Queries that a model cannot read are found before the first sample."""

import json
import pickle

import pytest

from factory import bright_squares, tiny_model
from modified_lisa import ModifiedLISA, evaluation
from modified_lisa.data import ReasonSegDataset
from modified_lisa.data.asking import check_queries
from modified_lisa.data.refcoco import RefCocoDataset
from modified_lisa.errors import DataError
from modified_lisa.evaluation import evaluate_checkpoint
from original_lisa_factory import Sizes, make_checkpoint
from refcoco_folder import make_refcoco, reference

LONG, PLACE = "word " * 3000, "an <image> of it"


@pytest.fixture
def root(tmp_path):
    """Three images; one with a query that is too long, one with the image's token in it."""
    root = bright_squares(tmp_path, {"val": 3})
    for number, text in ((0, LONG), (2, PLACE)):
        file = root / "val" / f"image_{number}.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"text": [text]}))
    return root


def test_all_are_listed_or_left_out(root):
    processor = tiny_model().processor
    with pytest.raises(DataError, match="2 of the queries") as raised:
        check_queries(processor, ReasonSegDataset(root, "val"))
    assert "val/image_0#0: the query makes a prompt of" in str(raised.value)
    assert "val/image_2#0: the query contains '<image>'" in str(raised.value)

    rest = ReasonSegDataset(root, "val", skip_bad_samples=True)
    check_queries(processor, rest)
    assert rest.names == ["val/image_1#0"]
    assert [str(problem).partition(": ")[0][-12:] for problem in rest.problems] == [
        "image_0.json",
        "image_2.json",
    ]
    assert rest[0].text == "what is bright?"


def test_a_set_of_which_nothing_is_left_is_refused(root):
    (root / "val" / "image_1.json").unlink()
    (root / "val" / "image_1.jpg").unlink()
    with pytest.raises(DataError, match="2 of the queries"):
        check_queries(tiny_model().processor, ReasonSegDataset(root, "val", skip_bad_samples=True))


def test_sentences_of_refcoco(tmp_path):
    make_refcoco(tmp_path)
    entries = [reference(1, 1001, "val", "it", PLACE, "that one")]
    (tmp_path / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(entries))
    rest = RefCocoDataset(tmp_path, "refcoco", "val", skip_bad_samples=True)
    check_queries(tiny_model().processor, rest)
    assert [sample.text for sample in rest] == ["it", "that one"]
    assert "the query contains" in rest.problems[0]


def test_published_lisas_refuse_more_tokens(tmp_path):
    make_checkpoint(tmp_path / "lisa", Sizes(tokenizer=True))
    root = bright_squares(tmp_path, {"val": 2})
    file = root / "val" / "image_1.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"text": ["the <im_start> of it"]}))
    processor = ModifiedLISA.from_pretrained(tmp_path / "lisa", "cpu").processor
    with pytest.raises(DataError, match=r"val/image_1#0: the query contains .*<im_start>"):
        check_queries(processor, ReasonSegDataset(root, "val"))


def test_an_evaluation_measures_nothing_before_it_refuses(root, tmp_path, monkeypatch):
    folder = tiny_model().save_pretrained(tmp_path / "model")
    monkeypatch.setattr(evaluation, "evaluate", lambda *_, **__: pytest.fail("it has begun to measure"))
    with pytest.raises(DataError, match="2 of the queries"):
        evaluate_checkpoint(folder, data_dir=root, split="val", device="cpu", progress=False)
