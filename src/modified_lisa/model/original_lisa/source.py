"""One checkpoint in the original's layout, opened: its configurations, and where each weight comes from.

Opening reads no weights. Every key is accounted for: what is unknown, missing or of another shape is listed in
one `ModelLoadError`, before anything is built or written.
"""

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ModelLoadError
from modified_lisa.model.original_lisa.keys import (
    CLIP,
    DERIVED,
    IDENTITY,
    ZEROS,
    clip_key,
    sam_key,
    seg_projection_key,
    vlm_file_key,
    vlm_key,
)
from modified_lisa.model.original_lisa.layout import (
    is_original_config,
    llava_config,
    projector_layers,
    sam_config,
    vision_tower_name,
)
from modified_lisa.model.original_lisa.shards import Shards, read_json
from modified_lisa.model.shards import FileTensor
from modified_lisa.model.sources import first_line

__all__ = [
    "Origin",
    "OriginalLisa",
    "find_original",
    "is_hub_name",
    "lazy_weights",
    "open_original",
]

_DTYPES = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}
_SEG_PROJECTION = [f"seg_projection.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]

_TOWER = ("vision_model.", "embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.")
"""Beginnings of the names of a CLIP's vision half, in its own files."""


@dataclass(frozen=True)
class Origin:
    """Where a weight comes from: ``name`` in ``shards``, or, where that is None, one that is made up."""

    shards: Shards | None
    name: str
    shape: tuple[int, ...]

    def read(self) -> torch.Tensor:
        if self.shards is not None:
            return self.shards.read(self.name)
        return torch.eye(self.shape[0]) if self.name == IDENTITY else torch.zeros(self.shape)

    @property
    def dtype(self) -> torch.dtype:
        """Of what `read` gives."""
        return torch.float32 if self.shards is None else self.shards.dtypes[self.name]

    @property
    def file(self) -> str:
        """Where it is read from; empty: it is made up."""
        return "" if self.shards is None else self.shards.file_of(self.name)

    @property
    def nbytes(self) -> int:
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize


class _OriginTensor(FileTensor):
    """A weight that transformers' loader reads when its turn comes."""

    def __init__(self, name: str, origin: Origin) -> None:
        dtype = {torch.bfloat16: "BF16", torch.float16: "F16"}.get(origin.dtype, "F32")
        super().__init__(Path(origin.file), name, origin.shape, dtype, origin.nbytes)
        self.origin = origin

    def __getitem__(self, index: Any) -> torch.Tensor:
        # A copy: a view would keep the whole file mapped as long as the model lives.
        tensor = self.origin.read()[index].clone()
        self.tell()
        return tensor


class OriginalLisa:
    """A checked checkpoint.

    Args:
        source: a folder or a hub name.
        vision_tower: folder or hub name of the CLIP; None: the one that the configuration names, beside the
            checkpoint's files if it is a folder there.

    Raises:
        ModelLoadError: files that cannot be found or read; keys that do not fit, all of them together.
    """

    def __init__(self, source: str | os.PathLike[str], vision_tower: str | None = None) -> None:
        self.source = os.fspath(source)
        self.values = read_json(self.source, "config.json")
        if not is_original_config(self.values):
            raise ModelLoadError(
                f"{self.source} is not a checkpoint in the original LISA's layout: its config.json must have hidden_size "
                "and mm_vision_tower (or vision_tower) and no text_config"
            )
        self.shards = Shards.find(self.source)
        self.tower_source = vision_tower or self._tower_beside()
        self._has_tower = any(name.startswith("model.vision_tower.") for name in self.shards.shapes)
        tower = self._tower_config()
        try:
            self.vlm_config = llava_config(self.values, self.shards.shapes, tower)
        except ModelLoadError:
            raise
        except Exception as error:  # transformers' checks of a configuration raise bare Exceptions
            raise ModelLoadError(
                f"{self.source}: its config.json fits no LLaVA: {first_line(error)}"
            ) from error
        self.tower_shards = self.shards if self._has_tower else Shards.find(self.tower_source)
        self.sam_config = sam_config(self.shards.shapes)
        self._check()

    def _tower_beside(self) -> str:
        """The tower's folder, or its hub name."""
        name = str(vision_tower_name(self.values))
        here = Path(self.source)
        # A checkpoint that has been moved names its tower by a path that is no more.
        for folder in (here / name, Path(name), here / Path(name).name, here / "clip"):
            if (folder / "config.json").is_file():
                return str(folder)
        return name

    def _tower_config(self) -> Any:
        from transformers import CLIPVisionConfig

        try:
            return CLIPVisionConfig.from_pretrained(self.tower_source)
        except Exception as error:  # the file may be missing, or hold anything
            raise ModelLoadError(
                f"{self.source}: its vision tower is {self.tower_source!r}, whose config.json is neither in a folder of "
                f"that name nor in the Hugging Face cache. With a network, run: hf download {self.tower_source}; without "
                f"one, name the CLIP's folder (--vision_tower). ({first_line(error)})"
            ) from error

    # ------------------------------------------------------------------------------- what comes from where

    @functools.cached_property
    def vlm_origins(self) -> dict[str, Origin]:
        """Name in the files of a published LLaVA -> where it comes from. The head of the text is among them."""
        from transformers import LlavaForConditionalGeneration

        layers = projector_layers(self.shards.shapes)
        tied = self.values.get("tie_word_embeddings") and "lm_head.weight" not in self.shards.shapes
        origins = {}
        for name, shape in _shapes(LlavaForConditionalGeneration, self.vlm_config).items():
            if (tower := clip_key(name)) is not None:
                origins[vlm_file_key(name)] = Origin(self.tower_shards, self._tower_key(tower), shape)
                continue
            key = vlm_key(name, layers)
            if tied and key == "lm_head.weight":
                key = "model.embed_tokens.weight"
            origins[vlm_file_key(name)] = Origin(
                None if key in (IDENTITY, ZEROS) else self.shards, key, shape
            )
        return origins

    def _tower_key(self, name: str) -> str:
        """``vision_model.*`` as the tower's file has it; a CLIPVisionModel saved by transformers 5 has no such prefix."""
        if self._has_tower:
            return CLIP + name
        bare = name.removeprefix("vision_model.")
        return bare if bare in self.tower_shards.shapes and name not in self.tower_shards.shapes else name

    @functools.cached_property
    def sam_origins(self) -> dict[str, Origin]:
        """``SamModel``'s name of a weight -> where it comes from."""
        from transformers import SamModel

        depth = self.sam_config.mask_decoder_config.iou_head_depth
        shapes = _shapes(SamModel, self.sam_config)
        return {name: Origin(self.shards, sam_key(name, depth), shape) for name, shape in shapes.items()}

    @functools.cached_property
    def seg_origins(self) -> dict[str, Origin]:
        """``ModifiedLISA``'s name of a weight of the seg projection -> where it comes from."""
        width = self.vlm_config.text_config.hidden_size
        channels = self.sam_config.prompt_encoder_config.hidden_size
        shapes = [(width, width), (width,), (channels, width), (channels,)]
        return {
            name: Origin(self.shards, seg_projection_key(name), shape)
            for name, shape in zip(_SEG_PROJECTION, shapes, strict=True)
        }

    def _check(self) -> None:
        origins = [*self.vlm_origins.values(), *self.sam_origins.values(), *self.seg_origins.values()]
        wanted = {(id(o.shards), o.name): o for o in origins if o.shards is not None}
        missing, misshaped, mistyped = [], [], []
        for origin in wanted.values():
            assert origin.shards is not None
            beside = origin.shards is not self.shards
            label = f"{origin.name} (of {self.tower_source})" if beside else origin.name
            found = origin.shards.shapes.get(origin.name)
            if found is None:
                missing.append(label)
            elif found != origin.shape:
                misshaped.append(f"{label} is {found} and should be {origin.shape}")
            elif origin.dtype not in (*_DTYPES, torch.float64):
                mistyped.append(f"{label} is {origin.dtype}")
        # The tower's own files may hold the rest of a CLIP; only its vision half is used.
        given = [(self.shards, name) for name in self.shards.shapes]
        if not self._has_tower:
            given += [(self.tower_shards, n) for n in self.tower_shards.shapes if n.startswith(_TOWER)]
        unknown = [
            name for shards, name in given if (id(shards), name) not in wanted and not DERIVED.search(name)
        ]
        if not (missing or misshaped or mistyped or unknown):
            return
        parts = [
            f"{len(names)} {what}: {_listed(names)}"
            for what, names in (
                ("missing", missing),
                ("unknown", unknown),
                ("of another shape", misshaped),
                ("not in 16, 32 or 64 bit floating point", mistyped),
            )
            if names
        ]
        raise ModelLoadError(
            f"{self.source} does not fit the original LISA's layout. "
            + "; ".join(parts)
            + ". Download it again, or, if "
            "it is of another model or half merged (lora_ keys), convert it with the code that made it."
        )

    # ----------------------------------------------------------------------------------------- for building

    @property
    def dtype(self) -> str:
        """Name of the precision of the language model's weights in the files."""
        return _DTYPES.get(self.shards.dtypes["model.norm.weight"], "fp32")

    def model_config(self, **changes: Any) -> ModelConfig:
        """``dual``, under LISA's protocol, in the files' own precision, not quantised, unless told otherwise."""
        return ModelConfig.from_dict(
            {
                "vlm_name": self.source,
                "sam_name": self.source,
                "vision_source": "dual",
                "dtype": self.dtype,
                "quantize": False,
                "seg_state": "before",
                "seg_projection": "plain",
                "protocol": "lisa",
                **changes,
            }
        )

    def trained_weights(self, seg_token_id: int) -> dict[str, torch.Tensor]:
        """What a ``ModifiedLISA`` saves: the row of ``[SEG]``, the seg projection, the mask decoder; float32."""
        weights = {name: origin.read() for name, origin in self.seg_origins.items()}
        rows = self.vlm_origins["language_model.model.embed_tokens.weight"].read()
        weights["seg_embedding.row"] = rows[seg_token_id : seg_token_id + 1]
        for name, origin in self.sam_origins.items():
            if name.startswith("mask_decoder."):
                weights[f"mask_head.{name}"] = origin.read()
        return {name: tensor.float().clone() for name, tensor in weights.items()}

    def close(self) -> None:
        """Let go of the files."""
        self.shards.close()
        self.tower_shards.close()


def find_original(name: str | os.PathLike[str]) -> str | None:
    """The folder or hub name, if what it holds is in the original LISA's layout; None: it is not."""
    source = os.fspath(name)
    if not Path(source).is_dir() and (not is_hub_name(source) or Path(source).exists()):
        return None
    try:
        values = read_json(source, "config.json")
    except ModelLoadError:
        return None  # whoever asked goes on to read it as something else, and says what is wrong
    return source if is_original_config(values) else None


def is_hub_name(name: str | os.PathLike[str]) -> bool:
    """Whether it looks like ``owner/name``, and not like the path of a ``.pt``."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(?<!\.pt)", os.fspath(name)) is not None


def open_original(name: str | os.PathLike[str]) -> OriginalLisa | None:
    """The checkpoint of this folder or hub name; None: it is not in the original LISA's layout."""
    source = find_original(name)
    return None if source is None else OriginalLisa(source)


def lazy_weights(origins: Mapping[str, Origin]) -> dict[str, FileTensor]:
    """For transformers' loader: each tensor is read when its turn comes."""
    return {name: _OriginTensor(name, origin) for name, origin in origins.items()}


def _shapes(kind: Any, config: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's weights, without making them."""
    try:
        with torch.device("meta"):
            model = kind(config)
    except (ValueError, KeyError, RuntimeError, AssertionError, ZeroDivisionError) as error:
        raise ModelLoadError(f"no {kind.__name__} has these sizes: {first_line(error)}") from error
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _listed(names: list[str], most: int = 200) -> str:
    rest = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
