"""Pretrain the tiny SAM: masks from points, boxes, and concepts, on generated scenes."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from data import NAMES, PADDING, Words, chosen_labels, normalised
from optimizers import make_optimizer, rate_at
from ring import Ahead, Ring
from torch import nn

from modified_lisa.losses import bce_loss, dice_loss

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WAYS = ("place", "box", "concept")
BACKGROUND, EMPTY = 0.06, 0.06
"""Shares of the prompts that mean all that is no object, and nothing."""


class Concepts(nn.Module):
    """Kinds and colours, as prompts and as something to know. Thrown away after pretraining.

    A prompt can mean a look rather than a place: the mean embedding of the things that have it, projected. It
    teaches the decoder that one prompt can mean several regions, or none, which is what a language model will
    ask of it. And each cell of the embedding has to know its kind, colour and pattern (`cells`).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.project = nn.ModuleList(
            nn.Sequential(nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels))
            for _ in range(2)
        )
        self.cells = nn.ModuleDict(
            {name: nn.Conv2d(channels, len(table) + 1, 1) for name, table in NAMES.items()}
        )

    def forward(self, embedding: torch.Tensor, mask: torch.Tensor, which: int) -> torch.Tensor:
        """(B, C, 64, 64) and a float mask (B, 256, 256) of the example -> (B, 1, 1, C)."""
        share = F.avg_pool2d(mask[:, None], 4)
        mean = (embedding * share).sum((2, 3)) / share.sum((2, 3)).clamp(min=1e-3)
        prompt: torch.Tensor = self.project[which](mean)
        return prompt[:, None, None]


