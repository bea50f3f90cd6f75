"""Checkpoints: the trained weights and the configuration they belong to, nothing else.

Two forms with the same content:
- a ``.pt`` file of plain tensors and plain values, which ``torch.load`` opens with its safe default;
- a folder with ``config.json`` and ``model.safetensors``.
"""

import json
import os
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from modified_lisa.config import ModelConfig
from modified_lisa.errors import CheckpointError, ConfigError
from modified_lisa.files import write_atomically, write_json
from modified_lisa.model.sources import unsafe_or_torn

__all__ = [
    "FORMAT",
    "check_keys",
    "load_checkpoint",
    "needed_weights",
    "read_pretrained",
    "save_checkpoint",
    "save_folder",
    "write_folder",
]

FORMAT = "modified-lisa-1"
_WEIGHTS = "model.safetensors"
_CONFIG = "config.json"


def save_checkpoint(
    path: str | os.PathLike[str],
    model: Any,
    *,
    epoch: int | None = None,
    metrics: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write a ``.pt`` checkpoint of ``model`` (a ModifiedLISA), atomically.

    Keys: ``format``, ``model_state_dict`` (trained weights), ``config``, ``epoch``, ``metrics``, and those
    of ``extra`` (tensors and plain values only).
    """
    content = {
        "format": FORMAT,
        "model_state_dict": model.trainable_state_dict(),
        "config": model.config.to_dict(),
        "epoch": epoch,
        "metrics": metrics or {},
        **(extra or {}),
    }
    return write_atomically(path, lambda file: torch.save(content, file))


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a ``.pt`` checkpoint onto the CPU. CheckpointError: missing, torn, foreign, or unsafe to read."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path}{_others(path)}")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(
            f"{path} ({path.stat().st_size:,} bytes) cannot be read as a checkpoint: it is cut short, or not what torch.save writes; "
            "copy it again, or use an earlier one"
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a file that is torn or no checkpoint makes the reader raise anything
        raise CheckpointError(
            f"{path} cannot be read as a checkpoint of plain tensors: {unsafe_or_torn(error)}"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a Modified LISA checkpoint (no format {FORMAT!r} in it)")
    lacking = [key for key in ("config", "model_state_dict") if not isinstance(content.get(key), dict)]
    if lacking:
        raise CheckpointError(f"{path} has no {' and no '.join(lacking)} in it")
    return content


def _others(path: Path) -> str:
    if not path.parent.is_dir():
        return f": the folder {path.parent} does not exist"
    found = sorted(entry.name for entry in path.parent.glob("*.pt"))
    return f"; {path.parent} holds {', '.join(found[:6])}" if found else f"; {path.parent} holds no .pt file"


def save_folder(folder: str | os.PathLike[str], model: Any, dtype: torch.dtype = torch.float32) -> Path:
    """Write ``config.json`` and ``model.safetensors``, each atomically, the configuration last.

    ``dtype`` is that of the stored weights; they are fp32 again when they are loaded.
    """
    weights = {name: tensor.to(dtype) for name, tensor in model.trainable_state_dict().items()}
    return write_folder(folder, model.config.to_dict(), weights)


def write_folder(
    folder: str | os.PathLike[str], config: dict[str, Any], weights: dict[str, torch.Tensor]
) -> Path:
    """`save_folder` for a model that is not built: its configuration in plain values, its trained weights."""
    from safetensors.torch import save

    folder = Path(folder)
    plain = {name: tensor.contiguous() for name, tensor in weights.items()}
    write_atomically(folder / _WEIGHTS, lambda file: file.write(save(plain, {"format": FORMAT})))
    write_json(folder / _CONFIG, {"format": FORMAT, **config})
    return folder


def read_pretrained(source: str | os.PathLike[str]) -> tuple[ModelConfig, dict[str, torch.Tensor]]:
    """Configuration and trained weights from a ``.pt`` file or a folder written by `save_folder`."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(source)
    if not path.is_dir():
        content = load_checkpoint(path)
        return _model_config(content["config"], path), content["model_state_dict"]
    missing = [name for name in (_CONFIG, _WEIGHTS) if not (path / name).is_file()]
    if missing:
        held = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
        files = sorted(entry.name for entry in path.glob("*.pt"))
        advice = f"; to use a checkpoint in it, name the file, such as {path / files[-1]}" if files else ""
        raise CheckpointError(f"{path} has no {' and no '.join(missing)}; it holds {held}{advice}")
    try:
        values = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
        weights = load_file(path / _WEIGHTS)
    except (ValueError, SafetensorError) as error:
        raise CheckpointError(f"{path} is torn or not a checkpoint: {error}") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise CheckpointError(f"{path / _CONFIG} is not of the format {FORMAT!r}")
    for name in ("vlm_name", "sam_name"):
        # A folder that holds its own models, as import-lisa makes, names them by "./" and may be moved.
        if isinstance(given := values.get(name), str) and given.startswith("./") and (path / given).is_dir():
            values[name] = str(path.resolve() / given)
    return _model_config(values, path), weights


def _model_config(values: dict[str, Any], path: Path) -> ModelConfig:
    try:
        return ModelConfig.from_dict(values)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{path}: its configuration is not of this version: {error}") from error


def needed_weights(model: Any) -> list[str]:
    """Names of the trained weights that a checkpoint of ``model`` must hold.

    All of them; but what a VLM with a ``<SEG>`` of its own says about it is in its lm_head.
    """
    own = "answer_head." if model.processor.own_seg_token else None
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and not (own and name.startswith(own))
    ]


def check_keys(
    given: dict[str, torch.Tensor], *, known: dict[str, torch.Tensor], trained: Iterable[str]
) -> None:
    """Every trained weight must be given, every given one be known and of its shape.

    Raises CheckpointError with all that is wrong at once.
    """
    missing = [name for name in trained if name not in given]
    unknown = [name for name in given if name not in known]
    shapes = [
        f"{name} is {tuple(tensor.shape)} and should be {tuple(known[name].shape)}"
        for name, tensor in given.items()
        if name in known and tensor.shape != known[name].shape
    ]
    if not (missing or unknown or shapes):
        return
    lines = [
        f"{len(names)} {what}: {_some(names)}"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", shapes))
        if names
    ]
    raise CheckpointError(
        "the weights do not fit this model. "
        + "; ".join(lines)
        + ". Build the model with the checkpoint's own "
        "configuration: ModifiedLISA.from_pretrained(path) does."
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
