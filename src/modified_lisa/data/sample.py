"""One image, one query, and the pixels that answer it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from modified_lisa.errors import DataError

__all__ = ["Sample"]


@dataclass(frozen=True, eq=False)
class Sample:
    """What a data set gives and everything behind it reads. Pixels are those of the user's image."""

    name: str
    """``split/stem#index of the text``, such as ``train/image_1#0``: unique within a data folder."""
    image: np.ndarray
    """(H, W, 3) uint8, RGB."""
    text: str
    """The query, without any token of the model."""
    target: np.ndarray
    """(H, W) uint8: 0 background, 1 the answer, 255 ignored."""
    groups: Mapping[str, str] = field(default_factory=dict)
    """{grouping: group}, such as ``{"type": "relation", "length": "long"}``: results are reported by them."""

    def __post_init__(self) -> None:
        if self.image.dtype != np.uint8 or self.image.ndim != 3 or self.image.shape[2] != 3:
            raise DataError(
                f"sample {self.name}: the image is {self.image.dtype} {self.image.shape}; uint8 (H, W, 3) is expected"
            )
        if self.target.dtype != np.uint8 or self.target.shape != self.image.shape[:2]:
            raise DataError(
                f"sample {self.name}: the target is {self.target.dtype} {self.target.shape}; "
                f"uint8 {self.image.shape[:2]} is expected, the size of the image"
            )
