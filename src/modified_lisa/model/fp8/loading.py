"""fp8 for transformers' loader, which quantises each weight as it has been read."""

import functools
from typing import Any

import torch
from torch import nn

from modified_lisa.model.fp8.linear import FP8Linear, fp8_suits

__all__ = ["fp8_on_load"]

_NAME = "modified_lisa_fp8"


@functools.cache
def fp8_on_load(prefix: str) -> Any:
    """A ``quantization_config`` for ``from_pretrained``: the linear layers under ``prefix`` whose sizes suit."""
    from transformers.core_model_loading import ConversionOps
    from transformers.quantizers import HfQuantizer
    from transformers.quantizers.auto import register_quantization_config, register_quantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

    class Quantise(ConversionOps):
        """A weight that has been read -> its codes, in a module that takes the place of the plain layer."""

        def convert(
            self, input_dict: dict[str, Any], *_: Any, model: Any = None, **__: Any
        ) -> dict[str, Any]:
            found = {}
            for name, value in input_dict.items():
                path = name.removesuffix(".weight")
                layer = model.get_submodule(path)
                layer.weight = nn.Parameter(_only(value), requires_grad=False)
                new: Any = FP8Linear.from_linear(layer)
                for tensor in (new, new.weight, new.scale):
                    tensor._is_hf_initialized = True  # or it would be drawn at random
                model.set_submodule(path, new)
                found[name] = new.weight
            return found

    @register_quantization_config(_NAME)
    class Settings(QuantizationConfigMixin):
        def __init__(self) -> None:
            self.quant_method: Any = _NAME

    @register_quantizer(_NAME)
    class Quantiser(HfQuantizer):
        def param_needs_quantization(self, model: Any, param_name: str, **_: Any) -> bool:
            path, _dot, leaf = param_name.rpartition(".")
            if leaf != "weight" or not path.startswith(prefix):
                return False
            layer = model.get_submodule(path)
            return isinstance(layer, nn.Linear) and fp8_suits(layer)

        def get_quantize_ops(self) -> Any:
            return Quantise()

        def is_serializable(self) -> bool:
            return False

        @property
        def is_trainable(self) -> bool:
            return True

    return Settings()


def _only(value: Any) -> torch.Tensor:
    given: torch.Tensor = value[0] if isinstance(value, list) else value
    return given
