"""What the two goes of the language model leave behind."""

import gc

import pytest

import factory


@pytest.mark.parametrize("source", ["vlm", "sam", "dual"])
def test_a_training_step_leaves_nothing_to_the_garbage_collector(source: str) -> None:
    """Keys and values in a circle of references would stay on the GPU until Python looks for such circles."""
    model = factory.tiny_model(vision_source=source).train()
    inputs = model.processor([factory.picture()], ["what is round?"])

    def step() -> None:
        _, logits, iou = model.compute(inputs)
        (logits.mean() + iou.mean()).backward()

    step()  # whatever is made once
    gc.collect()
    gc.disable()
    try:
        step()
        assert gc.collect() == 0
    finally:
        gc.enable()
