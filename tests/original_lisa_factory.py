"""Small random checkpoints in the original LISA's layout, of any sizes, in any of its file formats."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

WORDS = [
    "A",
    "chat",
    "USER:",
    "ASSISTANT",
    "What",
    "is",
    "the",
    "cup",
    "in",
    "this",
    "image?",
    "mask.",
    "a",
    "red",
]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a checkpoint is like. The defaults run in a fraction of a second."""

    width: int = 48
    layers: int = 2
    heads: int = 4
    kv_heads: int | None = None
    mlp: int = 80
    vocabulary: int = 560
    projector: int = 1
    """1: LLaVA-v1's single linear layer; 2: LLaVA-1.5's two."""
    clip_image: int = 56
    clip_patch: int = 14
    clip_width: int = 32
    clip_layers: int = 3
    clip_heads: int = 2
    tower_inside: bool = False
    sam_patch: int = 16
    sam_grid: int = 8
    sam_width: int = 24
    sam_head: int = 8
    sam_window: int = 3
    sam_layers: int = 3
    sam_global: tuple[int, ...] = (1,)
    channels: int = 32
    decoder_mlp: int = 64
    files: str = "bin"
    """``bin``, ``bin-sharded``, ``safetensors`` or ``safetensors-sharded``."""
    dtype: torch.dtype = torch.float32
    tokenizer: bool = False
    old_buffers: bool = True


