"""One forward pass over dialogues whose answers are known: masks, and how well each word was foreseen."""

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from modified_lisa.model.answers.prompting import UNLABELLED, AnswerInputs

if TYPE_CHECKING:
    from modified_lisa.model.lisa import ModifiedLISA

__all__ = ["Taught", "teach"]


class Taught(NamedTuple):
    """What one batch gave; N masks in all, of answers that have a ``<SEG>``."""

    logits: torch.Tensor
    """float32 (N, 256, 256)."""
    iou_predictions: torch.Tensor
    """float32 (N,)."""
    text_loss: torch.Tensor
    """float32 (B,): the cross-entropy of each answer, its mean over the answer's tokens and its end, in nats."""


def teach(model: "ModifiedLISA", inputs: AnswerInputs) -> Taught:
    """Masks and text loss of ``inputs`` (on the model's device), with gradients."""
    with torch.autocast(model.device.type, enabled=False):
        assert model.answer_head is not None
        encoding = model.vision.encode(inputs)
        embeds = model.embed(encoding.tokens, inputs)
        # The token before an answer foresees its first word. Nothing up to there depends on a trained weight
        # (`ModifiedLISA.frozen_prefix`), but all that is learned does read the states from there on.
        cut = inputs.answer_begin - 1
        if model.frozen_prefix and torch.is_grad_enabled():
            hidden = model.split_forward(model.language_model, embeds, cut)
        else:
            whole = model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
            hidden = whole[:, cut:]
        labels = inputs.labels[:, cut + 1 :]
        rows, places = inputs.segs
        shift = cut + int(model.config.seg_state == "before")
        prompts = model.seg_projection(hidden[rows, places - shift].float())
        if len(prompts):
            logits, iou = model.mask_head(encoding.embedding[rows], prompts)
        else:
            side = model.processor.mask_side
            logits, iou = prompts.new_zeros((0, side, side)), prompts.new_zeros(0)
        return Taught(logits, iou, _text_loss(model.answer_head, hidden[:, :-1], labels))


def _text_loss(head: torch.nn.Module, hidden: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(B,) from states (B, R, Dl) and the tokens (B, R) that follow them."""
    said = labels != UNLABELLED
    losses = hidden.new_zeros(labels.shape, dtype=torch.float32)
    # The states that foresee nothing are left out before the head, whose output is as wide as the vocabulary.
    losses[said] = F.cross_entropy(head(hidden[said]), labels[said], reduction="none")
    return losses.sum(dim=1) / said.sum(dim=1).clamp(min=1)
