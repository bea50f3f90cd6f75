"""One image, many queries: read the image once, then answer queries from what is remembered of it."""

from typing import TYPE_CHECKING, NamedTuple

import torch

from modified_lisa.model.inputs import ModelInputs, QueryInputs
from modified_lisa.model.prefix import Keys, block_mask, run_prefix, run_rest

if TYPE_CHECKING:
    from modified_lisa.model.lisa import ModifiedLISA

__all__ = ["ImageState", "answer", "embed_words", "read_image"]


class ImageState(NamedTuple):
    """What is remembered of one image."""

    keys: Keys
    """Of the prompt up to the end of the image."""
    embedding: torch.Tensor
    """float32 (1, C, h, w): what the mask decoder reads."""

    @property
    def nbytes(self) -> int:
        return self.keys.nbytes + self.embedding.nbytes

    def clone(self) -> "ImageState":
        layers = tuple((k.clone(), v.clone()) for k, v in self.keys.layers)
        return ImageState(Keys(layers, self.keys.last.clone(), self.keys.room), self.embedding.clone())

    def copy_(self, other: "ImageState") -> None:
        """Overwrite in place."""
        for mine, given in zip(self.tensors(), other.tensors(), strict=True):
            mine.copy_(given)

    def tensors(self) -> list[torch.Tensor]:
        return [*(part for pair in self.keys.layers for part in pair), self.keys.last, self.embedding]


def read_image(model: "ModifiedLISA", inputs: ModelInputs, room: int = 0) -> ImageState:
    """Encode the image of ``inputs`` (`LisaProcessor.prefix`) and read the prompt up to its end.

    ``room``: tokens of a query that can be written behind it without copying it.
    """
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        encoding = model.vision.encode(inputs)
        embeds = model.embed(encoding.tokens, inputs)
        return ImageState(run_prefix(model.language_model, embeds, room=room), encoding.embedding)


def embed_words(model: "ModifiedLISA", ids: torch.Tensor, is_seg: torch.Tensor | None = None) -> torch.Tensor:
    """Embeddings (B, R, Dl) of tokens (B, R) that are words or ``<SEG>``; ``is_seg``: which, if known."""
    if is_seg is None:
        is_seg = ids == model.processor.seg_token_id
    embedding = model.language_model.get_input_embeddings()
    return model.seg_embedding(embedding(ids.masked_fill(is_seg, 0)), is_seg)


def answer(
    model: "ModifiedLISA", state: ImageState, queries: QueryInputs
) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of the queries: logits float32 (N, 256, 256), predicted IoU float32 (N,).

    The same values as those of the whole prompt at once: a query sees the image and itself, and its positions
    go on after the image's.
    """
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        embeds = embed_words(model, queries.input_ids, queries.is_seg)
        prefix = state.keys.length
        hidden = run_rest(
            model.language_model,
            embeds,
            state.keys,
            mask=block_mask(queries.groups),
            positions=queries.positions + prefix,
        )
        places = queries.segs
        if model.config.seg_state == "before":
            # The token before the first of a query is the image's last.
            hidden = torch.cat((state.keys.last[:, None].to(hidden.dtype), hidden), dim=1)
            places = torch.where(queries.begins, 0, places)
        prompts = model.seg_projection(hidden[0, places].float())
        embeddings = state.embedding.expand(len(prompts), -1, -1, -1)
        return model.mask_head(embeddings, prompts)
