"""The models of a benchmark: one language model in memory, and the architectures that are put around it in turn."""

import gc
from typing import Any

import torch
from torch import nn

from modified_lisa.benchmark.arguments import BenchmarkConfig
from modified_lisa.config import ModelConfig
from modified_lisa.model import loading
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.model.nf4.linear import use_fast_nf4
from modified_lisa.model.quantization import QuantizationReport
from modified_lisa.model.random_init import random_sam, random_vlm, seeded

__all__ = ["Parts", "free_memory"]


def free_memory(device: torch.device) -> None:
    """Give back what nothing holds any more of a GPU, so that the next figure is not the last one's."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.synchronize(device)
        torch.cuda.empty_cache()


class Parts:
    """A VLM in one precision, and the SAMs of the architectures.

    Only what the architecture of the last `arm` needs is on the device; the rest waits on the CPU. The layers
    of the language model are bitsandbytes' until `use_own_kernels`.
    """

    def __init__(self, config: BenchmarkConfig, quantization: str, device: torch.device) -> None:
        self.config, self.quantization, self.device = config, quantization, device
        self.own_kernels = False
        original = "original" in config.sources
        base = self._model_config("dual", config.original_sam if original else config.sam_name)
        with seeded(0):
            self.vlm, self.report = self._load_vlm(base, original)
            self.sams: dict[str, Any] = {}
            if original:
                self.sams[config.original_sam] = self._load_sam(base)
            if config.sam_name not in self.sams and {"vlm", "sam"} & set(config.sources):
                source = "sam" if "sam" in config.sources else "vlm"
                self.sams[config.sam_name] = self._load_sam(self._model_config(source, config.sam_name))
        self.tower = self.vlm.model.vision_tower

    def _model_config(self, source: str, sam_name: str) -> ModelConfig:
        config = self.config
        return ModelConfig(
            vlm_name=config.vlm_name,
            sam_name=sam_name,
            vision_source=source,
            dtype=config.dtype,
            quantization=self.quantization,
        )

    def _load_vlm(self, base: ModelConfig, with_lm_head: bool) -> tuple[Any, QuantizationReport]:
        if self.config.random_init:
            dtype = loading.DTYPES[base.dtype]
            return random_vlm(base, self.device, dtype, with_lm_head=with_lm_head, verbose=False)
        return loading.load_vlm(base, self.device, with_lm_head=with_lm_head, verbose=False)

    def _load_sam(self, base: ModelConfig) -> Any:
        if self.config.random_init:
            return random_sam(base, self.device, loading.DTYPES[base.dtype], verbose=False)
        return loading.load_sam(base, self.device, verbose=False)

    def arm(self, source: str) -> ModifiedLISA:
        """The architecture ``original``, ``vlm`` or ``sam``; let go of the one before first."""
        config = self.config
        name = config.original_sam if source == "original" else config.sam_name
        vision = "dual" if source == "original" else source
        self._place(self.tower, vision != "sam")
        for key, sam in self.sams.items():
            self._place(sam.vision_encoder, key == name and vision != "vlm")
        if not self._head_is_tied:
            self._place(self.vlm.lm_head, source == "original")
        free_memory(self.device)
        with seeded(0):  # what trains is drawn anew for each, and has to be the same to compare masks
            model = ModifiedLISA(
                **self._model_config(vision, name).to_dict(),
                device=self.device,
                random_init=config.random_init,
                parts=(self.vlm, self.sams[name], self.report),
                nf4_kernels=False,  # the layers stay with the kernels that they have
            )
        free_memory(self.device)
        return model

    @property
    def lm_head(self) -> nn.Module:
        """Hidden states to words; there with ``original`` among the sources."""
        head: nn.Module = self.vlm.lm_head
        return head

    @property
    def _head_is_tied(self) -> bool:
        head = self.vlm.lm_head
        return head is not None and head.weight is self.vlm.get_input_embeddings().weight

    def _place(self, module: nn.Module | None, here: bool) -> None:
        if module is not None:
            module.to(self.device if here else "cpu")

    def use_own_kernels(self) -> tuple[int, int]:
        """From now on multiply 4-bit weights by this package's kernels; numbers as of `use_fast_nf4`."""
        self.own_kernels = True
        if self.device.type != "cuda":
            return 0, 0
        return use_fast_nf4(self.vlm.model.language_model)
