"""What fp8 means here: the definition, on any device, that the GPU's kernels are held against.

A matrix (R, K) becomes one scale a row and codes in float8_e4m3fn (Micikevicius et al. 2022: 4 bits of exponent, 3
of fraction, largest number 448, no infinity). A row's largest weight becomes 448. A product is then

    x W^T  =  (codes of x) (codes of W)^T * scale of x's row * scale of W's row

with x quantised as it comes, row by row (token by token), and sums in float32 or as near to it as the GPU's fp8
units add. An error of rounding is at most 1/16 of a number, or of the smallest normal number of its row
(`SMALLEST` * scale).

Codes are kept as uint8: nothing then takes them for weights that could be cast to another precision.
"""

import torch
import torch.nn.functional as F

__all__ = ["LARGEST", "MULTIPLE", "SMALLEST", "decode", "quantise_rows", "reference_product"]

FORMAT = torch.float8_e4m3fn
LARGEST = 448.0
SMALLEST = 2.0**-6
"""The smallest normal number of the format; below, numbers are evenly spaced."""
FLOOR = 2.0**-100
"""A row's largest number counts as at least this, so that a row of zeros has a scale too."""
MULTIPLE = 16
"""Both sides of a weight must be multiples of this for the GPU's product."""


def quantise_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(R, K) of any float type -> codes uint8 (R, K) and scales float32 (R,).

    A number that is not finite makes its own code NaN, so that it is seen in what comes out.
    """
    wide = x.float()
    largest = wide.abs().amax(dim=1).clamp(min=FLOOR)
    # At most 448 * (1 + 2^-23), which rounds to 448: nothing needs to be clamped.
    # Not ``LARGEST / largest``, for which torch takes the reciprocal first and rounds twice.
    scaled = wide * torch.div(torch.full_like(largest, LARGEST), largest)[:, None]
    return scaled.to(FORMAT).view(torch.uint8), largest * (1 / LARGEST)


def decode(codes: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The matrix (R, K) that codes uint8 (R, K) and scales float32 (R,) stand for."""
    return (codes.view(FORMAT).float() * scale[:, None]).to(dtype)


def reference_product(x: torch.Tensor, codes: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """x (M, K) by W (N, K) in fp8 -> (M, N) in x's dtype; the sums in float32."""
    x_codes, x_scale = quantise_rows(x)
    sums = F.linear(x_codes.view(FORMAT).float(), codes.view(FORMAT).float())
    return (sums * x_scale[:, None] * scale).to(x.dtype)
