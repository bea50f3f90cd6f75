"""What a LLaMA layer does between its products, as few kernels: same values up to rounding.

Where the GPU runs this package's kernels and no gradient is asked for, a layer is four products and four kernels: attention,
a sum with its norm twice, the gated activation (and one more for the rotation, unless the keys of a prefix are at hand). Elsewhere
each function is compiled by torch.compile.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from modified_lisa.model.cache_names import cache_name

__all__ = ["compiled", "llama_forwards", "rotary"]

_SUM = "sum_and_its_norm"
"""Under this name a norm finds what was computed for it together with the sum that it is the norm of."""


@functools.cache
def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True, fullgraph=True)


def llama_forwards(module: Any) -> dict[nn.Module, Callable[..., Any]]:
    """What takes the place of ``forward``, for ``module`` or its layers; empty for a module that is not known."""
    kind = type(module).__name__
    if kind == "LlamaRMSNorm":
        return {module: functools.partial(_norm, module)}
    if kind == "LlamaMLP" and type(module.act_fn).__name__ in ("SiLU", "SiLUActivation"):
        return {module: lambda x: module.down_proj(_gated(module.gate_proj(x), module.up_proj(x)))}
    if kind == "LlamaAttention":
        return {module: functools.partial(_attention, module, module.forward)}
    if kind == "LlamaModel" and all(type(layer).__name__ == "LlamaDecoderLayer" for layer in module.layers):
        following = [*(layer.input_layernorm for layer in module.layers), module.norm][1:]
        pairs = zip(module.layers, following, strict=True)
        return {layer: functools.partial(_layer, layer, norm) for layer, norm in pairs}
    return {}


def rotary(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, unsqueeze_dim: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes the place of transformers' ``apply_rotary_pos_emb``."""
    if unsqueeze_dim != 1:
        raise NotImplementedError(
            f"positions are rotated for (B, H, T, D) alone, not with unsqueeze_dim={unsqueeze_dim}"
        )
    if _whole_angles(cos, sin, query.shape[-1]) and _kernels_serve(query, key, cos, sin):
        from modified_lisa.model.fused_kernels import rotate

        return rotate(query, key, cos, sin)
    return compiled(_rotate)(query, key, cos, sin)


def _layer(layer: Any, following: Any, hidden_states: torch.Tensor, **given: Any) -> torch.Tensor:
    """As LlamaDecoderLayer, but that a sum and the norm of it are one kernel: ``following`` is the norm behind this layer."""
    attended, _ = layer.self_attn(hidden_states=layer.input_layernorm(hidden_states), **given)
    middle = _add(hidden_states, attended, layer.post_attention_layernorm)
    return _add(middle, layer.mlp(layer.post_attention_layernorm(middle)), following)


def _add(x: torch.Tensor, more: torch.Tensor, norm: Any) -> torch.Tensor:
    """The sum; its ``norm`` is computed by the way and waits with that module."""
    if not (x.is_contiguous() and more.is_contiguous() and _kernels_serve(x, more, norm.weight)):
        return x + more
    from modified_lisa.model.fused_kernels import add_and_norm

    total, normed = add_and_norm(x, more, norm.weight, norm.variance_epsilon)
    norm.__dict__[_SUM] = total, normed
    return total


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    total, normed = module.__dict__.pop(_SUM, (None, None))
    if total is x and normed is not None:
        computed: torch.Tensor = normed
        return computed
    if x.is_contiguous() and _kernels_serve(x, module.weight):
        from modified_lisa.model.fused_kernels import add_and_norm

        return add_and_norm(x, None, module.weight, module.variance_epsilon)[1]
    result: torch.Tensor = compiled(_rms_norm)(x, module.weight, module.variance_epsilon)
    return result


def _attention(
    module: Any,
    otherwise: Callable[..., Any],
    hidden_states: torch.Tensor,
    position_embeddings: tuple[torch.Tensor, torch.Tensor],
    attention_mask: torch.Tensor | None = None,
    **given: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As LlamaAttention; behind a prefix whose keys and values are kept, all between the products is one kernel."""
    kept = getattr(given.get(cache_name()), "kept", None)
    if kept is not None and attention_mask is not None and not torch.is_grad_enabled():
        cos, sin = position_embeddings
        if _whole_angles(cos, sin, module.head_dim) and _kernels_serve(
            hidden_states, cos, sin, attention_mask
        ):
            from modified_lisa.model.kept_attention import attend, serves

            keys, values = kept.part(module.layer_idx)
            if serves(hidden_states, keys):
                query, key, value = (
                    product(hidden_states).unflatten(-1, (-1, module.head_dim))
                    for product in (module.q_proj, module.k_proj, module.v_proj)
                )
                bias = attention_mask[..., -hidden_states.shape[1] :]
                out = attend(query, key, value, keys, values, cos, sin, bias, module.scaling)
                return module.o_proj(out.flatten(2)), None
    result: tuple[torch.Tensor, torch.Tensor | None] = otherwise(
        hidden_states, position_embeddings=position_embeddings, attention_mask=attention_mask, **given
    )
    return result


def _rms_norm(x: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * wide.to(x.dtype)


def _silu_times(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    return nn.functional.silu(gate) * up


def _rotate(
    query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    cos, sin = cos[:, None], sin[:, None]

    def turn(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    return turn(query), turn(key)


def _gated(gate: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    if gate.ndim > 1 and _kernels_serve(gate, up):
        from modified_lisa.model.fused_kernels import silu_times

        return silu_times(gate, up)
    result: torch.Tensor = compiled(_silu_times)(gate, up)
    return result


def _whole_angles(cos: torch.Tensor, sin: torch.Tensor, width: int) -> bool:
    """Whether cos and sin are (B or 1, T, D) for heads of width D, a power of two."""
    same = cos.ndim == 3 and cos.stride() == sin.stride()
    return same and cos.shape[-1] == width and width & (width - 1) == 0


def _kernels_serve(*tensors: torch.Tensor) -> bool:
    """Whether this package's kernels can be used: on a GPU, without a gradient, of one dtype, each row in one piece."""
    return (
        tensors[0].is_cuda
        and not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors))
        and all(tensor.stride(-1) == 1 for tensor in tensors)
        and len({tensor.dtype for tensor in tensors}) == 1
    )
