"""Pretrain the tiny VLM on generated scenes, end to end: all its weights learn to answer and to point.

Losses, all but the first through heads that are thrown away:
- words: next-token prediction of the answers to questions;
- masks: the state behind a query, seen through a projection, picks the cells that answer it from what a
  bridge makes of the vision tower's layers. Both heads have the shapes that `ModifiedLISA` will train, and the
  token behind the query has the embedding that its <SEG> starts from, so that the frozen VLM has learned
  to say there which objects are meant;
- objects: the mean logit over the cells of each object says whether it is among them;
- nothing: the same state knows whether anything is meant at all;
- patches: each patch of the vision tower knows kind, colour and pattern of its object, how large that is and where
  it ends, and where in the patch things begin.

Shapes: B scenes, P patches (576), Q queries of a scene, T tokens, N = PADDING + 1 labels.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captured import Captured
from data import PADDING, normalised, patch_boxes
from embedding import WordEmbedding
from heads import CHANNELS, Heads
from optimizers import make_optimizers, rate_at
from packer import MOST_QUERIES, SEG, Packer, image_place
from ring import Ahead, Ring
from torch import nn

from modified_lisa.data.scenes import QUERY_KINDS
from modified_lisa.model.bridge import default_layers

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
WEIGHTS = {
    "words": 0.7,
    "masks": 2.0,
    "objects": 1.5,
    "nothing": 0.3,
    "kind": 0.4,
    "colour": 0.3,
    "texture": 0.2,
    "boxes": 1.0,
    "edges": 0.4,
}


def seg_ids(tokenizer: Any) -> list[int]:
    """The tokens whose mean embedding `ModifiedLISA` gives to <SEG> (`tokens.initial_seg_row`)."""
    return [int(number) for number in tokenizer.encode("segmentation mask", add_special_tokens=False)]


class Learner(nn.Module):
    """The VLM with its heads, and the losses of a batch."""

    def __init__(
        self,
        vlm: Any,
        tokenizer: Any,
        vectors: torch.Tensor | None = None,
        drop_own: float = 0.0,
        *,
        trained: bool = False,
    ) -> None:
        """``vectors``: of the tokenizer's words, see `embedding.WordEmbedding`, and ``drop_own`` too. ``trained``: go on with
        the VLM's own embeddings, seen as such."""
        super().__init__()
        self.vlm = vlm
        table = vlm.get_input_embeddings()
        self.words: nn.Module = table
        if vectors is not None:
            rows, width = table.weight.shape
            self.words = words = WordEmbedding(vectors, width, rows=rows, drop=drop_own)
            if trained:
                words.take(table.weight.float())
        vision, text = vlm.config.vision_config, vlm.config.text_config
        deepest = vision.num_hidden_layers - 1
        self.layers = default_layers("pyramid", deepest)
        self.heads = Heads(vision.hidden_size, text.hidden_size, len(self.layers))
        self.place = image_place(tokenizer)
        self.register_buffer("seg", torch.tensor(seg_ids(tokenizer)), persistent=False)

    def layers_of_the_vlm(self) -> list[nn.Module]:
        """The transformer layers of the vision tower and of the language model."""
        inner = self.vlm.model
        return [*inner.vision_tower.encoder.layers, *inner.language_model.layers]

    @torch.no_grad()
    def settle(self) -> None:
        """Write what the words' embeddings have become into the VLM."""
        if isinstance(self.words, WordEmbedding):
            self.vlm.get_input_embeddings().weight.copy_(self.words.table())

    def forward(self, pixels: torch.Tensor, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Logits of the words (B, MOST_WORDS, vocabulary), masks (B, Q, GRID, GRID), nothing (B, Q), features of
        layers. Nothing in it depends on the values of the batch, so that it can be captured."""
        inner = self.vlm.model
        states = inner.vision_tower(pixels, output_hidden_states=True).hidden_states
        features = [state[:, 1:] for state in states]
        ids, segment = batch["ids"], batch["segment"]
        embeds = self.words(ids.clamp(min=0))
        embeds = torch.where((ids == SEG)[..., None], self.words(self.seg).mean(0), embeds)
        image = inner.multi_modal_projector(features[-2]).to(embeds.dtype)
        embeds = torch.cat([embeds[:, : self.place.start], image, embeds[:, self.place.stop :]], dim=1)
        order = torch.arange(ids.shape[1], device=ids.device)
        seen = (segment[:, None, :] == 0) | (segment[:, None, :] == segment[:, :, None])
        mask = seen & (order[None, None, :] <= order[None, :, None])
        hidden = inner.language_model(
            inputs_embeds=embeds,
            attention_mask=mask[:, None],
            position_ids=batch["positions"],
            use_cache=False,
        ).last_hidden_state
        words = self.vlm.lm_head(_at(hidden, batch["said"] - 1))
        ends = _at(hidden, batch["at"])
        cells = self.heads.bridge([features[layer] for layer in self.layers])
        masks = (
            torch.einsum("bqc,bchw->bqhw", self.heads.projection(ends).to(cells.dtype), cells) / CHANNELS**0.5
        )
        return words, masks + self.heads.bias, self.heads.nothing(ends)[..., 0], features[-2], features[2]

    def losses(
        self, squares: torch.Tensor, labels: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The losses by name, and the IoU of each query (B, Q), 1 for nothing where nothing is right."""
        with torch.autocast(squares.device.type, dtype=torch.bfloat16, cache_enabled=False):
            words, masks, nothing, deep, shallow = self(normalised(squares, MEAN, STD), batch)
        losses: dict[str, torch.Tensor] = {}
        wanted = batch["ids"].gather(1, batch["said"]).masked_fill(batch["said"] == 0, -100)
        told = F.cross_entropy(
            words.flatten(0, 1).float(), wanted.flatten(), ignore_index=-100, reduction="sum"
        )
        losses["words"] = told / (wanted != -100).sum().clamp(min=1)

        asked = batch["at"] >= 0
        cells = labels[:, 2::4, 2::4].flatten(1)
        inside = (cells != PADDING)[:, None].expand(-1, MOST_QUERIES, -1)
        target = batch["chosen"].gather(2, cells[:, None].expand(-1, MOST_QUERIES, -1))
        logits = masks.flatten(2).float()
        each = F.binary_cross_entropy_with_logits(logits, target.float(), reduction="none")
        bce = (each * inside).sum(2) / inside.sum(2)
        share = logits.sigmoid() * inside
        expected, given = target.sum(2), share.sum(2)
        smooth = 40.0 - 39.0 * (expected > 0)
        dice = 1 - (2 * (share * target).sum(2) + smooth) / (given + expected + smooth)
        losses["masks"] = ((4 * bce + dice) * asked).sum() / asked.sum()
        # Small things and large ones count alike, and what is no thing does not.
        is_cell = F.one_hot(cells, PADDING + 1).float()
        sizes = is_cell.sum(1)
        pooled = torch.einsum("bqp,bpn->bqn", logits, is_cell) / sizes.clamp(min=1)[:, None]
        things = ((sizes > 0)[:, None] & asked[..., None])[..., 1:PADDING]
        right = F.binary_cross_entropy_with_logits(
            pooled[..., 1:PADDING], batch["chosen"][..., 1:PADDING].float(), reduction="none"
        )
        losses["objects"] = (right * things).sum() / things.sum()
        empty = ~batch["chosen"].any(2)
        blank = F.binary_cross_entropy_with_logits(nothing.float(), empty.float(), reduction="none")
        losses["nothing"] = (blank * asked).sum() / asked.sum()
        with torch.no_grad():
            found = (logits > 0) & inside
            union = (found | target).sum(2)
            iou = ((found & target).sum(2) / union.clamp(min=1)).masked_fill(union == 0, 1.0)

        centres = (
            F.interpolate(labels[:, None].float(), (24, 24), mode="nearest-exact")[:, 0].long().flatten(1)
        )
        weight = 0.15 + 0.85 * ((centres > 0) & (centres < PADDING)).flatten()
        for row, (name, head) in enumerate(self.heads.patches.items()):
            named = batch["names"][:, row].gather(1, centres).flatten()
            loss = F.cross_entropy(head(deep).flatten(0, 1).float(), named, reduction="none")
            losses[name] = (loss * weight).sum() / weight.sum()
        occupied = ((labels > 0) & (labels < PADDING)).float()[:, None]
        fine = F.pixel_unshuffle(F.interpolate(occupied, (96, 96), mode="area"), 4).flatten(2).transpose(1, 2)
        boxes, visible = patch_boxes(labels[:, 1::2, 1::2], centres)
        off = F.smooth_l1_loss(self.heads.boxes(deep).float(), boxes, beta=0.1, reduction="none").mean(2)
        losses["boxes"] = (off * visible).sum() / visible.sum().clamp(min=1)
        losses["edges"] = F.binary_cross_entropy_with_logits(self.heads.edges(shallow).float(), fine)
        return losses, iou


def _at(hidden: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """(B, T, C) and (B, K) -> (B, K, C); a place below 0 counts as 0."""
    return hidden.gather(1, places.clamp(min=0)[..., None].expand(-1, -1, hidden.shape[-1]))


def validate(learner: Learner, ring: Ring, packer: Packer, batch: int) -> dict[str, Any]:
    """Means over the val scenes: losses, IoU on the grid of all queries and by kind, how often nothing is right.

    With gradients, as nothing depends on the mode: for another one, all layers would be compiled again.
    """
    rng = np.random.default_rng(0)
    sums: dict[str, list[float]] = {}
    ious, kinds = [], []
    for first in range(0, len(ring.val_words), batch):
        words = ring.val_words[first : first + batch]
        packed = {key: value.to(ring.device) for key, value in packer.pack(words, rng).items()}
        losses, iou = learner.losses(*ring.val_pixels(first, first + len(words)), packed)
        for name, value in losses.items():
            sums.setdefault(name, []).append(float(value.detach()))
        asked = packed["at"] >= 0
        ious.append(iou[asked].cpu())
        kinds.append(packed["kinds"][asked].cpu())
    iou, kind = torch.cat(ious), torch.cat(kinds)
    by_kind = {
        name: round(float(iou[kind == row].mean()), 3)
        for row, name in enumerate(QUERY_KINDS)
        if (kind == row).any()
    }
    return {
        "val_mIoU_on_the_grid": round(float(iou.mean()), 4),
        **{f"val_{name}": round(sum(values) / len(values), 4) for name, values in sums.items()},
        "by_kind": by_kind,
    }


def train(
    learner: Learner,
    tokenizer: Any,
    ring: Ring,
    *,
    until: float,
    batch: int,
    text_tokens: int,
    lr: float,
    muon_lr: float,
    hold: float,
    drop_words: float,
    seed: int,
    compiled: bool,
    captured: bool,
    save: Callable[[], None],
    save_every: float,
) -> dict[str, Any]:
    """Train until the clock (`time.monotonic`) says ``until``; returns what was reached."""
    device = ring.device
    packer, whole = Packer(tokenizer, text_tokens, drop_words=drop_words), Packer(tokenizer, text_tokens)
    learner.to(device).train()
    if compiled:
        # Layers alone: one is compiled for all of its kind. Not their calls, which carry transformers' hooks.
        for layer in learner.layers_of_the_vlm():
            layer.forward = torch.compile(layer.forward, dynamic=False)
    optimizers = make_optimizers(learner, learner.layers_of_the_vlm(), lr, muon_lr, device)
    rng = np.random.default_rng([seed, 1])

    def prepare() -> dict[str, torch.Tensor]:
        places, words = ring.draw(rng, batch)
        return {"places": torch.from_numpy(places), **packer.pack(words, rng)}

    def gradients(packed: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        losses, iou = learner.losses(packed["squares"], packed["map"], packed)
        learner.zero_grad(set_to_none=True)
        sum(WEIGHTS[name] * loss for name, loss in losses.items()).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(learner.parameters(), 1.0)
        return {name: loss.detach() for name, loss in losses.items()}, iou

    ahead = Ahead(prepare, device)
    call: Callable[[dict[str, torch.Tensor]], tuple[dict[str, torch.Tensor], torch.Tensor]] = gradients
    if captured:
        first = ahead.next()
        first["squares"], first["map"] = ring.pixels(first.pop("places"))
        call = Captured(gradients, first)
    began = told = saved = time.monotonic()
    step, smooth = 0, {}
    while (now := time.monotonic()) < until:
        share = (now - began) / (until - began)
        for optimizer, peak in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(share, peak, hold=hold)
        packed = ahead.next()
        packed["squares"], packed["map"] = ring.pixels(packed.pop("places"))
        losses, iou = call(packed)
        for optimizer, _ in optimizers:
            optimizer.step()
        step += 1
        if now - told > 10 or step == 1:
            ring.check()
            asked = packed["at"] >= 0
            smooth = {name: round(loss.item(), 3) for name, loss in losses.items()}
            print(
                f"vlm {now - began:5.0f} s  step {step}  {step / (time.monotonic() - began):.2f} steps/s x {batch} scenes,"
                f" {int(asked.sum()) / batch:.1f} queries each  rendered {ring.made} ({ring.rate:.0f}/s)"
                f"  IoU {float(iou[asked].mean()):.3f}  {smooth}",
                flush=True,
            )
            told = time.monotonic()
        if now - saved > save_every:
            print(f"vlm {now - began:5.0f} s  val {validate(learner, ring, whole, batch)}", flush=True)
            save()
            saved = time.monotonic()
    spent = time.monotonic() - began
    result = {
        "steps": step,
        "scenes": ring.made,
        "steps_per_s": round(step / spent, 2),
        "rendered_per_s": round(ring.rate),
    }
    return {**result, **validate(learner, ring, whole, batch)}
