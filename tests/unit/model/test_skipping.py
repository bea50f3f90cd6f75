"""What nothing reads is not computed, and what is read does not change."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from factory import picture, tiny_model
from modified_lisa import ModifiedLISA
from modified_lisa.model import lisa, prefix
from modified_lisa.model.prefix import run_prefix
from modified_lisa.model.reading import answer, read_image
from modified_lisa.model.skipping import skipped, unread

TEXTS = ["which of these would keep me dry?", "the <SEG> one and <SEG>"]


@contextlib.contextmanager
def recorded(module: nn.Module) -> Iterator[list[int]]:
    """The tokens that ``module`` is given, call by call."""
    seen: list[int] = []
    hook = module.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[1]))
    yield seen
    hook.remove()


@contextlib.contextmanager
def everything_run() -> Iterator[None]:
    """Nothing is spared in the language model."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (lisa, prefix):
            patch.setattr(module, "unread", lambda *_: contextlib.nullcontext())
        yield


def test_the_tower_ends_with_the_deepest_layer_that_is_read() -> None:
    tower: Any = tiny_model(vision_source="vlm").vision.encoder
    pixels = torch.randn(2, 3, tower.tower.config.image_size, tower.tower.config.image_size)
    with torch.no_grad():
        whole = tower.tower(pixels, output_hidden_states=True).hidden_states
    blocks = tower.tower.encoder.layers
    assert len(blocks) == tower.depth
    for deepest in range(1, tower.depth + 1):
        with contextlib.ExitStack() as stack:
            seen = [stack.enter_context(recorded(block.mlp.fc1)) for block in blocks]
            states = tower(pixels, (deepest, deepest - 1))
        assert [len(calls) for calls in seen] == [1] * deepest + [0] * (tower.depth - deepest)
        assert torch.equal(states[0], whole[deepest])
        assert torch.equal(states[1], whole[deepest - 1])
        for state, layer in zip(tower(pixels, (deepest - 1, -2)), (deepest - 1, -2), strict=True):
            assert torch.equal(state, whole[layer])  # counted from the end, as in `hidden_states`
    assert not any("forward" in block.__dict__ for block in blocks)


@pytest.mark.parametrize("seg_state", ["at", "before"])
@pytest.mark.parametrize("source", ["vlm", "sam"])
def test_the_last_mlp_sees_only_tokens_whose_state_is_read(source: str, seg_state: str) -> None:
    model = tiny_model(vision_source=source, seg_state=seg_state)
    images = [picture(60, 80, 1), picture(90, 40, 2)]
    inputs = model.processor(images, TEXTS)
    first, last = (model.language_model.layers[number].mlp for number in (0, -1))
    with torch.no_grad():
        with everything_run():
            whole = model(inputs)
        with recorded(first.up_proj) as all_tokens, recorded(last.up_proj) as some:
            spared = model(inputs)
    (length,) = all_tokens
    assert some == [length - inputs.image_place.stop + 1]
    for key in ("pred_masks", "iou_predictions", "seg_embeddings"):
        for mine, expected in zip(spared[key], whole[key], strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("seg_state", ["at", "before"])
def test_an_image_read_once_is_remembered_as_ever(seg_state: str) -> None:
    model = tiny_model(vision_source="vlm", seg_state=seg_state)
    image = model.processor.prefix(picture(60, 80, 1))
    queries = model.processor.queries(TEXTS)
    with everything_run():
        whole = read_image(model, image)
    with recorded(model.language_model.layers[-1].mlp.up_proj) as seen:
        spared = read_image(model, image)
    assert seen == [1]
    for mine, expected in zip(spared.tensors(), whole.tensors(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)
    for mine, expected in zip(answer(model, spared, queries), answer(model, whole, queries), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-5)


def test_with_gradients_all_is_run() -> None:
    model = tiny_model(vision_source="vlm", lora_r=2)
    inputs = model.processor([picture()], ["round"])
    with recorded(model.language_model.layers[-1].mlp.up_proj) as seen:
        model(inputs)
    assert seen == [inputs.input_ids.shape[1]]


def test_a_language_model_of_other_parts_is_run_whole() -> None:
    model = tiny_model()
    layer = model.language_model.layers[-1]
    mixture = type("Mixture", (type(layer.mlp),), {})(model.language_model.config)
    mixture.load_state_dict(layer.mlp.state_dict())
    embeds = torch.randn(1, 5, model.language_model.config.hidden_size)
    expected = run_prefix(model.language_model, embeds)
    layer.mlp = mixture
    with recorded(mixture.up_proj) as seen:
        keys = run_prefix(model.language_model, embeds)
    assert seen == [5]
    torch.testing.assert_close(keys.last, expected.last)


def double() -> nn.Module:
    linear = nn.Linear(2, 2, bias=False)
    nn.init.constant_(linear.weight, 0)
    linear.weight.data.diagonal().fill_(2)
    return linear


def test_hooks_run_and_what_stood_there_comes_back() -> None:
    module, x = double(), torch.ones(1, 3, 2)
    called: list[int] = []
    module.register_forward_hook(lambda *_: called.append(1))
    module.forward = lambda given: given * 5  # type: ignore[method-assign]
    before = module.forward
    with skipped([module]):
        assert torch.equal(module(x), x)
        with skipped([module], tokens=1):
            assert module(x)[0, :, 0].tolist() == [1, 5, 5]
        assert torch.equal(module(x), x)
    assert called == [1, 1, 1]
    with pytest.raises(TypeError), skipped([module], tokens=1):
        module("no tensor")
    assert module.forward is before
    assert torch.equal(module(x), x * 5)
    del module.forward
    with skipped([module]):
        pass
    assert "forward" not in module.__dict__
    assert torch.equal(module(x), x * 2)


def test_other_threads_are_not_concerned() -> None:
    module, x = double(), torch.ones(1, 1, 2)
    inside, done = threading.Event(), threading.Event()
    found: list[torch.Tensor] = []

    def skipping() -> None:
        with skipped([module]):
            inside.set()
            done.wait(10)
            found.append(module(x))

    thread = threading.Thread(target=skipping)
    thread.start()
    assert inside.wait(10)
    assert torch.equal(module(x), x * 2)
    with skipped([module]):
        assert torch.equal(module(x), x)
    assert torch.equal(module(x), x * 2)
    done.set()
    thread.join(10)
    assert torch.equal(found[0], x)
    assert torch.equal(module(x), x * 2)
    assert "forward" not in module.__dict__


def test_nothing_is_skipped_where_a_gradient_is_wanted() -> None:
    model: ModifiedLISA = tiny_model()
    mlp = model.language_model.layers[-1].mlp
    with unread(model.language_model, 3):
        assert "forward" not in mlp.__dict__
    with torch.no_grad(), unread(model.language_model, 3):
        assert "forward" in mlp.__dict__
