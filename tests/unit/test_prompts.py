"""Queries, prompts and the <SEG> token."""

import pytest
import torch

from factory import tiny_model
from modified_lisa.errors import ConfigError
from modified_lisa.model.processor import LisaProcessor
from modified_lisa.prompts import SEG_TOKEN, with_seg
from modified_lisa.tokens import SegEmbedding


@pytest.fixture(scope="module")
def processor() -> LisaProcessor:
    return tiny_model().processor


def test_seg_is_appended_where_missing_and_left_where_it_stands() -> None:
    assert with_seg("the ball") == "the ball <SEG>"
    assert with_seg("the <SEG> ball") == "the <SEG> ball"
    assert with_seg("  a\n b <SEG>") == "a b <SEG>"


@pytest.mark.parametrize(
    "query", ["", "   ", "<SEG>", " <SEG> <SEG>", "a\ud800b", "\udfff", "it \udc00", None, 3]
)
def test_a_query_that_is_not_words_is_refused(query: object) -> None:
    with pytest.raises(ConfigError):
        with_seg(query)  # type: ignore[arg-type]


def test_the_prompt_is_the_chat_template_up_to_the_last_seg(processor: LisaProcessor) -> None:
    ids = processor.encode("the <SEG> one and <SEG> more")
    assert ids[-1] == processor.seg_token_id
    assert ids.count(processor.seg_token_id) == 2
    assert ids.count(processor.image_token_id) == processor.image_tokens == 16
    text = processor.tokenizer.decode([i for i in ids if i != processor.image_token_id])
    assert text.startswith("<s>USER:")
    assert ids.count(processor.tokenizer.bos_token_id) == 1


def test_space_before_seg_changes_nothing(processor: LisaProcessor) -> None:
    assert processor.encode("the ball?<SEG>") == processor.encode("the ball?   <SEG>")


def test_the_image_token_in_a_query_is_refused(processor: LisaProcessor) -> None:
    with pytest.raises(ConfigError, match="<image>"):
        processor.encode("what is in <image>?")


def test_seg_is_one_token_beyond_the_vocabulary_and_never_looked_up(processor: LisaProcessor) -> None:
    model = tiny_model()
    tokenizer = model.processor.tokenizer
    assert tokenizer.convert_tokens_to_ids(SEG_TOKEN) == processor.seg_token_id
    assert len(tokenizer.encode(SEG_TOKEN, add_special_tokens=False)) == 1
    rows = model.language_model.get_input_embeddings().num_embeddings
    assert rows == len(tokenizer) - 1 + 8, "the padded vocabulary is neither shrunk nor grown"


def test_the_row_stands_at_seg_only_and_gets_all_of_the_gradient() -> None:
    embedding = SegEmbedding(torch.ones(1, 3))
    embeds = torch.zeros(2, 4, 3, requires_grad=True)
    where = torch.tensor([[False, True, False, True], [False, False, False, True]])
    out = embedding(embeds, where)
    assert torch.equal(out.sum(dim=-1), where * 3.0)
    out.sum().backward()
    assert torch.equal(embedding.row.grad, torch.full((1, 3), 3.0))
    assert embeds.grad is not None
    assert torch.equal(embeds.grad[where], torch.zeros(3, 3))