def make_checkpoint(folder: Path, sizes: Sizes | None = None, seed: int = 0) -> dict[str, Any]:
    """Write one; returns ``weights``, ``config``, ``clip``, ``clip_config`` for `original_lisa_reference`."""
    sizes = sizes or Sizes()
    generator = torch.Generator().manual_seed(seed)

    def fill(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
        return {name: _values(name, shape, generator).to(sizes.dtype) for name, shape in shapes.items()}

    clip = fill(clip_shapes(sizes))
    weights = fill(shapes_of(sizes))
    if sizes.tower_inside:
        weights |= {f"model.vision_tower.vision_tower.{name}": tensor for name, tensor in clip.items()}
    if sizes.old_buffers:
        head = sizes.width // sizes.heads
        for layer in range(sizes.layers):
            weights[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = 10000.0 ** (
                -torch.arange(0, head, 2).float() / head
            )
    config = {
        "model_type": "llava",
        "vocab_size": sizes.vocabulary,
        "hidden_size": sizes.width,
        "intermediate_size": sizes.mlp,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_scaling": None,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "mm_vision_tower": "clip",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_use_im_start_end": True,
        "out_dim": sizes.channels,
        **({"num_key_value_heads": sizes.kv_heads} if sizes.kv_heads else {}),
    }
    clip_config = {
        "model_type": "clip_vision_model",
        "hidden_act": "quick_gelu",
        "hidden_size": sizes.clip_width,
        "image_size": sizes.clip_image,
        "intermediate_size": 2 * sizes.clip_width,
        "layer_norm_eps": 1e-5,
        "num_attention_heads": sizes.clip_heads,
        "num_hidden_layers": sizes.clip_layers,
        "patch_size": sizes.clip_patch,
    }
    (folder / "clip").mkdir(parents=True)
    _json(folder / "config.json", config)
    _json(folder / "clip" / "config.json", clip_config)
    square = {"height": sizes.clip_image, "width": sizes.clip_image}
    _json(folder / "clip" / "preprocessor_config.json", {"size": sizes.clip_image, "crop_size": square})
    if not sizes.tower_inside:
        torch.save(clip, folder / "clip" / "pytorch_model.bin")
    write_weights(folder, weights, sizes.files)
    if sizes.tokenizer:
        write_tokenizer(folder, sizes.vocabulary)
    full = {name: tensor.float() for name, tensor in weights.items()}
    return {
        "weights": full,
        "config": config,
        "clip": {name: tensor.float() for name, tensor in clip.items()},
        "clip_config": clip_config,
    }


def example(
    sizes: Sizes, *, segs: int = 1, original: tuple[int, int] = (90, 60), seed: int = 0
) -> dict[str, Any]:
    """Inputs of one forward pass: random pixels, a prompt with ``segs`` ``[SEG]``, the last token behind them."""
    generator = torch.Generator().manual_seed(seed)
    side = sizes.sam_grid * sizes.sam_patch
    scale = side / max(original)
    resize = (int(original[0] * scale + 0.5), int(original[1] * scale + 0.5))
    image = torch.randn(1, 3, side, side, generator=generator)
    image[..., resize[0] :, :] = 0
    image[..., resize[1] :] = 0
    seg = sizes.vocabulary - 3

    def words(count: int) -> list[int]:
        return torch.randint(3, seg, (count,), generator=generator).tolist()

    ids = [1, *words(5), seg + 1, -200, seg + 2, *words(7)]
    for _ in range(segs):
        ids += [*words(3), seg]
    pixels = torch.randn(1, 3, sizes.clip_image, sizes.clip_image, generator=generator)
    return {
        "input_ids": torch.tensor([*ids, 13, 2]),
        "images_clip": pixels,
        "image": image,
        "resize": resize,
        "original_size": original,
        "seg_token_id": seg,
    }


def write_weights(folder: Path, weights: dict[str, torch.Tensor], files: str) -> None:
    """In one file or in three, pickled or as safetensors."""
    from safetensors.torch import save_file

    pickled = files.startswith("bin")
    stem, ending = ("pytorch_model", ".bin") if pickled else ("model", ".safetensors")
    names = sorted(weights)
    cuts = [names[start::3] for start in range(3)] if files.endswith("sharded") else [names]
    index = {}
    for number, part in enumerate(cuts, start=1):
        file = f"{stem}-{number:05}-of-{len(cuts):05}{ending}" if len(cuts) > 1 else stem + ending
        content = {name: weights[name].contiguous() for name in part}
        index.update(dict.fromkeys(part, file))
        torch.save(content, folder / file) if pickled else save_file(content, folder / file)
    if len(cuts) > 1:
        _json(folder / f"{stem}{ending}.index.json", {"metadata": {}, "weight_map": index})


def write_tokenizer(folder: Path, vocabulary: int, *, added: bool = True) -> None:
    """A LLaMA-like sentencepiece model with bytes, letters and a few words, and added_tokens.json."""
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

    model = sentencepiece.ModelProto()
    pieces = [("<unk>", 2), ("<s>", 3), ("</s>", 3), *((f"<0x{byte:02X}>", 6) for byte in range(256))]
    grown: dict[str, None] = {}
    for word in WORDS:
        for end in range(2, len(word) + 2):
            grown["▁" + word if end > len(word) else ("▁" + word)[:end]] = None
    letters = sorted({letter for word in WORDS for letter in word} | {"▁", *"abcdefghijklmnopqrstuvwxyz"})
    pieces += [(piece, 1) for piece in [*grown, *letters] if len(piece) > 0]
    pieces = pieces[: vocabulary - 3]
    for number, (piece, kind) in enumerate(pieces):
        model.pieces.add(piece=piece, score=0.0 if kind != 1 else -float(number), type=kind)
    while len(model.pieces) < vocabulary - 3:
        model.pieces.add(piece=f"filler{len(model.pieces)}", score=-1e4 - len(model.pieces), type=1)
    model.trainer_spec.model_type = 2
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    _json(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "legacy": True})
    if added:
        tokens = ("[SEG]", "<im_start>", "<im_end>")
        _json(folder / "added_tokens.json", {t: vocabulary - 3 + n for n, t in enumerate(tokens)})


def clip_shapes(s: Sizes) -> dict[str, tuple[int, ...]]:
    w, tokens = s.clip_width, (s.clip_image // s.clip_patch) ** 2 + 1
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (w,),
        "embeddings.patch_embedding.weight": (w, 3, s.clip_patch, s.clip_patch),
        "embeddings.position_embedding.weight": (tokens, w),
        **_pair("pre_layrnorm", w),
        **_pair("post_layernorm", w),
    }
    for layer in range(s.clip_layers):
        at = f"encoder.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= _pair(f"{at}self_attn.{name}", w, w)
        shapes |= _pair(f"{at}layer_norm1", w) | _pair(f"{at}layer_norm2", w)
        shapes |= _pair(f"{at}mlp.fc1", 2 * w, w) | _pair(f"{at}mlp.fc2", w, 2 * w)
    return {f"vision_model.{name}": shape for name, shape in shapes.items()}


def shapes_of(s: Sizes) -> dict[str, tuple[int, ...]]:
    """Every weight of the checkpoint but the tower's."""
    kv = (s.kv_heads or s.heads) * (s.width // s.heads)
    shapes: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (s.vocabulary, s.width),
        "model.embed_tokens.weight": (s.vocabulary, s.width),
        "model.norm.weight": (s.width,),
    }
    for layer in range(s.layers):
        at = f"model.layers.{layer}."
        shapes |= {f"{at}self_attn.{n}_proj.weight": (s.width, s.width) for n in "qo"}
        shapes |= {f"{at}self_attn.{n}_proj.weight": (kv, s.width) for n in "kv"}
        shapes |= {f"{at}mlp.{n}_proj.weight": (s.mlp, s.width) for n in ("gate", "up")}
        shapes |= {f"{at}mlp.down_proj.weight": (s.width, s.mlp)}
        shapes |= {f"{at}{n}_layernorm.weight": (s.width,) for n in ("input", "post_attention")}
    if s.projector == 1:
        shapes |= _pair("model.mm_projector", s.width, s.clip_width)
    else:
        shapes |= _pair("model.mm_projector.0", s.width, s.clip_width) | _pair(
            "model.mm_projector.2", s.width, s.width
        )
    shapes |= _pair("model.text_hidden_fcs.0.0", s.width, s.width) | _pair(
        "model.text_hidden_fcs.0.2", s.channels, s.width
    )
    return shapes | {f"model.visual_model.{name}": shape for name, shape in _sam_shapes(s).items()}


def _sam_shapes(s: Sizes) -> dict[str, tuple[int, ...]]:
    w, c = s.sam_width, s.channels
    enc, dec, pro = "image_encoder.", "mask_decoder.", "prompt_encoder."
    shapes: dict[str, tuple[int, ...]] = {
        f"{enc}pos_embed": (1, s.sam_grid, s.sam_grid, w),
        **_pair(f"{enc}patch_embed.proj", w, 3, s.sam_patch, s.sam_patch),
        f"{enc}neck.0.weight": (c, w, 1, 1),
        f"{enc}neck.2.weight": (c, c, 3, 3),
        **_pair(f"{enc}neck.1", c),
        **_pair(f"{enc}neck.3", c),
    }
    for layer in range(s.sam_layers):
        at = f"{enc}blocks.{layer}."
        reach = s.sam_grid if layer in s.sam_global else s.sam_window
        shapes |= {f"{at}attn.rel_pos_{n}": (2 * reach - 1, s.sam_head) for n in "hw"}
        shapes |= _pair(f"{at}attn.qkv", 3 * w, w) | _pair(f"{at}attn.proj", w, w)
        shapes |= _pair(f"{at}norm1", w) | _pair(f"{at}norm2", w)
        shapes |= _pair(f"{at}mlp.lin1", 2 * w, w) | _pair(f"{at}mlp.lin2", w, 2 * w)
    shapes |= {
        f"{pro}pe_layer.positional_encoding_gaussian_matrix": (2, c // 2),
        f"{pro}no_mask_embed.weight": (1, c),
        f"{pro}not_a_point_embed.weight": (1, c),
        **{f"{pro}point_embeddings.{n}.weight": (1, c) for n in range(4)},
        **_pair(f"{pro}mask_downscaling.0", 4, 1, 2, 2),
        **_pair(f"{pro}mask_downscaling.1", 4),
        **_pair(f"{pro}mask_downscaling.3", 16, 4, 2, 2),
        **_pair(f"{pro}mask_downscaling.4", 16),
        **_pair(f"{pro}mask_downscaling.6", c, 16, 1, 1),
        f"{dec}iou_token.weight": (1, c),
        f"{dec}mask_tokens.weight": (4, c),
        f"{dec}output_upscaling.0.weight": (c, c // 4, 2, 2),
        f"{dec}output_upscaling.0.bias": (c // 4,),
        **_pair(f"{dec}output_upscaling.1", c // 4),
        f"{dec}output_upscaling.3.weight": (c // 4, c // 8, 2, 2),
        f"{dec}output_upscaling.3.bias": (c // 8,),
    }
    heads = [
        (f"{dec}iou_prediction_head", 4),
        *((f"{dec}output_hypernetworks_mlps.{n}", c // 8) for n in range(4)),
    ]
    for head, last in heads:
        shapes |= (
            _pair(f"{head}.layers.0", c, c)
            | _pair(f"{head}.layers.1", c, c)
            | _pair(f"{head}.layers.2", last, c)
        )
    shapes |= _pair(f"{dec}transformer.norm_final_attn", c)
    attentions = [(f"{dec}transformer.final_attn_token_to_image", c // 2)]
    for layer in range(2):
        at = f"{dec}transformer.layers.{layer}."
        attentions += [
            (f"{at}self_attn", c),
            *((f"{at}cross_attn_{n}", c // 2) for n in ("token_to_image", "image_to_token")),
        ]
        shapes |= _pair(f"{at}mlp.lin1", s.decoder_mlp, c) | _pair(f"{at}mlp.lin2", c, s.decoder_mlp)
        for number in range(1, 5):
            shapes |= _pair(f"{at}norm{number}", c)
    for name, inner in attentions:
        for part in "qkv":
            shapes |= _pair(f"{name}.{part}_proj", inner, c)
        shapes |= _pair(f"{name}.out_proj", c, inner)
    return shapes


def _pair(name: str, out: int, *rest: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (out, *rest), f"{name}.bias": (out,)}


def _values(name: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    noise = torch.randn(shape, generator=generator)
    if len(shape) == 1:  # norms around 1, biases around 0
        return noise * 0.1 + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
    if "embed" in name or "token" in name or "gaussian" in name or "rel_pos" in name:
        return noise * 0.5
    return noise * (1.2 / torch.Size(shape[1:]).numel() ** 0.5)


def _json(path: Path, values: object) -> None:
    path.write_text(json.dumps(values), encoding="utf-8")
