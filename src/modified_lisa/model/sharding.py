"""The frozen weights of a model's transformer blocks, dealt out over the processes of a training (FSDP2).

Each process keeps its part of every block, and a block is put together for the time in which it computes. What trains
stays whole in every process: it is small, its gradients are summed by `training.step` as ever, and optimizer,
clipping and checkpoints see plain tensors. So do the parts that are used outside of a forward call, such as the
embedding of words.

A model that is too large for one GPU is loaded into the host's memory and dealt out from there.

All processes must then run the same blocks at the same time: whoever calls the model must call it in all of them.
"""

from collections.abc import Sequence
from typing import Any

import torch

from modified_lisa.errors import ConfigError
from modified_lisa.model.quantization import binary_size

__all__ = ["BLOCKS", "check_can_shard", "is_sharded", "shard_frozen"]

BLOCKS = ("LlamaDecoderLayer", "CLIPEncoderLayer", "SamVisionLayer")
"""Classes of blocks in the language model, the VLM's encoder and SAM's, unless the launcher names others."""


def is_sharded(model: Any) -> bool:
    """Whether `shard_frozen` has been at ``model``."""
    from torch.distributed.fsdp import FSDPModule

    return isinstance(getattr(model, "language_model", None), FSDPModule)


def check_can_shard(quantization: str) -> None:
    """ConfigError where the weights are in fewer than 16 bits; ask before they are loaded."""
    if quantization != "none":
        raise ConfigError(
            f"FSDP deals out weights in 16 or 32 bit, and this model's are in {quantization}: add "
            "--no_quantization, or train with plain data parallelism (configs/accelerate/two-gpus.yaml), in which every "
            "process holds the whole quantised model"
        )


def shard_frozen(
    model: Any,
    device: torch.device,
    processes: int,
    names: Sequence[str] | None = None,
    *,
    encoders: bool = True,
) -> str:
    """Deal out the frozen weights of the blocks of ``model``, a `ModifiedLISA`, in place; says in words what was done.

    A block goes to ``device`` and is cut there before the next one comes; what stays whole follows.

    Args:
        device: this process's. The model may be on the CPU, so that no device ever holds the whole.
        processes: those of the default group.
        names: classes of blocks; None: `BLOCKS`.
        encoders: False: those of the language model alone, where processes encode different numbers of images.

    Raises:
        ConfigError: a quantised model, or a language model without such blocks.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    check_can_shard(str(model.config.quantization))
    known = tuple(names or BLOCKS)
    language_model = model.language_model
    inner = [module for module in language_model.modules() if type(module).__name__ in known]
    if not inner:
        raise ConfigError(
            f"FSDP: the language model, a {type(language_model).__name__}, has no {' or '.join(known)}; name its blocks "
            "in fsdp_transformer_layer_cls_to_wrap"
        )
    outer = [m for m in model.vision.modules() if type(m).__name__ in known] if encoders else []
    mesh = init_device_mesh(device.type, (processes,))
    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    sharded, blocks = 0, 0
    for block in [*outer, *inner]:
        if any(parameter not in trained for parameter in block.parameters()):
            sharded += sum(p.nbytes for p in block.parameters() if p not in trained)
            blocks += 1
            fully_shard(block, mesh=mesh, ignored_params=trained)
    # They hold nothing themselves; with them, the blocks below share streams, the next one is fetched while one computes,
    # and what has computed is dealt out again.
    for root in (
        language_model,
        *(part for part in model.vision.children() if any(m in outer for m in part.modules())),
    ):
        fully_shard(root, mesh=mesh, ignored_params=set(root.parameters()))
    model.to(device)
    whole = sum(p.nbytes for p in model.parameters() if not isinstance(p, _sharded_kind()))
    return (
        f"FSDP: the frozen weights of {blocks} blocks, {binary_size(sharded)}, are dealt out over {processes} processes; "
        f"{binary_size(whole)} are whole in each"
    )


def _sharded_kind() -> type[torch.Tensor]:
    from torch.distributed.tensor import DTensor

    return DTensor
