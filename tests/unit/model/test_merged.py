"""Merged projections and a prefix with room behind it give what the plain ones give."""

import copy
import pickle

import pytest
import torch

from factory import picture, tiny_model
from modified_lisa.model.fused import fused, kept_positions
from modified_lisa.model.merged import merge_projections, shared_forwards
from modified_lisa.model.reading import answer, read_image


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def cast(model):
    model.language_model.double()
    return model


@pytest.mark.usefixtures("uncompiled")
def test_merged_and_fused_it_computes_the_same():
    model = tiny_model()
    inputs = model.processor([picture()], ["which one could roll away?"])
    with torch.no_grad():
        _, before, _ = model.compute(inputs)
        merged = merge_projections(model.language_model)
        assert merged == 2 * len(model.language_model.layers)
        assert merge_projections(model.language_model) == 0
        _, by_views, _ = model.compute(inputs)
        with fused(model):
            _, fast, _ = model.compute(inputs)
        _, after, _ = model.compute(inputs)
    assert torch.equal(by_views, before)
    assert torch.equal(after, before)
    torch.testing.assert_close(fast, before, rtol=1e-4, atol=1e-4)


def test_the_weights_are_moved_not_copied():
    model = tiny_model()
    names = set(model.state_dict())
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    merge_projections(model.language_model)
    attention = model.language_model.layers[0].self_attn
    storages = {part.weight.untyped_storage().data_ptr() for part in (attention.q_proj, attention.v_proj)}
    assert len(storages) == 1
    assert set(model.state_dict()) == names
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.usefixtures("uncompiled")
@pytest.mark.parametrize("change", [copy.deepcopy, cast, by_pickle], ids=["copied", "cast", "pickled"])
def test_what_is_moved_cast_or_copied_afterwards_is_merged_again(change):
    model = tiny_model()
    merge_projections(model.language_model)
    changed = change(model)
    with torch.no_grad():
        for parameter in changed.language_model.parameters():
            parameter.mul_(1.01)  # seen by a product that still is of these weights
        inputs = changed.processor([picture()], ["which one could roll away?"])
        _, plain, _ = changed.compute(inputs)
        with fused(changed):
            _, fast, _ = changed.compute(inputs)
    torch.testing.assert_close(fast, plain, rtol=1e-4, atol=1e-4)
    layer = changed.language_model.layers[0].self_attn
    assert shared_forwards(layer)
    assert merge_projections(changed.language_model) == 0, "merged by then"


def test_layers_with_adapters_stay_as_they_are():
    model = tiny_model(lora_r=2)
    merge_projections(model.language_model)
    assert shared_forwards(model.language_model.layers[0].self_attn) == {}
    assert set(shared_forwards(model.language_model.layers[0].mlp)) == {"gate_proj", "up_proj"}


def test_room_behind_the_prefix_changes_nothing():
    model = tiny_model()
    prefix = model.processor.prefix(picture())
    queries = [
        model.processor.queries(texts) for texts in (["the red one"], ["a <SEG> b", "what is not round?"])
    ]
    with torch.no_grad():
        plain, roomy = read_image(model, prefix), read_image(model, prefix, room=16)
        assert roomy.keys.length == plain.keys.length
        for each in queries + queries[:1]:  # once more: what was written behind must not be seen
            expected, given = answer(model, plain, each), answer(model, roomy, each)
            torch.testing.assert_close(given[0], expected[0], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(given[1], expected[1], rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("uncompiled")
def test_sams_positions_are_looked_up_once(monkeypatch):
    model = tiny_model(vision_source="sam")
    inputs = model.processor([picture()], ["which one could roll away?"])
    layers = [module for module in model.vision.encoder.modules() if hasattr(module, "get_rel_pos")]
    with torch.no_grad():
        _, before, _ = model.compute(inputs)
        with fused(model):
            for _ in range(2):
                torch.testing.assert_close(model.compute(inputs)[1], before, rtol=1e-4, atol=1e-4)
            calls: list[int] = []
            monkeypatch.setattr(type(layers[0]), "get_rel_pos", lambda *_: calls.append(1))
            model.compute(inputs)
    assert layers
    assert not calls
    with kept_positions(model):
        kept = layers[0].__dict__["get_rel_pos"]
        with fused(model):
            assert layers[0].__dict__["get_rel_pos"] is not kept
        assert layers[0].__dict__["get_rel_pos"] is kept
    assert "get_rel_pos" not in layers[0].__dict__
