"""A stand-in for ModifiedLISA that keeps to its contract and runs in a millisecond, for tests of training."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from modified_lisa.config import ModelConfig
from modified_lisa.data.sample import Sample
from modified_lisa.geometry import Frame
from modified_lisa.model.inputs import Pictures

SIDE = 32


@dataclass
class FakeInputs:
    frames: list[Frame]
    pixels: torch.Tensor
    words: torch.Tensor
    seg_counts: list[int]

    def __len__(self) -> int:
        return len(self.frames)

    def to(self, device: Any) -> "FakeInputs":
        return FakeInputs(self.frames, self.pixels.to(device), self.words.to(device), self.seg_counts)


def _square(image: np.ndarray, frame: Frame) -> torch.Tensor:
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 128 - 1
    height, width = frame.content(SIDE)
    return F.pad(F.interpolate(pixels, (height, width), mode="area")[0], (0, SIDE - width, 0, SIDE - height))


class FakeProcessor:
    mask_side = 256

    def __call__(self, images: list[np.ndarray], texts: list[str], device: Any = None) -> FakeInputs:
        return self.ask(self.look(images, device), texts)

    def look(self, images: list[np.ndarray], device: Any = None) -> Pictures:
        frames = [Frame(*image.shape[:2]) for image in images]
        squares = [_square(image, frame) for frame, image in zip(frames, images, strict=True)]
        return Pictures(frames, torch.stack(squares), None)

    def ask(self, pictures: Pictures, texts: list[str]) -> FakeInputs:
        codes = [hashlib.sha256(text.encode()).digest()[:4] for text in texts]
        words = torch.tensor([list(code) for code in codes]).float() / 255
        counts = [max(1, text.count("<SEG>")) for text in texts]
        return FakeInputs(pictures.frames, pictures.vlm_pixels, words, counts)


class FakeLISA(nn.Module):
    """Masks from a colour filter that the text modulates."""

    def __init__(self, seed: int = 0, dropout: float = 0.0, config: ModelConfig | None = None) -> None:
        super().__init__()
        self.config = config or ModelConfig(vlm_name="fake", sam_name="fake", dtype="fp32", quantize=False)
        self.processor = FakeProcessor()
        self.frozen = nn.Parameter(torch.arange(32.0).reshape(8, 4).sin(), requires_grad=False)
        generator = torch.Generator().manual_seed(seed)
        self.filter = nn.Parameter(torch.randn(3, 8, generator=generator) * 0.3)
        self.bias = nn.Parameter(torch.zeros(1))
        self.iou = nn.Parameter(torch.zeros(8))
        self.dropout = nn.Dropout(dropout)

    @property
    def device(self) -> torch.device:
        return self.bias.device

    def forward(self, inputs: FakeInputs) -> dict[str, list[torch.Tensor]]:
        query = self.dropout((inputs.words @ self.frozen.T).tanh())
        colours = torch.einsum("bd,cd->bc", query, self.filter)
        logits = torch.einsum("bchw,bc->bhw", inputs.pixels, colours) + self.bias
        logits = logits.repeat_interleave(256 // SIDE, 1).repeat_interleave(256 // SIDE, 2)
        return {
            "pred_masks": [mask[None] for mask in logits],
            "iou_predictions": list((query.detach() @ self.iou).sigmoid()[:, None]),
        }

    def trainable_state_dict(self) -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in self.named_parameters() if p.requires_grad}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state_dict, strict=False)

    def describe_parameters(self) -> dict[str, Any]:
        return {"trainable": 33, "total": 65, "groups": {}}


class FakeSet:
    """Random samples of different sizes; the target is where the image is bright."""

    def __init__(self, size: int, split: str = "train") -> None:
        self.size, self.split = size, split

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.size:
            raise IndexError(index)
        rng = np.random.default_rng([index, len(self.split)])
        height, width = rng.integers(16, 40, 2)
        image = np.repeat(np.repeat(rng.integers(0, 256, (4, 4, 3)), 10, 0), 10, 1)[:height, :width]
        image = image.astype(np.uint8)
        target = (image[..., 0] > 128).astype(np.uint8)
        if index % 3 == 0:
            target[:3] = 255
        text = f"what is bright, number {index % 2}?"
        return Sample(self.names[index], image, text, target)

    @property
    def names(self) -> list[str]:
        return [f"{self.split}/image_{index}#0" for index in range(self.size)]


class NanLISA(FakeLISA):
    """Answers the samples whose image has this height and width with NaN."""

    def __init__(self, size: tuple[int, int], **options: Any) -> None:
        super().__init__(**options)
        self.size = size

    def forward(self, inputs: FakeInputs) -> dict[str, list[torch.Tensor]]:
        outputs = super().forward(inputs)
        outputs["pred_masks"] = [
            mask * float("nan") if (frame.height, frame.width) == self.size else mask
            for frame, mask in zip(inputs.frames, outputs["pred_masks"], strict=True)
        ]
        return outputs
