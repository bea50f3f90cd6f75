"""The original LISA's forward pass, written plainly over its own key names; no transformers, none of our modules.

`tests/parity/test_original_lisa.py` holds it against what the original's code computed (one recorded model),
and our imported models against it (models of other sizes). Batch 1, float32.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F

Weights = dict[str, torch.Tensor]


def original_forward(
    weights: Weights,
    config: dict[str, Any],
    clip: Weights,
    clip_config: dict[str, Any],
    *,
    input_ids: torch.Tensor,
    images_clip: torch.Tensor,
    image: torch.Tensor,
    resize: tuple[int, int],
    original_size: tuple[int, int],
    seg_token_id: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """SAM's image embedding (1, C, h, w) and mask logits (N, H, W) at ``original_size``. ``input_ids``: (T,)."""
    with torch.no_grad():
        sam = _below(weights, "model.visual_model.")
        embedding = image_encoder(_below(sam, "image_encoder."), image)
        features = _projector(
            _below(weights, "model.mm_projector."), clip_features(clip, clip_config, config, images_clip)
        )
        place = input_ids.tolist().index(-200)
        rows = weights["model.embed_tokens.weight"]
        embeds = torch.cat((rows[input_ids[:place]], features[0], rows[input_ids[place + 1 :]]))[None]
        states = llama(weights, config, embeds)[0]
        # One image token stands for all patches: every [SEG] behind it moves by their number, less one.
        shift = features.shape[1] - 1
        wanted = [
            i - 1 + (shift if i > place else 0) for i, t in enumerate(input_ids.tolist()) if t == seg_token_id
        ]
        fc = _below(weights, "model.text_hidden_fcs.0.")
        prompts = _linear(fc, "2", F.relu(_linear(fc, "0", states[wanted])))
        masks = [mask_decoder(sam, embedding, prompt[None]) for prompt in prompts]
        side = image.shape[-1]
        low = torch.cat(masks)[:, None]
        fine = F.interpolate(low, (side, side), mode="bilinear", align_corners=False)[
            ..., : resize[0], : resize[1]
        ]
        return embedding, F.interpolate(fine, original_size, mode="bilinear", align_corners=False)[:, 0]


def _below(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): tensor for name, tensor in weights.items() if name.startswith(prefix)}


def _linear(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, w[f"{name}.weight"], w.get(f"{name}.bias"))


