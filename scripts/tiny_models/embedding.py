"""Word embeddings that begin with what a larger language model knows of words."""

import torch
from torch import nn

VECTORS = "vectors.safetensors"
"""(V, D) float16 under "vectors", beside the tokenizer's files: see words.py."""


class WordEmbedding(nn.Module):
    """A word's embedding is a learned projection of its vector, plus something of its own.

    A word that the scenes' training split never uses goes through the same projection as its neighbours that are
    used, and so means something. What a word has of its own is dropped now and then, so that the projection learns.
    """

    vectors: torch.Tensor
    is_word: torch.Tensor

    def __init__(self, vectors: torch.Tensor, width: int, *, rows: int, drop: float) -> None:
        """``vectors`` (V, D) of unit length, zero for what is no word; ``rows`` of the embedding, at least V; ``drop``: how
        often a word has nothing of its own in training."""
        super().__init__()
        padded = torch.zeros(rows, vectors.shape[1])
        padded[: len(vectors)] = vectors.float() * vectors.shape[1] ** 0.5
        self.register_buffer("vectors", padded, persistent=False)
        self.register_buffer("is_word", (padded != 0).any(1), persistent=False)
        self.project = nn.Linear(vectors.shape[1], width, bias=False)
        nn.init.normal_(self.project.weight, std=0.02 / vectors.shape[1] ** 0.5)
        self.own = nn.Embedding(rows, width)
        nn.init.normal_(self.own.weight, std=0.005)
        self.drop = drop

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """int64 (...) -> (..., width); with dropping while training."""
        own = self.own(ids)
        if self.training:
            kept = (torch.rand(ids.shape, device=ids.device) >= self.drop) | ~self.is_word[ids]
            own = own * kept[..., None]
        return self.project(self.vectors[ids]) + own

    @torch.no_grad()
    def take(self, table: torch.Tensor) -> None:
        """Become ``table`` (rows, width): what a projection can give of it, and the rest as the words' own."""
        known = self.is_word.nonzero()[:, 0]
        found = torch.linalg.lstsq(self.vectors[known].double(), table[known].double()).solution
        self.project.weight.copy_(found.T)
        self.own.weight.copy_(table - self.project(self.vectors))

    def table(self) -> torch.Tensor:
        """The whole embedding (rows, width), nothing dropped."""
        return self.project(self.vectors) + self.own.weight
