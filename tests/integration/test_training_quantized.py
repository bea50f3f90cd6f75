"""4-bit layers let the whole gradient through, also after a forward pass without gradients."""

from typing import Any

import bitsandbytes
import pytest
import torch
from torch import nn

import factory
from modified_lisa import ModifiedLISA


def _gradients(model: ModifiedLISA) -> dict[str, torch.Tensor]:
    model.zero_grad()
    model.train()
    inputs = model.processor([factory.picture()], ["all that is not round"])
    (model(inputs)["pred_masks"][0] ** 2).mean().backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def _dequantise(module: nn.Module) -> int:
    """Replace each 4-bit layer by a plain one with the same weights; how many there were."""
    found = 0
    for name, child in list(module.named_children()):
        if isinstance(child, bitsandbytes.nn.Linear4bit):
            weight: Any = child.weight
            values = bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).float()
            plain = nn.Linear(values.shape[1], values.shape[0], bias=child.bias is not None)
            plain.weight.data = values
            if child.bias is not None:
                plain.bias.data = child.bias.data.float()
            setattr(module, name, plain.requires_grad_(False))
            found += 1
        else:
            found += _dequantise(child)
    return found


@pytest.mark.parametrize("source", ["vlm", "sam"])
def test_gradients_after_validation_are_those_of_the_same_weights_in_fp32(source: str) -> None:
    model = factory.tiny_model(quantize=True, vision_source=source)
    model.eval()
    with torch.no_grad():  # as validation does; bitsandbytes may repack its weights here, on some CPUs
        model([factory.picture()], ["what is it?"])
    found = _gradients(model)
    assert _dequantise(model) > 0
    expected = _gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-6, msg=name)
