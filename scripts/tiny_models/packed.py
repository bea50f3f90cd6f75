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
        self._begin: dict[torch.device, torch.Tensor] = {}
        ids = processor.encode("x")
        self.begin = ids[: len(ids) - ids[::-1].index(processor.image_token_id)]
        sample = "Which of these could roll away?"
        if self.begin + self.encode(sample) != processor.encode(sample):
            raise SystemExit("the prompt of this model is not: image, line break, query, <SEG>")

    def encode(self, text: str) -> list[int]:
        tokenizer = self.processor.tokenizer
        return [*tokenizer.encode(f"\n{text}", add_special_tokens=False), self.processor.seg_token_id]

    def pack(
        self, words: list[Words], rng: np.random.Generator, queries: int, length: int = 0
    ) -> dict[str, Any]:
        """``queries`` of each scene, one after another in its row (`model.reading`): ids, groups and positions
        (B, R) of what stands behind the image; rows and places (N,) of each <SEG>; chosen, bool (N, labels);
        kinds and numbers (N,), the latter among the scene's queries. R is at least ``length``."""
        packed = []
        rows, places, targets, kinds, numbers = [], [], [], [], []
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
                numbers.append(number)
            packed.append((ids, groups, positions))
        longest = max(length, *(len(ids) for ids, _, _ in packed))
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
            "numbers": torch.tensor(numbers),
        }

    def prefix(self, count: int, device: torch.device) -> ModelInputs:
        """The prompt up to the end of the image, ``count`` times, without pixels."""
        if device not in self._begin:  # kept: a copy to the device could not be captured
            self._begin[device] = torch.tensor(self.begin, device=device)
        ids = self._begin[device].expand(count, -1)
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


def decode(
    model: ModifiedLISA,
    texts: Texts,
    squares: torch.Tensor,
    batch: dict[str, Any],
    *,
    sam_squares: torch.Tensor | None = None,
    learns_words: bool = False,
    half: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits float32 (N, 256, 256) and predicted IoU float32 (N,) of the queries; an image is encoded once for all of
    its own.

    Args:
        squares: uint8 (B, 3, S, S), of the VLM's encoder, or of SAM's where it is the only one.
        batch: of `Texts.pack`.
        sam_squares: of SAM's encoder, where both run.
        learns_words: the language model gets gradients, as `ModifiedLISA` trains it: the <SEG> row and LoRA, and
            through the image's tokens what makes them. Without, the <SEG> row keeps the embedding that the
            pretraining knows (`vlm.Learner`).
        half: the mask head's products are bf16.
    """
    processor, device = model.processor, squares.device
    given = squares if sam_squares is None else sam_squares
    vlm, sam = processor.vlm_image, processor.sam_image
    encoding = model.vision(
        None if vlm is None else normalised(squares, vlm.mean, vlm.std),
        None if sam is None else normalised(given, sam.mean, sam.std),
    )
    with torch.set_grad_enabled(learns_words and torch.is_grad_enabled()):
        hidden = _hidden(model, texts, encoding.tokens, batch)
        states = hidden[batch["rows"], batch["places"]].float()
    prompts = model.seg_projection(states)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
        logits, predicted = model.mask_head(encoding.embedding.index_select(0, batch["rows"]), prompts)
    return logits.float(), predicted.float()


def _hidden(model: ModifiedLISA, texts: Texts, tokens: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
    """Hidden states (B, R, Dl) of what stands behind the images."""
    image = model.embed(tokens, texts.prefix(len(tokens), tokens.device))
    words, groups = embed_words(model, batch["ids"]), batch["groups"]
    if model.frozen_prefix or not torch.is_grad_enabled():
        keys = run_prefix(model.language_model, image)
        return run_rest(
            model.language_model,
            words,
            keys,
            mask=block_mask(groups),
            positions=batch["positions"] + keys.length,
        )
    # In one go: the image's tokens need gradients too.
    length = image.shape[1]
    before = torch.arange(length, device=groups.device).expand(len(groups), -1)
    own = block_mask(torch.zeros_like(before))
    mask = torch.cat((torch.nn.functional.pad(own, (0, groups.shape[1])), block_mask(groups, length)), dim=2)
    return model.language_model(
        inputs_embeds=torch.cat((image, words), dim=1),
        attention_mask=mask,
        position_ids=torch.cat((before, batch["positions"] + length), dim=1),
        use_cache=False,
    ).last_hidden_state[:, length:]


def losses_of(
    model: ModifiedLISA,
    texts: Texts,
    squares: torch.Tensor,
    labels: torch.Tensor,
    batch: dict[str, Any],
    **how: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of each query, its measured IoU on the grid and the predicted one, (N,) each.

    Args:
        labels: int64 (B, 256, 256), as in `data.Example`.
        how: of `decode`.
    """
    logits, predicted = decode(model, texts, squares, batch, **how)
    target, valid = targets_of(labels, batch)
    losses = segmentation_loss(logits, target.float(), valid.float())
    with torch.no_grad():
        found = (logits > 0) & valid
        union = (found | target).sum((1, 2))
        measured = torch.where(union > 0, (found & target).sum((1, 2)) / union.clamp(min=1), 1.0)
    # BCE is a mean over the whole square, of which the targets are a twentieth.
    loss = losses["loss"] + 3 * losses["bce"] + iou_prediction_loss(predicted, measured)
    return loss, measured, predicted.detach()


def targets_of(labels: torch.Tensor, batch: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """What answers each query, and what counts (all but the padding): bool (N, 256, 256) each."""
    seen = labels[batch["rows"]]
    return batch["chosen"].gather(1, seen.flatten(1)).view_as(seen), seen != PADDING
