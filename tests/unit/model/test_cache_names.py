"""The name of the cache is the one that transformers' models take, give back, and are handed by ``generate``."""

import inspect
from typing import Any

import pytest
import torch

from factory import tiny_model
from modified_lisa.errors import ModelLoadError
from modified_lisa.model.cache_names import CACHE_NAMES, cache_name, given_cache, returned_cache


@pytest.fixture
def fresh_name() -> Any:
    cache_name.cache_clear()
    yield
    cache_name.cache_clear()


def test_the_name_is_one_that_language_models_declare() -> None:
    language_model: Any = tiny_model().language_model
    declared = set(inspect.signature(type(language_model).forward).parameters) & set(CACHE_NAMES)
    assert declared == {cache_name()}


def test_what_is_given_is_read_and_what_is_returned_is_the_cache() -> None:
    language_model: Any = tiny_model().language_model
    embeds = torch.randn(1, 7, language_model.config.hidden_size)
    with torch.no_grad():
        whole = language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
        first = language_model(inputs_embeds=embeds[:, :4], use_cache=True)
        cache = returned_cache(first)
        assert cache.get_seq_length() == 4
        rest = language_model(inputs_embeds=embeds[:, 4:], use_cache=True, **given_cache(cache))
        forgotten = language_model(inputs_embeds=embeds[:, 4:], use_cache=True).last_hidden_state
    assert returned_cache(rest) is cache
    torch.testing.assert_close(rest.last_hidden_state, whole[:, 4:])
    assert not torch.allclose(forgotten, whole[:, 4:])


@pytest.mark.parametrize("name", CACHE_NAMES)
def test_the_name_is_read_from_the_installed_version(
    name: str, monkeypatch: pytest.MonkeyPatch, fresh_name: None
) -> None:
    _let_generate_use(name, monkeypatch)
    assert given_cache(3) == {name: 3}


def test_a_name_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch, fresh_name: None) -> None:
    _let_generate_use("memory", monkeypatch)
    with pytest.raises(ModelLoadError, match=r"under none of the names .* got self, memory"):
        cache_name()


def _let_generate_use(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import GenerationMixin

    def prepare(self: Any, **_: Any) -> None:
        raise AssertionError("only its signature is read")

    kinds = inspect.Parameter
    signature = inspect.Signature(
        [kinds("self", kinds.POSITIONAL_OR_KEYWORD), kinds(name, kinds.POSITIONAL_OR_KEYWORD)]
    )
    monkeypatch.setattr(prepare, "__signature__", signature, raising=False)
    monkeypatch.setattr(GenerationMixin, "prepare_inputs_for_generation", prepare)
