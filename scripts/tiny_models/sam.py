"""Pretrain the tiny SAM: masks from points, boxes, and concepts, on generated scenes."""

import time
from typing import Any

import torch
import torch.nn.functional as F
from data import PADDING, Example, Pool, names_of, normalised
from torch import nn
from tqdm import tqdm

from modified_lisa.data.scenes.colours import COLOURS
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.losses import bce_loss, dice_loss

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Concepts(nn.Module):
    """Kinds and colours, as prompts and as something to know. Thrown away after pretraining.

    A prompt can mean a look rather than a place: the mean embedding of a thing, projected. It teaches the
    decoder that one prompt can mean several regions, which is what a language model will ask of it. And each
    cell of the embedding has to know its kind and colour (`cells`).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Linear(channels, channels) for _ in range(2))
        self.cells = nn.ModuleList(nn.Conv2d(channels, len(names) + 1, 1) for names in (KINDS, COLOURS))

    def forward(self, embedding: torch.Tensor, mask: torch.Tensor, which: int) -> torch.Tensor:
        """(B, C, 64, 64) and a float mask (B, 256, 256) of the example -> (B, 1, 1, C)."""
        share = F.avg_pool2d(mask[:, None], 4)
        mean = (embedding * share).sum((2, 3)) / share.sum((2, 3)).clamp(min=1e-3)
        prompt: torch.Tensor = self.project[which](mean)
        return prompt[:, None, None]


def _choose(
    examples: list[Example], concept: int | None, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A set of objects for each scene: bool (B, PADDING + 1) over labels, and the one object that stands for it."""
    chosen = torch.zeros(len(examples), PADDING + 1, dtype=torch.bool)
    seeds = torch.zeros(len(examples), dtype=torch.long)
    for row, example in enumerate(examples):
        count = len(example.kinds)
        seed = int(torch.randint(count, (1,), generator=generator))
        if concept is None:
            members = {seed}
            if torch.rand(1, generator=generator) < 0.2:
                members |= {int(torch.randint(count, (1,), generator=generator))}
        else:
            names = (example.kinds, example.colours)[concept]
            members = {number for number in range(count) if names[number] == names[seed]}
        chosen[row, [member + 1 for member in members]] = True
        seeds[row] = seed + 1
    if concept is None:  # "stuff": everything that is no object
        background = torch.rand(len(examples), generator=generator) < 0.08
        chosen[background] = False
        chosen[background, 0] = True
        seeds[background] = 0
    return chosen, seeds


def _points(masks: torch.Tensor, count: int) -> torch.Tensor:
    """``count`` random points inside each mask (B, 256, 256), as (B, 1, count, 2) pixels of the 512 square, x first."""
    flat = masks.flatten(1).float() + 1e-9
    places = torch.multinomial(flat, count, replacement=True)
    x, y = places % 256, places // 256
    return torch.stack((x, y), dim=-1).float()[:, None] * 2 + 1


def _boxes(masks: torch.Tensor) -> torch.Tensor:
    """Bounding boxes of masks (B, 256, 256) with some jitter, (B, 1, 4) pixels of the 512 square."""
    columns, rows = masks.any(1).float(), masks.any(2).float()
    x0, y0 = columns.argmax(1), rows.argmax(1)
    x1, y1 = 256 - columns.flip(1).argmax(1), 256 - rows.flip(1).argmax(1)
    boxes = torch.stack((x0, y0, x1, y1), dim=-1).float() * 2
    side = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    return (boxes + torch.randn_like(boxes) * 0.05 * side)[:, None]


