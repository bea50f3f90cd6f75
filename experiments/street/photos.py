"""The street photos on the device, and batches of them that are never twice the same.

Coordinates: u to the right and v down, in fractions of the model's square's side; a photo fills 0 <= u < 1 and
0 <= v < height / width (all are landscape). Shapes: N samples, M photos, H x W pixels, B photos in a batch with Q samples each.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from modified_lisa.data.annotation import rasterize, read_annotation
from modified_lisa.data.check import check_split
from modified_lisa.errors import DataError
from modified_lisa.images import read_image

__all__ = ["Photos", "augmented", "kind_of", "names_a_side", "read_photos"]


@dataclass(frozen=True)
class Photos:
    """A split: N samples on M photos."""

    pixels: torch.Tensor
    """uint8 (M, 3, H, W)."""
    labels: torch.Tensor
    """uint8 (N, H, W): 0, 1, 255 ignored."""
    photo: torch.Tensor
    """int64 (N,): the photo of each sample."""
    kinds: list[str]
    """What each sample shows (`kind_of`)."""
    texts: list[tuple[str, ...]]
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> "Photos":
        places = (self.pixels.to(device), self.labels.to(device), self.photo.to(device))
        return Photos(*places, self.kinds, self.texts, self.names)


def read_photos(root: Path, split: str, limit: int | None = None) -> Photos:
    """Raises DataError for a folder that is not in order, and photos of several sizes or upright ones."""
    pairs, problems = check_split(root, split)
    if problems or not pairs:
        raise DataError(f"{root / split}: {len(problems)} problems; modified-lisa check-data names them")
    pairs = pairs[:limit]
    known: dict[str, int] = {}
    pixels, labels, photo = [], [], []
    for pair in tqdm(pairs, f"{split} photos", mininterval=2):
        key = hashlib.sha256(pair.image.read_bytes()).hexdigest()  # each photo is there once for every kind
        if key not in known:
            known[key] = len(pixels)
            pixels.append(read_image(pair.image))
        image = pixels[known[key]]
        labels.append(rasterize(read_annotation(pair.annotation), *image.shape[:2]))
        photo.append(known[key])
    sizes = {image.shape for image in pixels}
    if len(sizes) > 1 or pixels[0].shape[0] > pixels[0].shape[1]:
        raise DataError(
            f"{root / split}: photos of sizes {sorted(sizes)}; landscape ones of one size are expected"
        )
    return Photos(
        torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(np.stack(labels)),
        torch.tensor(photo),
        [kind_of(pair.image) for pair in pairs],
        [pair.texts for pair in pairs],
        [pair.image.stem for pair in pairs],
    )


def kind_of(image: Path) -> str:
    """``car`` of ``0001TP_006750_car.jpg``."""
    return image.stem.rsplit("_", 1)[-1]


def augmented(
    photos: Photos,
    chosen: torch.Tensor,
    sided: torch.Tensor,
    generator: torch.Generator,
    *,
    side: int,
    mask_side: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """A batch: zoomed, shifted, turned, mirrored, recoloured; all samples of a photo alike.

    Args:
        chosen: int64 (B, Q) on the photos' device: Q samples on each of B photos.
        sided: bool (B,): do not mirror, as a query says "left" or "right" (`names_a_side`).

    Returns pixels float32 (B, 3, side, side); target and weight float32 (B * Q, mask_side, mask_side).
    """
    device, batch = photos.pixels.device, len(chosen)
    height, width = photos.pixels.shape[-2:]
    ratio = height / width

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(batch, *shape, generator=generator, device=device)

    zoom = torch.exp2(uniform(-0.4, 1.0))
    stretch = torch.exp2(uniform(-0.15, 0.15))
    angle = uniform(-0.09, 0.09)  # radians
    mirror = torch.where((uniform(0, 1) < 0.5) & ~sided, -1.0, 1.0)
    half = torch.stack((0.5 / zoom, 0.5 / zoom), dim=1)
    centre = half.minimum(1 - half) + (1 - 2 * half).abs() * uniform(0, 1, 2)  # fractions of the photo

    def places(cells: int) -> torch.Tensor:
        """(B, cells, cells, 2) for `F.grid_sample`, which spans the photo by -1..1."""
        line = (torch.arange(cells, device=device) + 0.5) / cells
        v, u = torch.meshgrid(line, line, indexing="ij")
        # From the middle of the photo's place in the square, in units of its width.
        x, y = (u - 0.5)[None] * mirror[:, None, None], (v - ratio / 2)[None]
        sine, cosine = angle.sin()[:, None, None], angle.cos()[:, None, None]
        turned_x = (cosine * x - sine * y) * (stretch / zoom)[:, None, None]
        turned_y = (sine * x + cosine * y) / (stretch * zoom)[:, None, None]
        grid_x = 2 * (centre[:, 0, None, None] + turned_x) - 1
        grid_y = 2 * (centre[:, 1, None, None] + turned_y / ratio) - 1
        beyond = (v >= ratio)[None].expand(batch, -1, -1)  # stays padding, as in every photo
        return torch.stack((grid_x, grid_y), dim=-1).masked_fill(beyond[..., None], -9.0)

    grid = places(side)
    inside = (grid.abs() <= 1).all(dim=-1)[:, None]
    raw = photos.pixels[photos.photo[chosen[:, 0]]].float().div_(255)
    pixels = F.grid_sample(raw, grid, mode="bilinear", padding_mode="border", align_corners=False)
    pixels = _recoloured(pixels, uniform, generator)
    scale = pixels.new_tensor(mean)[:, None, None], pixels.new_tensor(std)[:, None, None]
    pixels = torch.where(inside, (pixels - scale[0]) / scale[1], 0.0)

    label = photos.labels[chosen]
    planes = torch.cat((label == 1, label != 255), dim=1).float()
    hit, weight = (
        F.grid_sample(planes, places(mask_side), mode="bilinear", padding_mode="zeros", align_corners=False)
        .unflatten(1, (2, -1))
        .unbind(dim=1)
    )
    hit, weight = hit.flatten(0, 1), weight.flatten(0, 1)
    target = torch.where(weight > 0, hit / weight.clamp(min=1e-6), 0.0).clamp(0, 1)
    return pixels, target, weight


def names_a_side(text: str) -> bool:
    """Whether a mirrored picture would be another answer."""
    return bool(re.search(r"\b(left|right)\b", text.lower()))


def _recoloured(pixels: torch.Tensor, uniform, generator: torch.Generator) -> torch.Tensor:  # type: ignore[no-untyped-def]
    """Light, contrast, saturation, tint and gamma, then noise or blur for some."""
    gamma = torch.exp2(uniform(-0.4, 0.4, 1, 1, 1))
    pixels = pixels.clamp(1e-4, 1) ** gamma * torch.exp2(uniform(-0.35, 0.35, 1, 1, 1))
    pixels = pixels * torch.exp2(uniform(-0.15, 0.15, 3, 1, 1))
    middle = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = middle + (pixels - middle) * torch.exp2(uniform(-0.35, 0.35, 1, 1, 1))
    grey = pixels.mean(dim=1, keepdim=True)
    saturation = torch.where(uniform(0, 1, 1, 1, 1) < 0.1, 0.0, uniform(0.5, 1.5, 1, 1, 1))
    pixels = grey + (pixels - grey) * saturation
    blurred = F.avg_pool2d(pixels, 3, stride=1, padding=1, count_include_pad=False)
    pixels = torch.where(uniform(0, 1, 1, 1, 1) < 0.2, blurred, pixels)
    noise = torch.randn(pixels.shape, generator=generator, device=pixels.device)
    return (pixels + noise * uniform(0, 0.03, 1, 1, 1)).clamp(0, 1)
