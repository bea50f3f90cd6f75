"""From hidden states to the next token: the VLM's own ``lm_head``, and a trained column for ``<SEG>``."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from modified_lisa.errors import ModelLoadError
from modified_lisa.tokens import SegEmbedding, initial_seg_row

__all__ = ["AnswerHead", "build_answer_head"]


class AnswerHead(nn.Module):
    """Hidden states (..., Dl) -> logits float32 (..., W) over the tokens, ``<SEG>`` among them.

    The id of ``<SEG>`` may lie beyond the rows of ``lm_head``; W covers it. ``lm_head`` is frozen and stays as it
    is; ``column`` holds what trains, float32 (1, Dl), in the place of what ``lm_head`` says about ``<SEG>``.

    Args:
        lm_head: linear, (V, Dl).
        row: float32 (1, Dl), the column's start.
        seg_token_id: its place among the logits.
        never: ids that are never an answer's (the image's, padding, rows without a token).
    """

    allowed: torch.Tensor
    """bool (W,)."""

    def __init__(self, lm_head: nn.Linear, row: torch.Tensor, seg_token_id: int, never: list[int]) -> None:
        super().__init__()
        self.lm_head = lm_head
        self.column = SegEmbedding(row)
        self.seg_token_id = seg_token_id
        self.rows = int(lm_head.weight.shape[0])
        allowed = torch.ones(max(self.rows, seg_token_id + 1), dtype=torch.bool)
        allowed[self.rows :] = False
        allowed[[token for token in never if token < len(allowed)]] = False
        allowed[seg_token_id] = True
        self.register_buffer("allowed", allowed, persistent=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """What is never said is -inf."""
        weight, place = self.lm_head.weight, self.seg_token_id
        words = self.lm_head(hidden.to(weight.dtype)).float()
        seg = F.linear(hidden.float(), self.column.row.float())
        before, behind = words[..., :place], words[..., place + 1 :]
        gap = place - before.shape[-1]
        if gap > 0:
            before = F.pad(before, (0, gap))
        logits = torch.cat((before, seg, behind), dim=-1)
        return logits.masked_fill(~self.allowed, -torch.inf)


def build_answer_head(lm_head: Any, processor: Any) -> AnswerHead:
    """The head of a model whose ``lm_head`` was loaded and whose tokenizer is ``processor``'s.

    The column starts as the mean of those of "segmentation mask", like the embedding; as the row that
    ``lm_head`` has for it where the token is one of the model's own (``processor.own_seg_token``).
    """
    if lm_head is None or processor.tokenizer is None:
        lacks = "lm_head" if lm_head is None else "tokenizer"
        raise ModelLoadError(f"the VLM has no {lacks}, so it cannot answer in words (answers=True)")
    tokenizer, seg = processor.tokenizer, processor.seg_token_id
    rows = int(lm_head.weight.shape[0])
    if processor.own_seg_token and seg < rows:
        row = lm_head.weight.detach()[seg][None].float().cpu()
    else:
        row = initial_seg_row(tokenizer, lm_head)
    named = set(tokenizer.get_vocab().values())
    never = [token for token in range(rows) if token not in named]
    never.append(processor.image_token_id)
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        never.append(tokenizer.pad_token_id)
    return AnswerHead(lm_head, row, seg, never)