def _norm(w: Weights, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
    weight = w[f"{name}.weight"]
    return F.layer_norm(x, weight.shape, weight, w[f"{name}.bias"], eps)


def _norm2d(w: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    mean = x.mean(1, keepdim=True)
    x = (x - mean) / ((x - mean).pow(2).mean(1, keepdim=True) + 1e-6).sqrt()
    return w[f"{name}.weight"][:, None, None] * x + w[f"{name}.bias"][:, None, None]


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, bias: Any = 0.0) -> torch.Tensor:
    """(B, T, D) each -> (B, T, D)."""
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def clip_features(
    w: Weights, clip_config: dict[str, Any], config: dict[str, Any], pixels: torch.Tensor
) -> torch.Tensor:
    """(1, P, Dv): the patch tokens of the hidden state that the configuration selects."""
    w = _below(w, "vision_model.")
    eps, heads, act = (
        clip_config["layer_norm_eps"],
        clip_config["num_attention_heads"],
        clip_config["hidden_act"],
    )
    patch = w["embeddings.patch_embedding.weight"]
    x = F.conv2d(pixels, patch, stride=patch.shape[-1]).flatten(2).transpose(1, 2)
    x = (
        torch.cat((w["embeddings.class_embedding"].expand(1, 1, -1), x), 1)
        + w["embeddings.position_embedding.weight"]
    )
    x = _norm(w, "pre_layrnorm", x, eps)
    hidden = [x]
    for layer in range(clip_config["num_hidden_layers"]):
        part = _below(w, f"encoder.layers.{layer}.")
        y = _norm(part, "layer_norm1", x, eps)
        qkv = [_linear(part, f"self_attn.{n}_proj", y) for n in "qkv"]
        x = x + _linear(part, "self_attn.out_proj", _attend(*qkv, heads))
        y = _linear(part, "mlp.fc1", _norm(part, "layer_norm2", x, eps))
        y = y * torch.sigmoid(1.702 * y) if act == "quick_gelu" else F.gelu(y)
        x = x + _linear(part, "mlp.fc2", y)
        hidden.append(x)
    return hidden[config["mm_vision_select_layer"]][:, 1:]


def _projector(w: Weights, x: torch.Tensor) -> torch.Tensor:
    if "weight" in w:
        return F.linear(x, w["weight"], w["bias"])
    return _linear(w, "2", F.gelu(_linear(w, "0", x)))


def llama(w: Weights, config: dict[str, Any], x: torch.Tensor) -> torch.Tensor:
    """(1, T, Dl) -> the normalised last hidden states."""
    heads, eps = config["num_attention_heads"], config["rms_norm_eps"]
    shared = heads // (config.get("num_key_value_heads") or heads)
    head, length = config["hidden_size"] // heads, x.shape[1]
    frequencies = config.get("rope_theta", 10000.0) ** (-torch.arange(0, head, 2).float() / head)
    angles = torch.outer(torch.arange(length).float(), frequencies).repeat(1, 2)
    causal = torch.full((length, length), -torch.inf).triu(1)

    def rms(name: str, y: torch.Tensor) -> torch.Tensor:
        return w[name] * y / (y.pow(2).mean(-1, keepdim=True) + eps).sqrt()

    def rotate(y: torch.Tensor) -> torch.Tensor:
        y = y.unflatten(-1, (-1, head))
        turned = torch.cat((-y[..., head // 2 :], y[..., : head // 2]), -1)
        return y * angles.cos()[:, None] + turned * angles.sin()[:, None]

    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        y = rms(f"{name}input_layernorm.weight", x)
        q, k, v = (F.linear(y, w[f"{name}self_attn.{n}_proj.weight"]) for n in "qkv")
        q, k = rotate(q).flatten(2), rotate(k).repeat_interleave(shared, 2).flatten(2)
        v = v.unflatten(-1, (-1, head)).repeat_interleave(shared, 2).flatten(2)
        x = x + F.linear(_attend(q, k, v, heads, causal), w[f"{name}self_attn.o_proj.weight"])
        y = rms(f"{name}post_attention_layernorm.weight", x)
        gate, up = (F.linear(y, w[f"{name}mlp.{n}_proj.weight"]) for n in ("gate", "up"))
        x = x + F.linear(F.silu(gate) * up, w[f"{name}mlp.down_proj.weight"])
    return rms("model.norm.weight", x)


def image_encoder(w: Weights, pixels: torch.Tensor) -> torch.Tensor:
    """SAM's ViT (Kirillov et al. 2023), with windows and relative positions: (1, 3, S, S) -> (1, C, h, w)."""
    patch = w["patch_embed.proj.weight"]
    x = F.conv2d(pixels, patch, w["patch_embed.proj.bias"], stride=patch.shape[-1]).permute(0, 2, 3, 1)
    x = x + w["pos_embed"]
    side = x.shape[1]
    layer = 0
    while part := _below(w, f"blocks.{layer}."):
        reach = (len(part["attn.rel_pos_h"]) + 1) // 2
        y = _norm(part, "norm1", x, 1e-6)
        if reach == side:
            y = _windowed(part, y)
        else:
            spare = -side % reach
            y = F.pad(y, (0, 0, 0, spare, 0, spare))
            n = y.shape[1] // reach
            y = y.view(1, n, reach, n, reach, -1).transpose(2, 3).reshape(n * n, reach, reach, -1)
            y = torch.cat([_windowed(part, window[None]) for window in y])
            y = y.view(1, n, n, reach, reach, -1).transpose(2, 3).reshape(1, n * reach, n * reach, -1)
            y = y[:, :side, :side]
        x = x + y
        y = F.gelu(_linear(part, "mlp.lin1", _norm(part, "norm2", x, 1e-6)))
        x = x + _linear(part, "mlp.lin2", y)
        layer += 1
    x = _norm2d(w, "neck.1", F.conv2d(x.permute(0, 3, 1, 2), w["neck.0.weight"]))
    return _norm2d(w, "neck.3", F.conv2d(x, w["neck.2.weight"], padding=1))


def _windowed(w: Weights, x: torch.Tensor) -> torch.Tensor:
    """Attention within one square (1, s, s, D), with the decomposed relative positions."""
    side, head = x.shape[1], w["attn.rel_pos_h"].shape[1]
    heads = x.shape[-1] // head
    q, k, v = _linear(w, "attn.qkv", x.flatten(1, 2)).chunk(3, -1)
    away = torch.arange(side)[:, None] - torch.arange(side)[None] + side - 1
    of_q = q.view(side, side, heads, head)
    rows = torch.einsum("yxnc,ykc->nyxk", of_q, w["attn.rel_pos_h"][away])
    columns = torch.einsum("yxnc,xkc->nyxk", of_q, w["attn.rel_pos_w"][away])
    bias = (rows[..., :, None] + columns[..., None, :]).reshape(heads, side * side, side * side)
    return _linear(w, "attn.proj", _attend(q, k, v, heads, bias)).view_as(x)


def mask_decoder(sam: Weights, embedding: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
    """SAM's two-way decoder: prompt (1, C) -> mask 0, logits (1, 4h, 4w)."""
    w = _below(sam, "mask_decoder.")
    side = embedding.shape[-1]
    where = (torch.arange(side) + 0.5) / side * 2 - 1
    places = torch.stack((where.expand(side, side), where[:, None].expand(side, side)), -1)
    turns = 2 * math.pi * places @ sam["prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    key_pe = torch.cat((turns.sin(), turns.cos()), -1).flatten(0, 1)[None]
    tokens = torch.cat((w["iou_token.weight"], w["mask_tokens.weight"], prompt))[None]
    image = embedding + sam["prompt_encoder.no_mask_embed.weight"].view(1, -1, 1, 1)
    keys = image.flatten(2).transpose(1, 2)

    def attention(
        part: Weights, name: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        projected = [_linear(part, f"{name}.{n}_proj", y) for n, y in zip("qkv", (q, k, v), strict=True)]
        return _linear(part, f"{name}.out_proj", _attend(*projected, 8))

    queries, layer = tokens, 0
    while part := _below(w, f"transformer.layers.{layer}."):
        if layer == 0:
            queries = attention(part, "self_attn", queries, queries, queries)
        else:
            q = queries + tokens
            queries = queries + attention(part, "self_attn", q, q, queries)
        queries = _norm(part, "norm1", queries, 1e-5)
        queries = queries + attention(
            part, "cross_attn_token_to_image", queries + tokens, keys + key_pe, keys
        )
        queries = _norm(part, "norm2", queries, 1e-5)
        queries = queries + _linear(part, "mlp.lin2", F.relu(_linear(part, "mlp.lin1", queries)))
        queries = _norm(part, "norm3", queries, 1e-5)
        keys = keys + attention(part, "cross_attn_image_to_token", keys + key_pe, queries + tokens, queries)
        keys = _norm(part, "norm4", keys, 1e-5)
        layer += 1
    part = _below(w, "transformer.")
    final = attention(part, "final_attn_token_to_image", queries + tokens, keys + key_pe, keys)
    queries = _norm(part, "norm_final_attn", queries + final, 1e-5)

    up = keys.transpose(1, 2).view_as(embedding)
    up = F.conv_transpose2d(up, w["output_upscaling.0.weight"], w["output_upscaling.0.bias"], stride=2)
    up = F.gelu(_norm2d(w, "output_upscaling.1", up))
    up = F.gelu(
        F.conv_transpose2d(up, w["output_upscaling.3.weight"], w["output_upscaling.3.bias"], stride=2)
    )
    head = _below(w, "output_hypernetworks_mlps.0.layers.")
    code = queries[:, 1]  # the token of mask 0
    for number in range(3):
        code = _linear(head, str(number), code)
        code = F.relu(code) if number < 2 else code
    return torch.einsum("bc,bchw->bhw", code, up)
