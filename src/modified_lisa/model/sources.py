"""Names -> files: where a VLM or a SAM is read from, and what to say when it is not there."""

import importlib.resources
import re
from pathlib import Path
from typing import Any

from modified_lisa.errors import ModelLoadError

__all__ = ["class_tokens", "first_line", "not_found", "read_config", "resolve_name", "unsafe_or_torn"]


def resolve_name(name: str, part: str) -> str:
    """``tiny`` -> the folder of the bundled ``part`` (``vlm`` or ``sam``); anything else stays."""
    if name != "tiny":
        return name
    folder = Path(str(importlib.resources.files("modified_lisa") / "assets" / f"tiny-{part}"))
    if not (folder / "config.json").is_file():
        raise ModelLoadError(
            f"the bundled tiny {part} is not in this installation; build it with: python scripts/tiny_models/build.py"
        )
    return str(folder)


def read_config(name: str, flag: str, kind: str) -> tuple[str, Any]:
    """The folder or hub name to read from, and its transformers configuration.

    It is checked to be of ``kind``: a ``model_type``, or ``vlm`` for any of `families.FAMILIES`.
    """
    from transformers import AutoConfig

    from modified_lisa.model.families import FAMILIES, register_families

    register_families()

    source = resolve_name(name, flag.removeprefix("--").removesuffix("_name"))
    try:
        config = AutoConfig.from_pretrained(source)
    except (OSError, ValueError) as error:
        raise ModelLoadError(not_found(name, flag, error)) from error
    kinds = tuple(FAMILIES) if kind == "vlm" else (kind,)
    if config.model_type not in kinds:
        raise ModelLoadError(
            f"{flag} {name} is a model of type {config.model_type!r}; this package reads "
            f"{' and '.join(map(repr, kinds))} models there"
        )
    return source, config


def not_found(name: str, flag: str, error: Exception, what: str = "config.json") -> str:
    """What to tell a user when ``what`` of the model ``name``, given as ``flag``, cannot be read."""
    folder = Path(name)
    if folder.is_dir():
        held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
        return f"{flag} {name}: {what} cannot be read from this folder (it holds {held}): {first_line(error)}"
    if folder.is_absolute() or name.startswith((".", "~")):
        return f"{flag} {name}: there is no such folder"
    return (
        f"{flag} {name}: {what} is neither in a local folder of that name nor in the Hugging Face cache, and the "
        f"hub did not give it. With a network, run: hf download {name}; without one, give a local folder, or "
        f"'tiny' for the bundled model. ({first_line(error)})"
    )


def first_line(error: Exception) -> str:
    """What an error says, in a line; with the next one where the first only announces it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join(line.strip() for line in lines[: 2 if lines[0].endswith(":") else 1])


def unsafe_or_torn(error: Exception) -> str:
    """What `torch.load` says, without its advice to load the file unsafely."""
    if asked := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it asks for {asked[1][:100]}; a file that names anything but tensors and plain values could run code"
    if "weights_only" in str(error):
        return "it is damaged, or holds more than tensors and plain values"
    return first_line(error)[:200]


def class_tokens(vision_config: Any) -> int:
    """Tokens that a vision tower puts before its patches: CLIP has one, SigLIP none. Others: ModelLoadError."""
    known = {"clip_vision_model": 1, "siglip_vision_model": 0}
    if vision_config.model_type not in known:
        raise ModelLoadError(
            f"the VLM's vision tower is of type {vision_config.model_type!r}; this package reads {', '.join(known)}"
        )
    return known[vision_config.model_type]