def loss_of(
    sam: Any,
    concepts: Concepts,
    drawn: tuple[torch.Tensor, torch.Tensor, list[Example]],
    generator: torch.Generator,
) -> tuple[torch.Tensor, float]:
    """One step's loss, and the mean IoU of the masks."""
    squares, labels, examples = drawn
    device = squares.device
    # Only the encoder in bf16: the positions of points and cells need more digits than it has.
    with torch.autocast(device.type, dtype=torch.bfloat16):
        embedding = sam.vision_encoder(normalised(squares, MEAN, STD)).last_hidden_state
    embedding = embedding.float()
    positions = sam.get_image_wide_positional_embeddings().expand(len(examples), -1, -1, -1)
    total, ious = torch.zeros((), device=device), []
    centres = labels[:, 2::4, 2::4]
    for head, table in zip(concepts.cells, names_of(examples, device), strict=True):
        named = table.gather(1, centres.flatten(1)).view_as(centres)
        each = F.cross_entropy(head(embedding), named, reduction="none")
        weight = torch.where(named > 0, 1.0, 0.15)
        total = total + 0.5 * (each * weight).sum() / weight.sum()
    pick = torch.randint(2, (2,), generator=generator).tolist()
    for way in (("point", "points")[pick[0]], "box", ("kind", "colour")[pick[1]]):
        concept = {"kind": 0, "colour": 1}.get(way)
        chosen, seeds = _choose(examples, concept, generator)
        masks = chosen.to(device).gather(1, labels.flatten(1)).view_as(labels)
        dense = sam.prompt_encoder(None, None, None, None)[1].expand(len(examples), -1, -1, -1)
        if concept is not None:
            of_seed = (labels == seeds.to(device)[:, None, None]).float()
            sparse = concepts(embedding, of_seed, concept)
        elif way == "box":
            sparse = sam.prompt_encoder(None, None, _boxes(masks), None)[0]
        else:
            places = _points(masks, 1 if way == "point" else 5)
            ones = torch.ones(places.shape[:3], dtype=torch.int, device=device)
            # With and without SAM's padding point: a <SEG> prompt comes without one.
            pad = bool(torch.rand(1, generator=generator) < 0.5)
            sparse = sam.prompt_encoder._embed_points(places, ones, pad=pad)
        for several in (False, True) if way == "point" else (False,):  # one point can mean several things
            logits, iou = sam.mask_decoder(
                image_embeddings=embedding,
                image_positional_embeddings=positions,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=several,
            )
            logits, iou = logits[:, 0].float(), iou[:, 0].float()
            target = masks.float()[:, None].expand_as(logits)
            flat, aims = logits.flatten(0, 1), target.flatten(0, 1)
            each = (2 * bce_loss(flat, aims) + dice_loss(flat, aims)).view(logits.shape[:2])
            with torch.no_grad():
                hit = ((logits > 0) & (target > 0.5)).sum((2, 3))
                measured = hit / ((logits > 0) | (target > 0.5)).sum((2, 3)).clamp(min=1)
            total = (
                total + each.min(dim=1).values.mean() * (0.25 if several else 1.0) + F.mse_loss(iou, measured)
            )
            if not several:
                ious.append(measured.mean())
    return total, float(torch.stack(ious).mean())


def train(
    sam: Any, pool: Pool, *, seconds: float, steps: int, batch: int, fresh: int, lr: float, device: Any
) -> dict[str, float]:
    """Train for ``seconds`` or ``steps``, whichever ends first."""
    generator = torch.Generator().manual_seed(0)
    concepts = Concepts(int(sam.config.prompt_encoder_config.hidden_size)).to(device)
    sam.to(device).train()
    optimizer = torch.optim.AdamW([*sam.parameters(), *concepts.parameters()], lr=lr, weight_decay=0.01)
    started, step = time.monotonic(), 0
    recent: list[float] = []
    bar = tqdm(total=round(seconds), unit="s", desc="sam")
    while step < steps and (spent := time.monotonic() - started) < seconds:
        pool.add(fresh)
        share = max(spent / seconds, step / steps)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, share / 0.05) * (1 - share) ** 0.9
        loss, iou = loss_of(sam, concepts, pool.draw(batch), generator)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimizer.step()
        recent = [*recent[-49:], iou]
        step += 1
        bar.n = min(round(spent), bar.total)
        bar.set_postfix(
            step=step, loss=f"{loss.item():.3f}", iou=f"{sum(recent) / len(recent):.3f}", scenes=pool.made
        )
    bar.close()
    return {
        "steps": step,
        "scenes": pool.made,
        "train_iou": sum(recent) / max(1, len(recent)),
        "loss": loss.item(),
    }
