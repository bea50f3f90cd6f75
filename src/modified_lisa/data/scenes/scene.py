"""A scene and its objects, as facts: what is in the picture, where, and what can be said about it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from modified_lisa.data.scenes.facts import CAPABILITIES
from modified_lisa.data.scenes.textures import NAMED_TEXTURES

__all__ = ["Scene", "SceneObject"]


@dataclass(frozen=True)
class SceneObject:
    """One object. Pixels of the image, x before y; areas count pixels."""

    kind: str
    colour: str
    also: tuple[str, ...]
    """Other colours that a good part of it has (the brown trunk of a green tree)."""
    rgb: tuple[int, int, int]
    texture: str
    area: int
    """Visible pixels."""
    whole_area: int
    """Pixels it would have if nothing stood before it."""
    share: float
    """Visible pixels over those of the image."""
    box: tuple[int, int, int, int]
    """Left, top, right, bottom of the visible part; right and bottom are one past the last pixel."""
    centre: tuple[float, float]
    """Middle of `box`."""
    polygons: list[np.ndarray] = field(repr=False)
    """Int32 (K, 2) each; filled and outlined they give the visible pixels exactly."""
    hidden_by: dict[int, float]
    """Indices of the objects that stand before it, each with the share of it that they hide."""

    @property
    def size(self) -> str:
        """A word for the size: small, medium or large, by the share of the image."""
        return "small" if self.share < 0.016 else "large" if self.share > 0.05 else "medium"

    @property
    def pairs(self) -> frozenset[tuple[str, str]]:
        """The combinations that its looks make (`held_out.py`): colour and kind, pattern and kind."""
        own = {(self.colour, self.kind)}
        return frozenset(own | {(self.texture, self.kind)} if self.texture in NAMED_TEXTURES else own)

    @property
    def facts(self) -> tuple[str, ...]:
        """Names of the facts (`facts.FACTS`) that are true of its kind."""
        return CAPABILITIES[self.kind]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the polygons."""
        return {
            "kind": self.kind,
            "colour": self.colour,
            "texture": self.texture,
            "size": self.size,
            "facts": list(self.facts),
            "area": self.area,
            "box": list(self.box),
            "hidden_by": {str(index): round(share, 3) for index, share in self.hidden_by.items()},
        }


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is known about it."""

    image: np.ndarray = field(repr=False)
    """uint8 (H, W, 3) RGB."""
    objects: tuple[SceneObject, ...]
    """From the back to the front."""
    owner: np.ndarray = field(repr=False)
    """uint8 (H, W): 0 the background, i + 1 where object i is seen."""
    background: str
    split: str
    reflections: dict[int, list[np.ndarray]] = field(default_factory=dict, repr=False)
    """For objects mirrored in water: polygons of the mirror image, which is neither target nor background."""

    @property
    def height(self) -> int:
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        return int(self.image.shape[1])

    def mask(self, index: int) -> np.ndarray:
        """Visible pixels of object ``index``: bool (H, W)."""
        return self.owner == index + 1
