"""Several queries about each scene, packed behind one reading of its image, and what the answers cost.

Shapes: B scenes, R tokens behind an image, N queries in all.
"""

from typing import Any

import numpy as np
import torch
from data import PADDING, Words, chosen_labels, normalised

from modified_lisa.losses import iou_prediction_loss, segmentation_loss
from modified_lisa.model.inputs import ModelInputs
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.model.prefix import block_mask, run_prefix, run_rest
from modified_lisa.model.processor import LisaProcessor
from modified_lisa.model.reading import embed_words


class Texts:
    """Prompts as `LisaProcessor.encode` makes them, from the ids of what stands behind the image."""

    def __init__(self, processor: LisaProcessor) -> None:
        self.processor = processor
        ids = processor.encode("x")
        self.begin = ids[: len(ids) - ids[::-1].index(processor.image_token_id)]
        sample = "Which of these could roll away?"
        if self.begin + self.encode(sample) != processor.encode(sample):
            raise SystemExit("the prompt of this model is not: image, line break, query, <SEG>")

    def encode(self, text: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        return [*tokenizer.encode(f"\n{text}", add_special_tokens=False), self.processor.seg_token_id]

    def pack(self, words: list[Words], rng: np.random.Generator, queries: int) -> dict[str, Any]:
        """``queries`` of each scene, one after another in its row (`model.reading`): ids, groups and positions
        (B, R) of what stands behind the image; rows and places (N,) of each <SEG>; chosen, bool (N, labels);
        kinds (N,)."""
        packed = []
        rows, places, targets, kinds = [], [], [], []
        for row, scene in enumerate(words):
            ids: list[int] = []
            groups: list[int] = []
            positions: list[int] = []
            for number in rng.permutation(len(scene.queries))[:queries].tolist():
                wordings, answer, kind = scene.queries[number]
                part = wordings[int(rng.integers(len(wordings)))]
                ids += part
                groups += [number] * len(part)
                positions += range(len(part))
                rows.append(row)
                places.append(len(ids) - 1)
                targets.append(answer)
                kinds.append(kind)
            packed.append((ids, groups, positions))
        longest = max(len(ids) for ids, _, _ in packed)
        table = np.zeros((3, len(words), longest), np.int64)
        table[1] = -1
        for row, lists in enumerate(packed):
            for number, values in enumerate(lists):
                table[number, row, : len(values)] = values
        ids_, groups_, positions_ = torch.from_numpy(table)
        return {
            "ids": ids_,
            "groups": groups_,
            "positions": positions_,
            "rows": torch.tensor(rows),
            "places": torch.tensor(places),
            "chosen": torch.from_numpy(chosen_labels(targets)),
            "kinds": torch.tensor(kinds),
        }

    def prefix(self, count: int, device: torch.device) -> ModelInputs:
        """The prompt up to the end of the image, ``count`` times, without pixels."""
        ids = torch.tensor(self.begin, device=device).expand(count, -1)
        end = len(self.begin)
        return ModelInputs(
            frames=[],
            input_ids=ids,
            image_place=slice(end - self.processor.image_tokens, end),
            is_seg=torch.zeros_like(ids, dtype=torch.bool),
            segs=ids.new_zeros((2, 0)),
            seg_counts=[0] * count,
            first_seg=end,
            vlm_pixels=None,
            sam_pixels=None,
        )


def losses_of(
    model: ModifiedLISA, texts: Texts, squares: torch.Tensor, labels: torch.Tensor, batch: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of each query, its measured IoU on the grid and the predicted one, (N,) each.

    An image is encoded once for all its queries, and the language model runs without a gradient: the <SEG> row
    keeps the embedding that the pretraining knows (`vlm.Learner`).
    """
    processor = model.processor
    spec = processor.vlm_image or processor.sam_image
    assert spec is not None
    pixels = normalised(squares, spec.mean, spec.std)
    encoding = model.vision(pixels if processor.vlm_image else None, pixels if processor.sam_image else None)
    with torch.no_grad():
        keys = run_prefix(
            model.language_model, model.embed(encoding.tokens, texts.prefix(len(squares), squares.device))
        )
        hidden = run_rest(
            model.language_model,
            embed_words(model, batch["ids"]),
            keys,
            mask=block_mask(batch["groups"], keys.length),
            positions=batch["positions"] + keys.length,
        )
        states = hidden[batch["rows"], batch["places"]].float()
    prompts = model.seg_projection(states)
    # A processor without a GPU may still have products in bf16, and the head takes most of the time there.
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=squares.device.type == "cpu"):
        logits, predicted = model.mask_head(encoding.embedding[batch["rows"]], prompts)
    logits, predicted = logits.float(), predicted.float()
    seen = labels[batch["rows"]]
    target = batch["chosen"].gather(1, seen.flatten(1)).view_as(seen)
    valid = seen != PADDING
    losses = segmentation_loss(logits, target.float(), valid.float())
    with torch.no_grad():
        found = (logits > 0) & valid
        union = (found | target).sum((1, 2))
        measured = torch.where(union > 0, (found & target).sum((1, 2)) / union.clamp(min=1), 1.0)
    # BCE is a mean over the whole square, of which the targets are a twentieth.
    loss = losses["loss"] + 3 * losses["bce"] + iou_prediction_loss(predicted, measured)
    return loss, measured, predicted.detach()
