"""From a ``<SEG>`` state to a mask: the seg projection, and SAM's prompt encoder and mask decoder.

Always fp32: SAM's mask decoder overflows in fp16 on the norms that ``<SEG>`` states have.
Shapes: N masks (of all images of a batch together), Dl the language model's width, C channels (256).
"""

from typing import Any

import torch
from torch import nn

__all__ = ["SEG_PROJECTIONS", "MaskHead", "PlainSegProjection", "SegProjection"]


class SegProjection(nn.Sequential):
    """``<SEG>`` states (N, Dl) -> SAM prompts (N, C). Linear, ReLU, Linear, as LISA's ``text_hidden_fcs``.

    The states are normalised first: their length, 150 to 250 in a 7B model, says nothing. The projection
    starts as a foreground point of SAM's somewhere in the image: ``point`` (C,) plus a part that depends on
    the state and is as large as the code of a place, so that a frozen decoder meets what it knows.
    """

    def __init__(self, width: int, point: torch.Tensor, hidden: int | None = None) -> None:
        hidden = hidden or min(width, 1024)
        first, last = nn.Linear(width, hidden), nn.Linear(hidden, len(point))
        super().__init__(nn.LayerNorm(width), first, nn.ReLU(), last)
        nn.init.kaiming_normal_(first.weight, nonlinearity="relu")
        nn.init.zeros_(first.bias)
        nn.init.normal_(last.weight, std=(0.5 / hidden) ** 0.5)  # sines and cosines have a mean square of 1/2
        with torch.no_grad():
            last.bias.copy_(point)


class PlainSegProjection(nn.Sequential):
    """``<SEG>`` states (N, Dl) -> SAM prompts (N, C), exactly LISA's ``text_hidden_fcs``: its states' length counts."""

    def __init__(self, width: int, point: torch.Tensor) -> None:
        last = nn.Linear(width, len(point))
        super().__init__(nn.Linear(width, width), nn.ReLU(), last)
        with torch.no_grad():
            last.bias.copy_(point)


SEG_PROJECTIONS: dict[str, type[SegProjection] | type[PlainSegProjection]] = {
    "normed": SegProjection,
    "plain": PlainSegProjection,
}


class MaskHead(nn.Module):
    """SAM's prompt encoder and mask decoder, prompted by ``<SEG>`` embeddings.

    Args:
        sam: a transformers ``SamModel``; its image encoder is not touched.
    """

    positions: torch.Tensor
    """float32 (1, C, h, w): where each cell of the embedding lies."""

    def __init__(self, sam: Any) -> None:
        super().__init__()
        self.prompt_encoder = sam.prompt_encoder.float().requires_grad_(False)
        # Attention between 4096 cells and a handful of tokens: two plain products are several times faster
        # than kernels made for long rows on both sides.
        sam.mask_decoder.config._attn_implementation = "eager"
        self.mask_decoder = sam.mask_decoder.float().requires_grad_(False)
        self.channels = int(sam.config.prompt_encoder_config.hidden_size)
        self.side = int(self.prompt_encoder.image_embedding_size[0])
        sam.shared_image_embedding.float()  # and not all of sam: its encoder may be large
        self.register_buffer(
            "positions", sam.get_image_wide_positional_embeddings().detach().clone(), persistent=False
        )
        # The IoU prediction is trained to judge masks, not masks to please it.
        sam.mask_decoder.iou_prediction_head.register_forward_pre_hook(_detach_input)

    @property
    def foreground_point(self) -> torch.Tensor:
        """float32 (C,): what SAM adds to the code of a place to say "this is part of it"."""
        weight: torch.Tensor = self.prompt_encoder.point_embed[1].weight
        return weight.detach()[0]

    @torch.no_grad()
    def correct_scores(self, scale: float, shift: float) -> None:
        """Let each predicted IoU become ``scale`` times itself plus ``shift``; the last layer says it, so it costs nothing."""
        last = self.mask_decoder.iou_prediction_head.proj_out
        last.weight.mul_(scale)
        last.bias.mul_(scale).add_(shift)

    def forward(self, embeddings: torch.Tensor, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode one mask for each prompt.

        Args:
            embeddings: float32 (N, C, h, w), the image embedding that belongs to each prompt.
            prompts: float32 (N, C).

        Returns:
            logits float32 (N, 4h, 4w) of the model's square, positive inside; predicted IoU float32 (N,).
        """
        dense = self.prompt_encoder(None, None, None, None)[1]
        logits, iou = self.mask_decoder(
            image_embeddings=embeddings,
            image_positional_embeddings=self.positions.expand(len(prompts), -1, -1, -1),
            sparse_prompt_embeddings=prompts[:, None, None],
            dense_prompt_embeddings=dense.expand(len(prompts), -1, -1, -1),
            multimask_output=False,
        )
        return logits[:, 0, 0], iou[:, 0, 0]


def _detach_input(_module: nn.Module, arguments: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
    return (arguments[0].detach(),)
