"""Training of the street model: one step is one batch of photos, each encoded once for several queries.

The forward pass is `ModifiedLISA.compute`, the losses are the package's; what is this experiment's own is the
augmentation on the device, rates by part, and an average of the weights over the last steps.
"""

import functools
import math
import time
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from photos import Photos, augmented, names_a_side
from torch import nn
from tqdm import tqdm

from modified_lisa.config import LossWeights
from modified_lisa.geometry import Frame
from modified_lisa.losses import balanced_weights, iou_prediction_loss, segmentation_loss
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.training.step import balance_strength

__all__ = ["Average", "fit"]

WARM = 3
BALANCE = 0.5
"""Share of the way in which small targets count for more."""
WEIGHTS = LossWeights(bce=2.0, dice=1.0, iou=1.0)


class Average:
    """Exponential moving average of the trained weights (Polyak & Juditsky 1992)."""

    def __init__(self, model: nn.Module, decay: float = 0.995) -> None:
        self.decay, self.steps = decay, 0
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        self.values = [p.detach().clone() for p in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.parameters], 1 - decay)

    @torch.no_grad()
    def put(self) -> None:
        """Into the model."""
        for parameter, value in zip(self.parameters, self.values, strict=True):
            parameter.copy_(value)


def fit(
    model: ModifiedLISA,
    photos: Photos,
    wordings: Callable[[int, np.random.Generator], str],
    *,
    epochs: float,
    seconds: float,
    batch: int,
    queries: int,
    rates: dict[str, float],
    kind_weight: float,
    seed: int,
) -> list[dict[str, float]]:
    """Train in place, for ``epochs`` or ``seconds``, whichever ends first; the model ends with averaged weights.

    Args:
        photos: on the model's device.
        wordings: (sample, numpy generator) -> the query to ask this time.
        batch: photos of a step; ``queries``: samples of each, which share its encoding.
        rates: learning rate by part: the beginning of parameters' names -> rate; ``""`` for all others.
        kind_weight: of a cross-entropy that asks the prompt which kind of thing is meant, through a layer that is thrown
            away: masks alone say little about it as long as they are empty.

    Returns the mean losses of each tenth of the way.
    """
    processor = model.processor
    spec = processor.vlm_image
    assert spec is not None
    encode = functools.cache(processor.encode)
    frame = Frame(*photos.pixels.shape[-2:])
    dice_roll = np.random.default_rng(seed)
    generator = torch.Generator(model.device).manual_seed(seed)
    kinds = sorted(set(photos.kinds))
    kind_of = torch.tensor([kinds.index(kind) for kind in photos.kinds], device=model.device)
    tell = nn.Linear(model.seg_projection[-1].out_features, len(kinds), device=model.device)
    optimizer = make_optimizer(model, rates)
    optimizer.add_param_group({"params": list(tell.parameters()), "lr": rates[""], "weight_decay": 0.0})
    base = [group["lr"] for group in optimizer.param_groups]
    average = Average(model)
    total = math.ceil(epochs * len(photos) / (batch * queries))
    began, history, sums, counted = time.monotonic(), [], torch.zeros(6, device=model.device), 0
    model.train()
    bar = tqdm(total=total, desc="training", mininterval=5)
    shares, others = _shares(photos.kinds), _of_one_photo(photos.photo.tolist())
    start = began
    for step in range(total):
        if step == WARM:
            start = time.monotonic()
        # The first steps choose kernels and take as long as a hundred others: the schedule does not count them.
        done = max(step / total, (time.monotonic() - start) / max(1.0, began + seconds - start))
        if done >= 1:
            break
        chosen = _with_others(dice_roll.choice(len(photos), batch, p=shares), others, queries, dice_roll)
        for group, rate in zip(optimizer.param_groups, base, strict=True):
            group["lr"] = (
                rate * min(1.0, (step + 1) / 50) * (0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2)
            )
        texts = [wordings(int(sample), dice_roll) for sample in chosen.flat]
        sided = np.array([names_a_side(text) for text in texts]).reshape(chosen.shape).any(axis=1)
        places = torch.as_tensor(chosen, device=model.device)
        pixels, target, weight = augmented(
            photos,
            places,
            torch.as_tensor(sided, device=model.device),
            generator,
            side=spec.side,
            mask_side=processor.mask_side,
            mean=spec.mean,
            std=spec.std,
        )
        rows = [encode(text) for text in texts]
        image_of = np.repeat(np.arange(batch), queries).tolist()
        inputs = processor.assemble(rows, [frame] * len(rows), pixels, None, image_of).to(model.device)
        prompts, logits, iou = model.compute(inputs)
        assert logits is not None
        assert iou is not None
        # Otherwise the masks become empty within twenty steps, and stay so for a hundred.
        balanced = balanced_weights(target, weight, balance_strength(BALANCE, done))
        losses = segmentation_loss(logits, target, balanced, WEIGHTS)
        measured = iou_on_grid(logits.detach(), target, weight)
        judged = iou_prediction_loss(iou, measured).mean()
        told = F.cross_entropy(tell(prompts), kind_of[places.flatten()])
        (losses["loss"].mean() + judged + kind_weight * told).backward()
        norm = nn.utils.clip_grad_norm_(average.parameters, 3.0)
        if bool(norm.isfinite()):
            optimizer.step()
            average.update()
        optimizer.zero_grad(set_to_none=True)
        row = [losses[name].mean() for name in ("loss", "bce", "dice")]
        sums += torch.stack([*row, measured.mean(), judged, told]).detach()
        counted += 1
        bar.update()
        if int(done * 10) > len(history) - 1 and counted >= 5:
            names = ("loss", "bce", "dice", "mIoU_on_grid", "iou_prediction", "kind")
            means = [round(value, 4) for value in (sums / counted).tolist()]
            elapsed = round(time.monotonic() - began, 1)
            history.append({"step": step, "seconds": elapsed, **dict(zip(names, means, strict=True))})
            bar.write(f"{history[-1]}")
            sums.zero_()
            counted = 0
    bar.close()
    average.put()
    model.eval()
    return history


