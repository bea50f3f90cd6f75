"""What this device reaches at best, by the same clock as everything else: products of matrices, and copies."""

import torch

from modified_lisa.benchmark.measure import time_calls

__all__ = ["copy_rate", "matrix_rate"]


def matrix_rate(device: torch.device, dtype: torch.dtype, repeats: int) -> float:
    """Floating point operations a second of a large square torch.mm in ``dtype``; median."""
    side = 8192 if device.type == "cuda" else 512
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    timing = time_calls([lambda: torch.mm(a, b)] * repeats, device=device, warmup=3)
    return 2 * side**3 / timing.median


def copy_rate(device: torch.device, repeats: int) -> float:
    """Bytes a second that a large copy on the device reads and writes; median."""
    count = 2**30 if device.type == "cuda" else 2**25
    source = torch.zeros(count, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    timing = time_calls([lambda: target.copy_(source)] * repeats, device=device, warmup=3)
    return 2 * count / timing.median
