"""The words of the bundled VLM: its tokenizer, what they mean from the start, and wordings that lose some."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from factory import TEXTS
from modified_lisa.model.tiny import build_tokenizer


@given(share=st.floats(0, 1), seed=st.integers(0, 999))
def test_a_shortened_wording_is_some_of_its_words_in_order(share, seed):
    from packer import shortened

    wording = [0, 2, 1, 2, 5, 3, 4, 5, 1]
    begins = np.isin(wording, [1, 3, 4])
    words = [[1, 2, 5], [3], [4, 5], [1]]
    short = shortened(wording, begins, share, np.random.default_rng(seed))
    assert short[:2] == [0, 2], "what stands before the first word stays"
    options = [
        [token for word, stays in zip(words, chosen, strict=True) if stays for token in word]
        for chosen in itertools.product((True, False), repeat=4)
        if any(chosen)
    ]
    assert short[2:] in options
    if share == 0:
        assert short == wording


def test_a_tokenizer_may_read_capitals_as_small_letters():
    small = build_tokenizer(TEXTS, 500, lowercase=True)
    assert small.encode("\nThe RED one <image>") == small.encode("\nthe red one <image>")
    assert small.convert_tokens_to_ids("<image>") in small.encode("LOOK: <image>")


@pytest.mark.parametrize("drop", [0.0, 1.0])
def test_a_word_without_its_own_is_read_by_its_meaning(drop):
    from embedding import WordEmbedding

    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(6, 4), dim=1)
    vectors[0] = 0  # no word: it has nothing else
    words = WordEmbedding(vectors, 8, rows=7, drop=drop)
    ids = torch.arange(6)
    meaning = words.project(words.vectors[ids])
    whole = words.eval()(ids)
    torch.testing.assert_close(whole, words.table()[ids])
    given = words.train()(ids)
    torch.testing.assert_close(given[1:], meaning[1:] if drop else whole[1:])
    torch.testing.assert_close(given[0], whole[0])


def test_embeddings_that_were_trained_are_seen_as_meaning_and_rest():
    from embedding import WordEmbedding

    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(40, 4), dim=1)
    vectors[0] = 0
    before, after = (WordEmbedding(vectors, 8, rows=41, drop=0.3) for _ in range(2))
    torch.nn.init.normal_(before.project.weight)
    table = before.table().detach()
    after.take(table)
    torch.testing.assert_close(after.table(), table)
    torch.testing.assert_close(after.project.weight, before.project.weight, rtol=0, atol=0.02)


def test_the_tokenizer_reads_no_wording_that_is_held_out():
    from corpus import corpus

    from modified_lisa.data.scenes.facts import FACTS

    read = "\n".join(corpus(0, 2, 1))
    wordings = [text for fact in FACTS.values() for text in fact.wordings]
    held_out = [text[1:] for text in wordings if text.startswith("!")]
    assert held_out
    assert not [text for text in held_out if text in read]
    assert all(text in read for text in wordings if not text.startswith("!"))


def test_words_begin_behind_a_blank_or_a_newline(tokenizer):
    from packer import Packer

    wording = tokenizer.encode("\nred thing, please", add_special_tokens=False)
    starts = np.flatnonzero(Packer(tokenizer, 120)._begins(wording)).tolist()
    pieces = [tokenizer.decode(wording[a:b]) for a, b in itertools.pairwise([0, *starts, len(wording)])]
    assert pieces == ["\n", "red", " thing,", " please"]


def test_pretraining_goes_on_with_kept_heads_or_those_of_a_tiny_lisa(tmp_path):
    from heads import HEADS, Heads, take_heads
    from safetensors.torch import save_file

    torch.manual_seed(0)
    known, state = Heads(16, 24, 3), {}
    for name, value in known.state_dict().items():
        state[name] = value.clone()
    assert take_heads(Heads(16, 24, 3), tmp_path) == 0

    (tmp_path / "tiny-lisa").mkdir()
    places = {"bridge.": "vision.bridge.", "projection.": "seg_projection."}
    lisa = {
        place + name.removeprefix(head): value
        for name, value in state.items()
        for head, place in places.items()
        if name.startswith(head)
    }
    path = tmp_path / "tiny-lisa" / "model.safetensors"
    save_file({**lisa, "mask_head.weight": torch.zeros(3)}, path)
    begun = Heads(16, 24, 3)
    assert take_heads(begun, tmp_path) == sum(value.numel() for value in lisa.values())
    for name, value in begun.state_dict().items():
        shared = name.startswith(tuple(places))
        assert torch.equal(value, state[name] if shared else torch.zeros_like(value)), name
    save_file({"vision.bridge.unheard_of": torch.zeros(3)}, path)
    with pytest.raises(SystemExit, match="unheard_of"):
        take_heads(begun, tmp_path)

    save_file(state, tmp_path / HEADS)
    assert take_heads(begun, tmp_path) == sum(value.numel() for value in state.values())
    assert all(torch.equal(value, state[name]) for name, value in begun.state_dict().items())
