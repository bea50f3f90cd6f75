"""The ``<SEG>`` token: its place in a tokenizer and its own row of the embeddings."""

from typing import Any

import torch
from torch import nn

from modified_lisa.errors import ModelLoadError
from modified_lisa.prompts import SEG_TOKEN

__all__ = ["SegEmbedding", "add_seg_token", "initial_seg_row"]


def add_seg_token(tokenizer: Any) -> int:
    """Make ``<SEG>`` one token of ``tokenizer`` (a Hugging Face one), and return its id.

    The embedding matrix is left as it is: `SegEmbedding` holds the one row that trains, so that a padded
    vocabulary is neither shrunk nor grown, and a 4-bit model is not touched.
    """
    from transformers import AddedToken

    # lstrip: "what is it? <SEG>" and "what is it?<SEG>" are the same tokens.
    tokenizer.add_tokens([AddedToken(SEG_TOKEN, lstrip=True, normalized=False, special=True)])
    ids = tokenizer.encode(SEG_TOKEN, add_special_tokens=False)
    if len(ids) != 1:
        raise ModelLoadError(
            f"the tokenizer splits {SEG_TOKEN} into {len(ids)} tokens; use a fast tokenizer (tokenizer.json)"
        )
    return int(ids[0])


def initial_seg_row(tokenizer: Any, embedding: nn.Embedding) -> torch.Tensor:
    """A deliberate start for the row: the mean of the rows of "segmentation mask", float32 (1, width).

    The mean of all rows where the tokenizer has no token for these words. Spare rows of a padded vocabulary
    hold near-constant noise far from any word the model has seen.
    """
    ids = tokenizer.encode("segmentation mask", add_special_tokens=False) if tokenizer is not None else []
    rows = embedding.weight.detach()
    if ids:
        rows = rows[torch.tensor(ids, device=rows.device)]
    return rows.float().mean(dim=0, keepdim=True).cpu()


class SegEmbedding(nn.Module):
    """The trainable embedding of ``<SEG>``: ``row``, float32 (1, width)."""

    def __init__(self, row: torch.Tensor) -> None:
        super().__init__()
        self.row = nn.Parameter(row.clone())

    def forward(self, embeds: torch.Tensor, is_seg: torch.Tensor) -> torch.Tensor:
        """Put the row where ``is_seg`` (B, T) is true in ``embeds`` (B, T, width), in its dtype."""
        return torch.where(is_seg[..., None], self.row.to(embeds.dtype), embeds)
