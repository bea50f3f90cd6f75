"""The one factory of tiny random models: under a million parameters, saved in the hub's layout, no network."""

import json
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import numpy as np
import torch
from PIL import Image

from modified_lisa import ModifiedLISA
from modified_lisa.model.tiny import (
    SamSizes,
    VlmSizes,
    build_sam,
    build_tokenizer,
    build_vlm,
    save_sam,
    save_vlm,
)

TEXTS = [
    "the one that could roll away",
    "which of these would keep me dry in the rain?",
    "all that is not round",
    "segmentation mask USER: ASSISTANT:",
]
VLM = VlmSizes(
    image_size=56, vision_width=64, vision_layers=4, vision_heads=2, width=64, layers=2, heads=2, mlp=128
)
SAM = SamSizes(
    image_size=256,
    patch_size=4,
    width=32,
    layers=2,
    heads=2,
    window=8,
    global_layers=(),
    channels=32,
    decoder_mlp=64,
)


@cache
def folders() -> tuple[str, str]:
    """Folders of a tiny random VLM and SAM; the same weights at every call."""
    root = Path(mkdtemp(prefix="modified-lisa-tests-"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        tokenizer = build_tokenizer(TEXTS, 400)
        save_vlm(root / "vlm", build_vlm(tokenizer, VLM), tokenizer)
        sam = build_sam(SAM)
        for parameter in sam.parameters():  # its own initialisation leaves positions and biases at zero
            parameter.data += 0.2 * torch.randn_like(parameter)
        save_sam(root / "sam", sam)
    return str(root / "vlm"), str(root / "sam")


def tiny_model(seed: int = 0, **options: Any) -> ModifiedLISA:
    """A ModifiedLISA of those two, fp32 and not quantised unless ``options`` say otherwise."""
    vlm, sam = folders()
    torch.manual_seed(seed)
    return ModifiedLISA(vlm, sam, **{"dtype": "fp32", "quantize": False, "device": "cpu", **options})


def picture(height: int = 60, width: int = 80, seed: int = 0) -> np.ndarray:
    """A random image, uint8 (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def bright_squares(root: Path, samples: dict[str, int]) -> Path:
    """A folder in ReasonSeg's layout, so many samples in each split: a bright square on a dark image, not the same size
    twice."""
    for split, number in samples.items():
        (root / split).mkdir()
        for index in range(number):
            image = np.full((60 + 7 * index, 90, 3), 40, np.uint8)
            image[10:40, 20:60] = (250, 240, 10 * index % 256)
            Image.fromarray(image).save(root / split / f"image_{index}.jpg")
            square = [[20, 10], [59, 10], [59, 39], [20, 39]]
            shapes = [{"label": "target", "shape_type": "polygon", "points": square}]
            content = {"text": ["what is bright?"], "shapes": shapes}
            (root / split / f"image_{index}.json").write_text(json.dumps(content), encoding="utf-8")
    return root
