"""Pretrain the tiny VLM on generated scenes: questions answered in words, and things pointed out.

Four losses, all but the first through heads that are thrown away:
- words: next-token prediction of the answers;
- pointing: after a query, the state of the last token picks the image tokens of the targets;
- boxes: the same state gives the box around the targets;
- patches: each patch of the vision tower knows its kind and colour, and where in it things begin.

Shapes: B scenes, P patches (576), S segments (one question or query each) of all scenes, T tokens.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from data import PADDING, Example, Pool, names_of, normalised
from torch import nn
from tqdm import tqdm

from modified_lisa.data.scenes.colours import COLOURS
from modified_lisa.data.scenes.kinds import KINDS

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
TRIGGERS = (" ASSISTANT", " segmentation mask", " segmentation", " mask", "")
"""What may stand behind a query; its last token's state points at the answer."""


@dataclass
class Packed:
    """Scenes as token rows: the image once, then every question on its own, blind to the others."""

    ids: torch.Tensor  # (B, T)
    labels: torch.Tensor  # (B, T), -100 where nothing is predicted
    segment: torch.Tensor  # (B, T): 0 for the image's part, s for segment s, -1 for padding
    positions: torch.Tensor  # (B, T)
    pointers: list[tuple[int, int, tuple[int, ...]]]  # (row, token, targets)


