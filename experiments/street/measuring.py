"""How well the street model answers: by kind, by wording, and how much it loses on wordings it was not trained on."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from photos import Photos
from tqdm import tqdm

from modified_lisa.geometry import Frame
from modified_lisa.metrics import SegmentationMetrics
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.model.reading import answer, read_image

__all__ = ["by_wording", "text_only"]


def by_wording(
    model: ModifiedLISA, photos: Photos, asked: Mapping[str, Sequence[str]], unseen: set[str]
) -> dict[str, Any]:
    """Every wording of a sample's kind asked about it.

    Args:
        asked: {kind: its wordings}; ``unseen``: those that were not trained on.

    Returns mIoU of all seen and unseen wordings, averaged within a sample first, so that both are means over the
    same samples; the loss between them in points; mIoU by kind and by wording.
    """
    height, width = photos.pixels.shape[-2:]
    frame = Frame(height, width)
    wording_scores: dict[str, list[float]] = defaultdict(list)
    kind_scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for index in tqdm(range(len(photos)), "every wording", mininterval=5):
        kind = photos.kinds[index]
        texts = list(asked[kind])
        image = photos.pixels[photos.photo[index]].permute(1, 2, 0).cpu().numpy()
        state = read_image(model, model.processor.prefix(image).to(model.device))
        logits, _ = answer(model, state, model.processor.queries(texts).to(model.device))
        masks = (frame.mask_to_image(logits) > 0).cpu()
        metrics = SegmentationMetrics()
        label = photos.labels[index].cpu()
        metrics.update(masks, label.expand_as(masks))
        found = {text: score.iou for text, score in zip(texts, metrics.scores, strict=True)}
        for text, iou in found.items():
            wording_scores[text].append(iou)
        for name, members in (("seen", set(texts) - unseen), ("unseen", set(texts) & unseen)):
            if members:
                kind_scores[kind][name].append(float(np.mean([found[text] for text in members])))
    both = {
        name: round(float(np.mean([iou for scores in kind_scores.values() for iou in scores[name]])), 4)
        for name in ("seen", "unseen")
        if any(scores[name] for scores in kind_scores.values())
    }
    lost = {"lost_points": round(100 * (both["seen"] - both["unseen"]), 2)} if len(both) == 2 else {}
    return {
        "mIoU": {**both, **lost},
        "kinds": {
            kind: {
                "samples": len(scores["seen"]),
                **{name: round(float(np.mean(values)), 4) for name, values in scores.items() if values},
            }
            for kind, scores in sorted(kind_scores.items())
        },
        "wordings": {
            text: {"mIoU": round(float(np.mean(values)), 4), "unseen": text in unseen}
            for text, values in sorted(wording_scores.items())
        },
    }


@torch.no_grad()
def text_only(
    model: ModifiedLISA,
    train: Photos,
    val: Photos,
    trained: Mapping[str, Sequence[str]],
    asked: Mapping[str, Sequence[str]],
    unseen: set[str],
) -> dict[str, Any]:
    """A baseline that never sees the image: the nearest kind by the language model's states, and its mean mask.

    A wording is the mean of the frozen language model's last hidden states over its words; the nearest of the
    kinds' means (cosine) is its kind. The mask is the mean of the kind's training masks, cut where that is best on
    the training set. Call it before training.
    """

    def embed(texts: list[str]) -> list[torch.Tensor]:
        rows = [
            torch.tensor(model.processor.tokenizer.encode(text, add_special_tokens=False)) for text in texts
        ]
        # Padding stands on the right, where a causal model never looks.
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(model.device)
        states = model.language_model(input_ids=ids).last_hidden_state.float()
        return [state[: len(row)].mean(dim=0) for state, row in zip(states, rows, strict=True)]

    kinds = sorted(trained)
    every = sorted({text for group in (trained, asked) for texts in group.values() for text in texts})
    points: dict[str, torch.Tensor] = {}
    for first in tqdm(range(0, len(every), 64), "text alone", mininterval=5):
        batch = every[first : first + 64]
        points.update(zip(batch, embed(batch), strict=True))
    middle = torch.stack([points[text] for texts in trained.values() for text in texts]).mean(dim=0)
    centres = torch.stack(
        [torch.stack([points[t] - middle for t in trained[kind]]).mean(dim=0) for kind in kinds]
    )
    centres = torch.nn.functional.normalize(centres, dim=1)

    def guess(text: str) -> str:
        return kinds[int((centres @ (points[text] - middle)).argmax())]

    masks = {kind: _mean_mask(train, kind) for kind in kinds}
    right: dict[str, list[bool]] = defaultdict(list)
    for kind, texts in asked.items():
        for text in texts:
            right["unseen" if text in unseen else "seen"].append(guess(text) == kind)
    scores: dict[str, list[float]] = defaultdict(list)
    for index in range(len(val)):
        label = val.labels[index]
        for text in asked[val.kinds[index]]:
            mask = masks[guess(text)] & (label != 255)
            truth = label == 1
            union = int((mask | truth).sum())
            scores["unseen" if text in unseen else "seen"].append(int((mask & truth).sum()) / max(union, 1))
    return {
        "kind_accuracy": {name: round(float(np.mean(values)), 4) for name, values in right.items()},
        "mIoU": {name: round(float(np.mean(values)), 4) for name, values in scores.items()},
    }


def _mean_mask(photos: Photos, kind: str) -> torch.Tensor:
    """bool (H, W)."""
    rows = [index for index, name in enumerate(photos.kinds) if name == kind]
    truths = photos.labels[rows] == 1
    mean = truths.float().mean(dim=0)

    def quality(share: float) -> float:
        mask = mean > share
        union = (truths | mask).sum(dim=(1, 2))
        return float(((truths & mask).sum(dim=(1, 2)) / union.clamp(min=1)).mean())

    return mean > max((share / 20 for share in range(1, 20)), key=quality)
