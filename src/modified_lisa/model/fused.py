"""Elementwise work of a model as few kernels, for the time of a ``with``: same values up to rounding.

transformers writes a norm, a rotation of the positions or a gated activation as five to ten small kernels,
each of which reads and writes the whole activation. torch.compile makes one of each. Of the language model and CLIP
only these functions are compiled, not whole layers: it takes seconds instead of minutes, serves every layer and
length, and the products stay with the libraries and kernels that do them best. SAM's layers are compiled whole.
"""

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from modified_lisa.model.fused_llama import compiled, llama_forwards, rotary
from modified_lisa.model.merged import shared_forwards

__all__ = ["compiled_layers", "fused", "kept_positions"]


def _quick_gelu(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(1.702 * x)


@contextlib.contextmanager
def fused(model: nn.Module) -> Iterator[None]:
    """Within it, norms, rotations and activations that are recognised in ``model`` run as one kernel each, and
    products that `merge_projections` has merged as one. SAM's relative positions are looked up once.

    Also leaves the causal mask to the attention kernel, instead of writing it out: while a graph is being
    captured, transformers does not trust itself to see that nothing is padded.
    """
    with contextlib.ExitStack() as undo:
        # Here whole layers are worth it: between their products, windows are cut and joined, and a position's bias is
        # written for every pair of cells; eight passes over memory that one compiled kernel or two do.
        undo.enter_context(
            compiled_layers(m for m in model.modules() if type(m).__name__ == "SamVisionLayer")
        )
        # One version for each kind of layout is wanted; the functions below fail beyond that, instead of going on slowly.
        undo.enter_context(torch._dynamo.config.patch(recompile_limit=64))
        undo.enter_context(kept_positions(model))
        for module in model.modules():
            replaced = {module: _replacement(module)} | llama_forwards(module)
            replaced |= {getattr(module, name): part for name, part in shared_forwards(module).items()}
            for target, forward in replaced.items():
                if forward is not None:
                    target.forward = forward
                    undo.callback(target.__dict__.pop, "forward", None)
        for source in {sys.modules[type(module).__module__] for module in model.modules()}:
            for name, value in _FUNCTIONS.get(source.__name__, {}).items():
                undo.callback(setattr, source, name, getattr(source, name))
                setattr(source, name, value)
        yield


def _whole(forward: Callable[..., Any]) -> Callable[..., Any]:
    # For these shapes only: windows are counted by a division that symbolic shapes cannot follow.
    compiled: Callable[..., Any] = torch.compile(forward, dynamic=False)
    return compiled


@contextlib.contextmanager
def compiled_layers(layers: Iterable[Any]) -> Iterator[None]:
    """Meanwhile, these run compiled, each kind of them once."""
    with contextlib.ExitStack() as undo:
        for layer in layers:
            layer.forward = _whole(layer.forward)
            undo.callback(layer.__dict__.pop, "forward", None)
            # transformers' hooks that could record attention weights would cut what is compiled in two.
            for part in layer.modules():
                if part is not layer and part._forward_hooks:
                    undo.callback(part._forward_hooks.update, part._forward_hooks.copy())
                    part._forward_hooks.clear()
        yield


@contextlib.contextmanager
def kept_positions(model: nn.Module) -> Iterator[None]:
    """Within it, SAM's tables of relative positions are made once: transformers makes them of indices on the CPU at
    every call, for which a graph cannot wait. They must be frozen; each is kept with its layer, as graphs may read it."""
    with contextlib.ExitStack() as undo:
        for module in model.modules():
            if type(module).__name__ in ("SamVisionAttention", "SamVisionSdpaAttention"):
                before = {name: kept for name, kept in module.__dict__.items() if name == "get_rel_pos"}
                module.__dict__["get_rel_pos"] = _kept(module)
                undo.callback(module.__dict__.update, before)
                undo.callback(module.__dict__.pop, "get_rel_pos", None)
        yield


def _kept(attention: Any) -> Callable[..., torch.Tensor]:
    made = attention.__dict__.setdefault("kept_positions", {})

    def get(query_size: int, key_size: int, table: torch.Tensor) -> torch.Tensor:
        if torch.compiler.is_compiling():  # makes a constant of it by itself
            compiled: torch.Tensor = type(attention).get_rel_pos(attention, query_size, key_size, table)
            return compiled
        key = (query_size, key_size, table.data_ptr(), table.dtype)
        if key not in made:
            made[key] = type(attention).get_rel_pos(attention, query_size, key_size, table)
        kept: torch.Tensor = made[key]
        return kept

    return get


_CAUSAL_BY_ITSELF = ("sdpa", "flash_attention_2", "flash_attention_3")
"""Kinds of attention in transformers that need no mask to be causal."""


def _given_mask(config: Any, *more: Any, **given: Any) -> Any:
    if config._attn_implementation in _CAUSAL_BY_ITSELF:
        return given.get("attention_mask")
    from transformers.masking_utils import create_causal_mask

    return create_causal_mask(config, *more, **given)


_PIECE = 256
"""Cells whose values are summed together."""


def _cells_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention of SAM's mask decoder, as in transformers' ``eager_attention_forward``: (B, h, L, d) each.

    A few tokens' sums over thousands of cells are one long row for each head; cut into pieces they occupy the GPU.
    """
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    pieces, rest = divmod(value.shape[2], _PIECE)
    if pieces < 4 or rest or query.shape[2] > 64:
        output = torch.matmul(weights, value)
    else:
        cut = weights.unflatten(-1, (pieces, _PIECE)).transpose(2, 3)
        output = torch.matmul(cut, value.unflatten(2, (pieces, _PIECE))).sum(dim=2)
    return output.transpose(1, 2).contiguous(), weights


_FUNCTIONS: dict[str, dict[str, Callable[..., Any]]] = {
    "transformers.models.llama.modeling_llama": {
        "apply_rotary_pos_emb": rotary,
        "create_causal_mask": _given_mask,
    },
    "transformers.models.sam.modeling_sam": {"eager_attention_forward": _cells_attention},
}
"""{module: {function: what takes its place}}."""


def _replacement(module: Any) -> Callable[..., Any] | None:
    if type(module).__name__ == "QuickGELUActivation":
        return compiled(_quick_gelu)
    return None
