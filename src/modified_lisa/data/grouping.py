"""Which groups of queries a sample belongs to, so that results can be reported apart."""

from collections.abc import Mapping
from typing import Any

__all__ = ["groups_of"]

_HELD_OUT = "_held_out"


def groups_of(content: Mapping[str, Any], is_sentence: bool | None) -> dict[str, str]:
    """{grouping: group} of one annotation file.

    - ``length``: long (a whole sentence) or short (a phrase), where ``is_sentence`` says it; as in the LISA
      paper's "long query" and "short query";
    - ``type``: the kind of query, where the file has ``scene.kind`` (generated scenes);
    - ``wording``, ``combination`` and others: held out or seen, for each ``scene.X_held_out``.

    What is missing or of another type makes no group.
    """
    groups: dict[str, str] = {}
    if is_sentence is not None:
        groups["length"] = "long" if is_sentence else "short"
    scene = content.get("scene")
    if isinstance(scene, dict):
        if isinstance(scene.get("kind"), str):
            groups["type"] = scene["kind"]
        groups |= {
            name.removesuffix(_HELD_OUT): "held out" if value else "seen"
            for name, value in scene.items()
            if name.endswith(_HELD_OUT) and isinstance(value, bool)
        }
    return groups