def pack(
    examples: list[Example], tokenizer: Any, generator: torch.Generator, *, questions: int, queries: int
) -> Packed:
    """Up to ``questions`` questions and ``queries`` queries of each scene behind one image."""
    image = tokenizer.convert_tokens_to_ids("<image>")
    begin = tokenizer.encode("USER: ") + [image] * 576
    rows, pointers = [], []
    for row, example in enumerate(examples):
        ids, labels, segment = list(begin), [-100] * len(begin), [0] * len(begin)
        positions = list(range(len(begin)))
        parts: list[tuple[list[int], list[int], tuple[int, ...] | None]] = []
        for index in torch.randperm(len(example.answers), generator=generator)[:questions]:
            question, answer = example.answers[int(index)]
            asked = tokenizer.encode(f"\n{question} ASSISTANT: ", add_special_tokens=False)
            parts.append(
                (
                    asked,
                    [*tokenizer.encode(f"{answer} ", add_special_tokens=False), tokenizer.eos_token_id],
                    None,
                )
            )
        for index in torch.randperm(len(example.queries), generator=generator)[:queries]:
            query, wanted = example.queries[int(index)]
            trigger = TRIGGERS[int(torch.randint(len(TRIGGERS), (1,), generator=generator))]
            parts.append((tokenizer.encode(f"\n{query}{trigger}", add_special_tokens=False), [], wanted))
        for number, (asked, answered, targets) in enumerate(parts, start=1):
            if targets is not None:
                pointers.append((row, len(ids) + len(asked) - 1, targets))
            positions += range(len(begin), len(begin) + len(asked) + len(answered))
            ids += asked + answered
            labels += [-100] * len(asked) + answered
            segment += [number] * (len(asked) + len(answered))
        rows.append((ids, labels, segment, positions))
    length = -(-max(len(row[0]) for row in rows) // 32) * 32
    filled = [
        torch.tensor([row[place] + [filler] * (length - len(row[place])) for row in rows])
        for place, filler in enumerate((tokenizer.pad_token_id, -100, -1, 0))
    ]
    return Packed(filled[0], filled[1], filled[2], filled[3], pointers)


class Heads(nn.Module):
    """The heads that are thrown away."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.pointer = nn.Linear(width, 128)
        self.place = nn.Linear(width, 128)
        self.bias = nn.Parameter(torch.tensor(-2.0))
        self.box = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4))
        self.kind = nn.Linear(vision_width, len(KINDS) + 1)
        self.colour = nn.Linear(vision_width, len(COLOURS) + 1)
        self.edges = nn.Linear(vision_width, 16)


def _patch_maps(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of the 24 x 24 patch centres (B, 576), and occupancy of 4 x 4 parts of each patch (B, 576, 16)."""
    centres = F.interpolate(labels[:, None].float(), (24, 24), mode="nearest-exact")[:, 0].long()
    occupied = ((labels > 0) & (labels < PADDING)).float()[:, None]
    fine = F.interpolate(occupied, (96, 96), mode="area")
    return centres.flatten(1), F.pixel_unshuffle(fine, 4).flatten(2).transpose(1, 2)


def loss_of(
    vlm: Any,
    heads: Heads,
    squares: torch.Tensor,
    labels: torch.Tensor,
    examples: list[Example],
    packed: Packed,
) -> dict[str, torch.Tensor]:
    """The four losses, and ``pointing_iou`` of the picked patches."""
    device = heads.bias.device
    inner = vlm.model
    states = inner.vision_tower(normalised(squares, MEAN, STD), output_hidden_states=True)
    features = [state[:, 1:] for state in states.hidden_states]
    ids, segment = packed.ids.to(device), packed.segment.to(device)
    embeds = inner.language_model.get_input_embeddings()(ids)
    is_image = ids == vlm.config.image_token_id
    embeds = embeds.masked_scatter(
        is_image[..., None], inner.multi_modal_projector(features[-2]).to(embeds.dtype)
    )
    order = torch.arange(ids.shape[1], device=device)
    seen = (segment[:, None, :] == 0) | (segment[:, None, :] == segment[:, :, None])
    mask = seen & (order[None, None, :] <= order[None, :, None])
    hidden = inner.language_model(
        inputs_embeds=embeds,
        attention_mask=mask[:, None],
        position_ids=packed.positions.to(device),
        use_cache=False,
    ).last_hidden_state
    losses: dict[str, torch.Tensor] = {}

    wanted = packed.labels.to(device)[:, 1:]
    spoken = wanted != -100
    losses["words"] = F.cross_entropy(vlm.lm_head(hidden[:, :-1][spoken]).float(), wanted[spoken])

    centres, occupancy = _patch_maps(labels)
    rows = torch.tensor([row for row, _, _ in packed.pointers], device=device)
    at = torch.tensor([token for _, token, _ in packed.pointers], device=device)
    chosen = torch.zeros(len(rows), PADDING + 1, dtype=torch.bool)
    for number, (_, _, targets) in enumerate(packed.pointers):
        chosen[number, [target + 1 for target in targets]] = True
    chosen = chosen.to(device)
    picked = chosen.gather(1, centres[rows])
    places = heads.place(hidden[is_image].view(len(examples), 576, -1))[rows]
    pointing = (heads.pointer(hidden[rows, at])[:, None] * places).sum(-1) / 128**0.5 + heads.bias
    pointing = pointing.float()
    share = pointing.sigmoid()
    dice = 1 - (2 * (share * picked).sum(1) + 1) / (share.sum(1) + picked.sum(1) + 1)
    losses["pointing"] = F.binary_cross_entropy_with_logits(pointing, picked.float()) * 4 + dice.mean()
    with torch.no_grad():
        found = pointing > 0
        losses["pointing_iou"] = ((found & picked).sum(1) / (found | picked).sum(1).clamp(min=1)).mean()

    masks = chosen.gather(1, labels.flatten(1)[rows]).view(-1, *labels.shape[1:])
    columns, lines = masks.any(1).float(), masks.any(2).float()
    side = labels.shape[-1]
    ends = (
        columns.argmax(1),
        lines.argmax(1),
        side - columns.flip(1).argmax(1),
        side - lines.flip(1).argmax(1),
    )
    losses["boxes"] = F.smooth_l1_loss(
        heads.box(hidden[rows, at]).float(), torch.stack(ends, -1).float() / side, beta=0.05
    )

    kinds, colours = names_of(examples, device)
    deep, shallow = features[-2], features[2]
    thing = centres > 0
    weight = torch.where(thing & (centres < PADDING), 1.0, 0.15).flatten()
    for name, head, table in (("kind", heads.kind, kinds), ("colour", heads.colour, colours)):
        each = F.cross_entropy(
            head(deep).flatten(0, 1).float(), table.gather(1, centres).flatten(), reduction="none"
        )
        losses[name] = (each * weight).sum() / weight.sum()
    losses["edges"] = F.binary_cross_entropy_with_logits(heads.edges(shallow).float(), occupancy)
    return losses


WEIGHTS = {"words": 1.0, "pointing": 1.5, "boxes": 2.0, "kind": 0.5, "colour": 0.5, "edges": 0.5}


def train(
    vlm: Any,
    tokenizer: Any,
    pool: Pool,
    *,
    seconds: float,
    steps: int,
    batch: int,
    fresh: int,
    lr: float,
    device: Any,
) -> dict[str, float]:
    """Train for ``seconds`` or ``steps``, whichever ends first; returns the last losses, smoothed."""
    generator = torch.Generator().manual_seed(0)
    heads = Heads(vlm.config.vision_config.hidden_size, vlm.config.text_config.hidden_size).to(device)
    vlm.to(device).train()
    parameters = [*vlm.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.02, betas=(0.9, 0.98))
    started, step = time.monotonic(), 0
    smooth: dict[str, float] = {}
    bar = tqdm(total=round(seconds), unit="s", desc="vlm")
    while step < steps and (spent := time.monotonic() - started) < seconds:
        pool.add(fresh)
        share = max(spent / seconds, step / steps)
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, share / 0.05) * (1 - share) ** 0.9
        squares, labels, examples = pool.draw(batch)
        packed = pack(examples, tokenizer, generator, questions=8, queries=8)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            losses = loss_of(vlm, heads, squares, labels, examples, packed)
        optimizer.zero_grad()
        sum(weight * losses[name] for name, weight in WEIGHTS.items()).backward()  # type: ignore[union-attr]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        if step % 10 == 0:
            for name, value in losses.items():
                smooth[name] = 0.9 * smooth.get(name, value.item()) + 0.1 * value.item()
            bar.n = min(round(spent), bar.total)
            bar.set_postfix(
                step=step, scenes=pool.made, **{name: f"{value:.3f}" for name, value in smooth.items()}
            )
        step += 1
    bar.close()
    return {"steps": step, "scenes": pool.made, **smooth}
