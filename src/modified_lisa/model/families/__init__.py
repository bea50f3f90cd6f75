"""Kinds of VLM that `ModifiedLISA` can be built on: one `Family` each, one small file each.

`ModifiedLISA` takes four things of a VLM: its tokenizer and chat template, its vision tower, its projector and
its language model. The last two are modules at the same place in every family (``model.multi_modal_projector``,
``model.language_model``; ``lm_head`` beside ``model``), because transformers names them so. What differs is said
by a `Family`. To add one: a file here that makes a `Family`, and its name in `FAMILIES`.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from modified_lisa.model.vision import VlmTower

__all__ = ["FAMILIES", "Family", "family_of", "register_families"]

FAMILIES = {"llava": "llava", "assembled_vlm": "assembled"}
"""``model_type`` in a VLM's ``config.json`` -> the module in this package whose ``FAMILY`` reads it."""


@dataclass(frozen=True)
class Family:
    """What differs between kinds of VLM. ``config`` is the VLM's transformers configuration."""

    model_class: Callable[[], Any]
    """The ``PreTrainedModel`` to load: called late, because importing transformers' models takes seconds."""
    tokenizer: Callable[[str], tuple[Any, str | None]]
    """Folder or hub name -> its tokenizer and the chat template that puts an image into a prompt, if it has one."""
    image_tokens: Callable[[Any], int]
    """Tokens P that the language model gets of one image."""
    projector_input: Callable[[Any], tuple[int, int]]
    """Side p and width Dv of the square grid of tokens that the projector takes, where another encoder makes them."""
    tower: Callable[[Any], VlmTower]
    """The VLM -> its vision tower."""


def family_of(config: Any) -> Family:
    """The family of a transformers configuration whose ``model_type`` is one of `FAMILIES`."""
    module = importlib.import_module(f"{__name__}.{FAMILIES[config.model_type]}")
    family: Family = module.FAMILY
    return family


def register_families() -> None:
    """Make transformers' ``AutoConfig`` know the families that are this package's own."""
    importlib.import_module(f"{__name__}.assembled")