def choose(words: list[Words], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """What is prompted for: ``chosen_place``, ``chosen_concept``, bool (B, N) over labels, ``seed_place``,
    ``seed_concept``, int64 (B,), the label that stands for it; ``look``, 0 for kinds and 1 for colours; ``names``.

    The seed of a concept may be of another scene of the batch (that of the row before), so that the answer
    may be nothing.
    """
    look = int(rng.integers(2))
    names = np.stack([scene.names for scene in words])
    places: list[list[int]] = []
    seeds, concepts, foreign = [], [], []
    counts = [int((scene.names[0] > 0).sum()) for scene in words]
    for row, count in enumerate(counts):
        seed = int(rng.integers(count))
        places.append(sorted({seed, int(rng.integers(count))} if rng.random() < 0.2 else {seed}))
        seeds.append(seed + 1)
        other = rng.random() < EMPTY and row > 0
        foreign.append(other)
        looks = names[row, look]
        wanted = names[row - 1, look, seeds[row - 1]] if other else looks[seed + 1]
        concepts.append([number - 1 for number in range(1, count + 1) if looks[number] == wanted])
    chosen = chosen_labels(places)
    whole = rng.random(len(words)) < BACKGROUND
    chosen[whole] = False
    chosen[whole, 0] = True
    return {
        "chosen_place": torch.from_numpy(chosen),
        "chosen_concept": torch.from_numpy(chosen_labels(concepts)),
        "seed": torch.tensor(seeds),
        "foreign": torch.tensor(foreign),
        "look": torch.tensor(look),
        "points": torch.tensor(1 if rng.random() < 0.5 else 5),
        "pad": torch.tensor(bool(rng.random() < 0.5)),
        "names": torch.from_numpy(names),
    }


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


class Learner(nn.Module):
    """The SAM with its concepts, and the loss of a batch."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        sam.mask_decoder.config._attn_implementation = "eager"  # as `MaskHead` does, and why
        self.sam = sam
        self.concepts = Concepts(int(sam.config.prompt_encoder_config.hidden_size))

    def forward(
        self,
        squares: torch.Tensor,
        labels: torch.Tensor,
        batch: dict[str, torch.Tensor],
        several: bool = True,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """The loss, and the IoU of each mask by way, (B,)."""
        sam, size = self.sam, len(squares)
        # Only the encoder in bf16: the positions of points and cells need more digits than it has.
        with torch.autocast(squares.device.type, dtype=torch.bfloat16):
            embedding = sam.vision_encoder(normalised(squares, MEAN, STD)).last_hidden_state
        embedding = embedding.float()
        positions = sam.get_image_wide_positional_embeddings().expand(size, -1, -1, -1)
        dense = sam.prompt_encoder(None, None, None, None)[1].expand(size, -1, -1, -1)
        total = torch.zeros((), device=squares.device)
        ious: dict[str, torch.Tensor] = {}
        centres = labels[:, 2::4, 2::4]
        for row, head in enumerate(self.concepts.cells.values()):
            named = batch["names"][:, row].gather(1, centres.flatten(1)).view_as(centres)
            each = F.cross_entropy(head(embedding), named, reduction="none")
            weight = torch.where(named > 0, 1.0, 0.15)
            total = total + 0.4 * (each * weight).sum() / weight.sum()
        valid = (labels != PADDING).float()
        for way in WAYS:
            masks = (
                batch["chosen_concept" if way == "concept" else "chosen_place"]
                .gather(1, labels.flatten(1))
                .view_as(labels)
            )
            if way == "concept":
                of_seed = (labels == batch["seed"][:, None, None]).float()
                sparse = self.concepts(embedding, of_seed, int(batch["look"]))
                sparse = torch.where(batch["foreign"][:, None, None, None], sparse.roll(1, 0), sparse)
            elif way == "box":
                sparse = sam.prompt_encoder(None, None, _boxes(masks), None)[0]
            else:
                places = _points(masks, int(batch["points"]))
                ones = torch.ones(places.shape[:3], dtype=torch.int, device=places.device)
                # With and without SAM's padding point: a <SEG> prompt comes without one.
                sparse = sam.prompt_encoder._embed_points(places, ones, pad=bool(batch["pad"]))
            target = masks.float()
            for many in (False, True) if way == "place" and several and batch["points"] == 1 else (False,):
                logits, iou = sam.mask_decoder(
                    image_embeddings=embedding,
                    image_positional_embeddings=positions,
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=many,
                )
                logits, iou = logits[:, 0].float(), iou[:, 0].float()
                aims = target[:, None].expand_as(logits)
                weights = valid[:, None].expand_as(logits).flatten(0, 1)
                flat, wanted = logits.flatten(0, 1), aims.flatten(0, 1)
                each = (4 * bce_loss(flat, wanted, weights) + dice_loss(flat, wanted, weights)).view(
                    logits.shape[:2]
                )
                with torch.no_grad():
                    found = (logits > 0) & (valid[:, None] > 0)
                    union = (found | (aims > 0.5)).sum((2, 3))
                    measured = torch.where(
                        union > 0, (found & (aims > 0.5)).sum((2, 3)) / union.clamp(min=1), 1.0
                    )
                # One point can mean several things: the best of three masks counts.
                total = (
                    total + each.min(dim=1).values.mean() * (0.3 if many else 1.0) + F.mse_loss(iou, measured)
                )
                if not many:
                    ious[way] = measured[:, 0]
        return total, ious


@torch.no_grad()
def validate(learner: Learner, ring: Ring, batch: int) -> dict[str, float]:
    """Mean IoU of the masks of the val scenes, by the way they were asked for."""
    learner.eval()
    rng = np.random.default_rng(0)
    found: dict[str, list[torch.Tensor]] = {way: [] for way in WAYS}
    for first in range(0, len(ring.val_words), batch):
        words = ring.val_words[first : first + batch]
        chosen = {key: value.to(ring.device) for key, value in choose(words, rng).items()}
        _, ious = learner(*ring.val_pixels(first, first + len(words)), chosen, several=False)
        for way, values in ious.items():
            found[way].append(values.cpu())
    learner.train()
    return {f"val_mIoU_{way}": round(float(torch.cat(values).mean()), 4) for way, values in found.items()}


def train(
    sam: Any,
    ring: Ring,
    *,
    until: float,
    batch: int,
    lr: float,
    seed: int,
    compiled: bool,
    save: Callable[[], None],
    save_every: float,
) -> dict[str, Any]:
    """Train until the clock (`time.monotonic`) says ``until``; returns what was reached."""
    device = ring.device
    learner = Learner(sam).to(device).train()
    if compiled:
        learner.sam.vision_encoder.forward = torch.compile(learner.sam.vision_encoder.forward, dynamic=False)
    optimizer = make_optimizer([learner], lr, device)
    rng = np.random.default_rng([seed, 2])

    def prepare() -> dict[str, torch.Tensor]:
        places, words = ring.draw(rng, batch)
        return {"places": torch.from_numpy(places), **choose(words, rng)}

    ahead = Ahead(prepare, device)
    began = told = saved = time.monotonic()
    step = 0
    while (now := time.monotonic()) < until:
        share = (now - began) / (until - began)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(share, lr)
        chosen = ahead.next()
        loss, ious = learner(*ring.pixels(chosen["places"]), chosen)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        optimizer.step()
        step += 1
        if now - told > 10 or step == 1:
            ring.check()
            shown = {way: round(float(values.mean()), 3) for way, values in ious.items()}
            print(
                f"sam {now - began:5.0f} s  step {step}  {step / (time.monotonic() - began):.2f} steps/s x {batch} scenes"
                f"  rendered {ring.made} ({ring.rate:.0f}/s)  loss {loss.item():.3f}  IoU {shown}",
                flush=True,
            )
            told = time.monotonic()
        if now - saved > save_every:
            print(f"sam {now - began:5.0f} s  {validate(learner, ring, batch)}", flush=True)
            save()
            saved = time.monotonic()
    spent = time.monotonic() - began
    result = {
        "steps": step,
        "scenes": ring.made,
        "steps_per_s": round(step / spent, 2),
        "rendered_per_s": round(ring.rate),
    }
    return {**result, **validate(learner, ring, batch)}