def make_optimizer(model: ModifiedLISA, rates: dict[str, float]) -> torch.optim.Optimizer:
    """AdamW; no decay of biases, norms and the <SEG> row."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = max((key for key in rates if name.startswith(key)), key=len)
            groups.setdefault((part, parameter.ndim > 1 and "seg_embedding" not in name), []).append(
                parameter
            )
    return torch.optim.AdamW(
        [
            {"params": parameters, "lr": rates[part], "weight_decay": 0.03 if decays else 0.0}
            for (part, decays), parameters in groups.items()
        ],
        betas=(0.9, 0.98),
        # A thousand small weights, one by one, take longer than the GPU's whole step.
        fused=all(parameter.is_cuda for parameter in model.parameters()),
    )


def iou_on_grid(logits: torch.Tensor, target: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """IoU (N,) of the masks on the model's square."""
    mask, truth = (logits > 0).float() * weight, (target > 0.5).float() * weight
    both = (mask * truth).sum(dim=(1, 2))
    return both / (mask + truth - mask * truth).sum(dim=(1, 2)).clamp(min=1e-6)


def _shares(kinds: list[str]) -> np.ndarray:
    """Probability (N,) of each sample to be a photo's first: a kind is drawn in proportion to the root of its number."""
    counts = Counter(kinds)
    shares = np.array([counts[kind] ** -0.5 for kind in kinds])
    return shares / shares.sum()


def _of_one_photo(photo: list[int]) -> list[list[int]]:
    """For each sample, all samples on its photo."""
    together: dict[int, list[int]] = {}
    for sample, number in enumerate(photo):
        together.setdefault(number, []).append(sample)
    return [together[number] for number in photo]


def _with_others(
    chosen: np.ndarray, others: list[list[int]], queries: int, dice_roll: np.random.Generator
) -> np.ndarray:
    """(B,) samples with more of the same photos behind them, (B, queries); again from the first where they run out."""
    rows = []
    for sample in chosen.tolist():
        more = dice_roll.permutation([other for other in others[sample] if other != sample]).tolist()
        row = [sample, *map(int, more)]
        rows.append([row[place % len(row)] for place in range(queries)])
    return np.array(rows)
