"""Two frames and the way between them.

- the user's image: ``(height, width)`` pixels;
- the model's square: the image scaled so that its longest side fills the square, in the upper left corner,
  padded to the right and below. Nothing is ever cropped.

Both encoders and the mask decoder see the same square at different resolutions, so a place in one is the
same fraction of the side in all of them.
"""

import functools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F

from modified_lisa.errors import ImageError
from modified_lisa.resize import square_on

__all__ = ["IGNORE", "Frame"]

IGNORE = 255
"""Label of pixels that count for nothing."""

_FINE_SIDE = 1024
"""Side of the square at which masks are cut out of their padding, as in SAM's post-processing."""


@functools.lru_cache(maxsize=64)
def _averaging(pixels: int, content: int, cells: int) -> torch.Tensor:
    """float32 (cells, pixels): an axis averaged to ``content`` of `_FINE_SIDE`, and that, padded with 0, to ``cells``.

    An average over areas is one of rows after one of columns; two small products take a tenth of the time of pooling.
    """
    axis = F.interpolate(torch.eye(pixels)[None], content, mode="area")
    return F.adaptive_avg_pool1d(F.pad(axis, (0, _FINE_SIDE - content)), cells)[0].T.contiguous()


@dataclass(frozen=True)
class Frame:
    """Where an image of ``height`` x ``width`` pixels lies in the model's square."""

    height: int
    width: int
    fine_side: ClassVar[int] = _FINE_SIDE

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise ImageError(f"an image of {self.height} x {self.width} pixels has no pixels")

    def content(self, side: int) -> tuple[int, int]:
        """Height and width that the image takes in a square of ``side`` pixels (SAM's rounding)."""
        scale = side / max(self.height, self.width)
        return max(1, int(self.height * scale + 0.5)), max(1, int(self.width * scale + 0.5))

    def to_square(
        self,
        image: np.ndarray,
        side: int,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        interpolation: str = "bilinear",
        device: torch.device | None = None,
    ) -> torch.Tensor:
        """Resize, normalise and pad an image for an encoder.

        Args:
            image: uint8 (height, width, 3), RGB.
            side: pixels of the encoder's square input.
            mean, std: of each channel, for values in 0..1; the padding is the mean, that is 0.
            interpolation: ``bilinear`` (SAM) or ``bicubic`` (CLIP); see `images.resize_image`.
            device: where to do it, with the same result; None: the CPU.

        Returns:
            float32 (3, side, side).
        """
        if image.shape != (self.height, self.width, 3) or image.dtype != np.uint8:
            raise ImageError(
                f"got an image of {image.dtype} {tuple(image.shape)}; "
                f"expected uint8 ({self.height}, {self.width}, 3)"
            )
        return square_on(device, image, self.content(side), side, mean, std, interpolation)

    def target_to_grid(self, target: torch.Tensor, side: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
        """A label map as soft targets on the mask decoder's square grid, by averaging areas.

        Args:
            target: uint8 (height, width) with 0, 1, and 255 for ignored pixels.
            side: cells of the grid's side.

        Returns:
            target float32 (side, side): the share of target among a cell's counted pixels, in 0..1;
            weight float32 (side, side): the share of counted pixels, 0 in padding and in ignored regions.
        """
        if target.shape != (self.height, self.width):
            raise ImageError(
                f"the label map is {tuple(target.shape)} and the image {(self.height, self.width)}; "
                "they must have the same size"
            )
        planes = torch.stack((target == 1, target != IGNORE)).float()
        height, width = self.content(_FINE_SIDE)
        if max(self.height, self.width) > _FINE_SIDE:  # the products cost less after that
            planes = F.interpolate(planes[None], (height, width), mode="area")[0]
        down, across = (
            _averaging(pixels, content, side)
            for pixels, content in zip(planes.shape[1:], (height, width), strict=True)
        )
        hit, weight = (down @ planes @ across.T).clamp(max=1.0)
        return torch.where(weight > 0, hit / weight.clamp(min=1e-12), torch.zeros(())).clamp(max=1.0), weight

    def mask_to_image(self, logits: torch.Tensor) -> torch.Tensor:
        """Mask logits (N, side, side) of the model's square as logits (N, height, width) of the user's image.

        SAM's post-processing: enlarge to 1024 x 1024, cut the padding off, resize to the image; bilinear.
        Positive means inside the mask.
        """
        if logits.ndim != 3 or logits.shape[1] != logits.shape[2]:
            raise ImageError(f"got mask logits of shape {tuple(logits.shape)}; expected (N, side, side)")
        if not len(logits):
            return logits.new_zeros((0, self.height, self.width))
        height, width = self.content(self.fine_side)
        fine = F.interpolate(
            logits[:, None], (self.fine_side, self.fine_side), mode="bilinear", align_corners=False
        )
        fine = fine[..., :height, :width]
        return F.interpolate(fine, (self.height, self.width), mode="bilinear", align_corners=False)[:, 0]
