"""The optimizers of the trainings here, and their learning rate over time."""

import math
from collections.abc import Sequence

import torch
from torch import nn


def rate_at(share: float, peak: float, *, warm: float = 0.03, hold: float = 0.0) -> float:
    """The learning rate when ``share`` of the time is spent: a short rise, ``peak`` up to the share ``hold``, then a
    cosine to nearly 0. With ``hold`` 1 it stays, for a training that another continues."""
    fallen = min(1.0, max(0.0, share - hold) / max(1e-9, 1 - hold))
    return peak * min(1.0, share / warm) * (0.5 * (1 + math.cos(math.pi * fallen)) + 0.005)


def make_optimizer(modules: list[nn.Module], lr: float, device: torch.device) -> torch.optim.AdamW:
    """AdamW over what trains in ``modules``; biases, norms and single vectors do not decay."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.02},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=device.type == "cuda")


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon): momentum, made orthogonal.

    As ``torch.optim.Muon`` with ``adjust_lr_fn="match_rms_adamw"`` (a test compares them), but matrices of one shape
    are treated together: for many small ones the launches take the time (44 ms of a step of 180 on an H100).
    """

    COEFFICIENTS = (3.4445, -4.775, 2.0315)

    def __init__(
        self, matrices: list[nn.Parameter], lr: float, *, momentum: float = 0.95, weight_decay: float = 0.02
    ) -> None:
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        for matrix in matrices:
            shapes.setdefault(matrix.shape, []).append(matrix)
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([{"params": alike} for alike in shapes.values()], defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step; what has no gradient (always the same ones) stays."""
        for group in self.param_groups:
            matrices = [matrix for matrix in group["params"] if matrix.grad is not None]
            if not matrices:
                continue
            lr, momentum = group["lr"], group["momentum"]
            grads = torch.stack([matrix.grad for matrix in matrices])
            state = self.state[matrices[0]]
            kept = state.setdefault("momentum", torch.zeros_like(grads))
            kept.lerp_(grads, 1 - momentum)
            update = self.orthogonal(grads.lerp(kept, momentum))
            size = 0.2 * math.sqrt(max(matrices[0].shape))
            torch._foreach_mul_(matrices, 1 - lr * group["weight_decay"])
            torch._foreach_add_(matrices, list(update.to(grads.dtype).unbind()), alpha=-lr * size)

    @classmethod
    def orthogonal(cls, matrices: torch.Tensor, steps: int = 5) -> torch.Tensor:
        """Nearly the orthogonal factors of (n, R, C), bf16, by a Newton-Schulz iteration of fifth order."""
        a, b, c = cls.COEFFICIENTS
        tall = matrices.shape[1] > matrices.shape[2]
        x = matrices.bfloat16()
        x = x.mT if tall else x
        x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
        for _ in range(steps):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x.mT if tall else x


def make_optimizers(
    whole: nn.Module, layers: Sequence[nn.Module], lr: float, muon_lr: float, device: torch.device
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices of the ``layers``, AdamW for all else of the ``whole``, each with its
    peak rate; AdamW alone for a ``muon_lr`` of 0."""
    if not muon_lr:
        return [(make_optimizer([whole], lr, device), lr)]
    matrices = [p for layer in layers for p in layer.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    rest = nn.ParameterList(p for p in whole.parameters() if id(p) not in taken)
    muon = Muon(matrices, lr=muon_lr)
    return [(muon, muon_lr), (make_optimizer([rest], lr, device), lr)]
