"""What captured training does around its graphs, with plain calls in their place: the gradients of plain training."""

import contextlib
import gc
import weakref

import pytest
import torch

from factory import picture, tiny_model
from modified_lisa.training import captured, captured_parts
from modified_lisa.training.captured import capture_parts, release_parts
from static_calls import StaticCalls, static_graphed

BATCHES = [
    ["the red one"],
    ["what is <SEG>", "all that could be eaten by somebody who is hungry"],
    ["the blue one"],
    ["<SEG> and <SEG>", "which?", "what would keep me dry in the rain, if it rained here?"],
]


@pytest.fixture(autouse=True)
def _without_graphs(monkeypatch):
    monkeypatch.setattr(captured, "Graphs", StaticCalls)
    monkeypatch.setattr(captured, "why_not_captured", lambda model: None)
    monkeypatch.setattr(captured, "fused", lambda model: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "make_graphed_callables", static_graphed)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)


def learn(model, texts) -> None:
    """From all that a training learns from: masks and predicted IoU."""
    found = model([picture(30 + 9 * row, 50, seed=row) for row in range(len(texts))], texts)
    both = zip(found["pred_masks"], found["iou_predictions"], strict=True)
    sum(mask.square().mean() + iou.square().sum() for mask, iou in both).backward()


def gradients(model, texts):
    model.zero_grad()
    learn(model, texts)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def check_alike(given, expected) -> None:
    """By the length of each weight's gradient: in float32, a component that is nearly 0 is what rounding left of others."""
    assert given.keys() == expected.keys()
    for name, value in given.items():
        if not name.endswith(
            "k_proj.bias"
        ):  # its gradient is 0, but for rounding: it adds the same to all scores
            assert (value - expected[name]).norm() <= 1e-4 * expected[name].norm(), name


@pytest.mark.parametrize("state", ["at", "before"])
def test_it_gives_the_states_and_gradients_of_plain_training_in_float64(state):
    model = tiny_model(seg_state=state).double().train()
    tokens = torch.randn(3, 16, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def run(texts):
        model.zero_grad()
        images = [picture(30, 50, seed=row) for row in range(len(texts))]
        states = model.seg_states(tokens[: len(texts)], model.processor(images, texts))
        states.square().sum().backward()
        return states.detach(), model.seg_embedding.row.grad.clone()

    wanted = [run(texts) for texts in BATCHES]
    capture_parts(model)
    for _ in range(2):
        for texts, expected in zip(BATCHES, wanted, strict=True):
            torch.testing.assert_close(run(texts), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "options", [{}, {"vision_source": "dual"}, {"seg_state": "before"}, {"train_mask_decoder": True}], ids=str
)
def test_it_gives_the_gradients_of_plain_training(options):
    model = tiny_model(**options).train()
    wanted = [gradients(model, texts) for texts in BATCHES]
    assert "captured" in capture_parts(model)
    for _ in range(2):  # the second time every buffer has been used by other batches
        for texts, expected in zip(BATCHES, wanted, strict=True):
            check_alike(gradients(model, texts), expected)
    release_parts(model)
    check_alike(gradients(model, BATCHES[0]), wanted[0])


@pytest.mark.parametrize(
    "options", [{"lora_r": 2}, {"train_projector": True}, {"vision_source": "sam"}], ids=str
)
def test_where_the_prompt_depends_on_trained_weights_it_says_so(options):
    model = tiny_model(**options)
    plain = model.split_forward
    assert "full backward pass" in capture_parts(model)
    assert model.split_forward is plain


def test_masks_without_a_gradient_do_not_touch_what_training_keeps():
    model = tiny_model().train()
    capture_parts(model)
    calls = []
    model.vision.encoder.register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    with torch.no_grad():
        before = model([picture()], ["the red one"])["pred_masks"][0]
    assert not model.mask_head.forward._graphs, "nothing is captured for it"
    torch.testing.assert_close(model([picture()], ["the red one"])["pred_masks"][0].detach(), before)
    assert len(calls) == 2
    assert len(model.mask_head.forward._graphs) == len(model.vision.bridge.forward._graphs) == 1


def test_keys_that_found_no_room_can_be_asked_for_again(monkeypatch):
    model = tiny_model().train()
    capture_parts(model)
    gradients(model, BATCHES[0])
    makes = torch.Tensor.new_zeros

    def too_large(self, *size, **options):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(torch.Tensor, "new_zeros", too_large)
    with pytest.raises(torch.OutOfMemoryError):
        model.split_forward._reserve(model.language_model, torch.zeros(9, 3, 64), 9, 640)
    monkeypatch.setattr(torch.Tensor, "new_zeros", makes)
    given = gradients(model, BATCHES[1])
    release_parts(model)
    check_alike(given, gradients(model, BATCHES[1]))


def test_a_step_of_several_batches_sums_their_gradients():
    model = tiny_model(train_mask_decoder=True).train()

    def summed(groups):
        model.zero_grad()
        for texts in groups:
            learn(model, texts)
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    groups = [["the red one"], ["the blue one"], ["what rolls?", "two of <SEG>"], ["what flies?"]]
    wanted = summed(groups)
    capture_parts(model)
    for _ in range(2):
        check_alike(summed(groups), wanted)


def test_what_trains_is_seen_where_it_was_changed_and_only_a_few_shapes_are_kept():
    model = tiny_model().train()
    capture_parts(model)
    texts = ["the red one"]
    before = gradients(model, texts)
    with torch.no_grad():
        for weight in model.vision.bridge.parameters():
            weight.mul_(1.5)
    changed = gradients(model, texts)
    release_parts(model)
    check_alike(changed, gradients(model, texts))
    assert any((changed[name] - value).norm() > 0.01 * value.norm() for name, value in before.items())
    capture_parts(model)
    wanted = {}
    for count in (*range(1, 8), 7):
        given = gradients(model, ["the red one"] * count)
        check_alike(given, wanted.setdefault(count, given))
    assert len(model.mask_head.forward._graphs) == captured_parts.KEEP
    release_parts(model)
    check_alike(gradients(model, ["the red one"] * 7), wanted[7])


def test_releasing_leaves_nothing_and_frees_the_graphs():
    model = tiny_model().train()
    plain = model.split_forward
    capture_parts(model)
    gradients(model, BATCHES[0])
    graphs = [weakref.ref(part.forward) for part in (model.vision.bridge, model.mask_head)]
    assert all(graph()._graphs for graph in graphs)
    gc.disable()  # what is garbage in a circle is freed at once all the same
    try:
        release_parts(model)
    finally:
        gc.enable()
    assert [graph() for graph in graphs] == [None, None]
    assert model.split_forward is plain
    for name, module in model.named_modules():
        assert not {"forward", "frozen"} & set(module.__dict__), name


def test_weights_in_another_place_are_captured_anew():
    model = tiny_model().train()
    capture_parts(model)
    gradients(model, BATCHES[0])
    for part in (model.vision.bridge, model.mask_head):
        for weight in part.parameters():
            weight.data = 1.25 * weight.data
    moved = gradients(model, BATCHES[0])
    assert len(model.mask_head.forward._graphs) == 2
    release_parts(model)
    check_alike(moved, gradients(model, BATCHES[0]))
