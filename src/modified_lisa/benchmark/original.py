"""The original architecture: both encoders, and an answer that is generated token by token until ``[SEG]``.

LISA (Lai et al. 2023) answers "Sure, it is [SEG] ."; the mask is read from the state that predicts ``[SEG]``.
Here the answer has `ANSWER` tokens up to and with ``[SEG]``: the prompt predicts the first, and `ANSWER` - 1
single-token passes with a key-value cache predict the others. With random weights the model would say anything,
so the tokens that are fed are given; each is still predicted (output matrix, argmax, and a look at it on the
host, as a stopping rule needs). Nothing is added that the architecture does not need: no beam, no sampling, no
tokens after ``[SEG]``, none of the bookkeeping of ``generate``.
"""

import contextlib
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from modified_lisa.benchmark.pipelines import Run, Stage, StagedPipeline
from modified_lisa.model.cache_names import given_cache, returned_cache
from modified_lisa.model.fused import compiled_layers
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.model.prefix import Keys, function_cache, run_prefix

__all__ = ["ANSWER", "GivenAnswer", "OriginalPipeline", "compiled_clip"]

ANSWER = 6
"""Tokens of the answer, ``[SEG]`` being the last."""
_GIVEN = range(5, 5 + ANSWER - 1)
"""Ids that are fed; any words do."""


class OriginalPipeline(StagedPipeline):
    """Encode, prefill, decode, mask head.

    Args:
        lm_head: hidden states to words.
        fast: every general speed-up that this package has is given to it too: compiled encoder layers, CUDA
            graphs of each stage with fused elementwise work, a static key-value buffer, one graph for a token.
    """

    def __init__(self, model: ModifiedLISA, lm_head: nn.Module, *, fast: bool) -> None:
        super().__init__(model, fast=fast)
        self.prepares_on = model.device if fast else None  # as LISA: Pillow, on the CPU
        self.lm_head = lm_head
        self.given = torch.tensor([list(_GIVEN)], device=model.device)
        self._undo = contextlib.ExitStack()
        if fast:
            self._undo.enter_context(compiled_clip(model))
        self._keys: Keys | None = None
        self._shape = (0, 0)
        self._step_call = self._captured(self._step)
        self._prompt_call = self._captured(self._prompt)

    def close(self) -> None:
        self._undo.close()

    @property
    def stages(self) -> dict[str, Stage]:
        stages = super().stages
        return {
            "preprocess": stages["preprocess"],
            "encode": stages["encode"],
            "prefill": self._stage_prompt,
            "decode": self._stage_decode,
            "mask head": self._stage_answer,
            "post-processing": stages["post-processing"],
        }

    def _stage_prompt(self, run: Run) -> None:
        ids = run.ready.input_ids[:, :-1]  # the prompt ended with <SEG>, which is generated here
        self._reserve(*ids.shape)
        run.state = self._prompt_call(run.encoding[0], ids)
        run.state[0].tolist()  # the stopping rule looks at every token

    def _stage_decode(self, run: Run) -> None:
        token, cache = run.state
        hidden = None
        rows = len(run.ready.input_ids)
        for number in range(ANSWER - 1):
            fed = self.given[:, number : number + 1].expand(rows, -1)
            if self.fast:
                token, hidden = self._step_call(fed, self._position(number))
            else:
                token, hidden = self._plain_step(fed, cache)
            token.tolist()
        run.state = hidden

    def _stage_answer(self, run: Run) -> None:
        rows = torch.arange(len(run.ready.input_ids), device=self.model.device)
        run.logits, run.iou = self._head_call(run.state, run.encoding[1], rows)

    def _position(self, number: int) -> torch.Tensor:
        return self._positions[number : number + 1]

    def _reserve(self, rows: int, length: int) -> None:
        """Static keys and values for the graphs, for this number of rows and this length of prompt."""
        if not self.fast or (self._keys is not None and self._shape == (rows, length)):
            return
        for call in (self._prompt_call, self._step_call):
            call.clear()  # type: ignore[attr-defined]
        config: Any = self.model.language_model.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        room = -(-(length + ANSWER) // 8) * 8  # attention kernels want masks of such widths
        embedding = self.model.language_model.get_input_embeddings()
        make: dict[str, Any] = {"dtype": embedding.weight.dtype, "device": self.model.device}
        self._keys = None
        with torch.inference_mode(False):  # the graphs write to them outside of it
            pairs = tuple(
                (torch.zeros(rows, heads, room, width, **make), torch.zeros(rows, heads, room, width, **make))
                for _ in range(config.num_hidden_layers)
            )
            self._keys = Keys(pairs, torch.zeros(rows, config.hidden_size, **make))
        self._shape = (rows, length)
        self._positions = length + torch.arange(ANSWER - 1, device=self.model.device)

    def _prompt(self, tokens: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Read the prompt: the first token of the answer (B,), and the cache (eager) or the last state."""
        language_model = self.model.language_model
        none = ids.new_zeros((2, 0))
        with torch.no_grad():
            embeds = self.model.embed(tokens, self._text(ids, torch.zeros_like(ids, dtype=torch.bool), none))
            if self._keys is None:
                out = language_model(inputs_embeds=embeds, use_cache=True)
                return self._predict(out.last_hidden_state[:, -1]), returned_cache(out)
            length = embeds.shape[1]
            layers = tuple((k[:, :, :length], v[:, :, :length]) for k, v in self._keys.layers)
            run_prefix(language_model, embeds, into=Keys(layers, self._keys.last))
            return self._predict(self._keys.last), self._keys.last

    def _predict(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.lm_head(hidden).argmax(dim=-1)

    def _plain_step(self, token: torch.Tensor, cache: Any) -> tuple[torch.Tensor, torch.Tensor]:
        language_model = self.model.language_model
        with torch.no_grad():
            embeds = language_model.get_input_embeddings()(token)
            out = language_model(inputs_embeds=embeds, use_cache=True, **given_cache(cache))
            hidden = out.last_hidden_state[:, -1]
            return self._predict(hidden), hidden

    def _step(self, token: torch.Tensor, position: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One token (B, 1) at ``position`` int64 (1,) of the static buffer: the next one (B,), its state (B, Dl)."""
        keys = self._keys
        assert keys is not None
        language_model = self.model.language_model

        def write(new: torch.Tensor, values: torch.Tensor, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
            k, v = keys.layers[layer]
            k.index_copy_(2, position, new)
            v.index_copy_(2, position, values)
            return k, v

        with torch.no_grad():
            mask = (torch.arange(keys.length, device=token.device) <= position)[None, None, None]
            hidden = language_model(
                inputs_embeds=language_model.get_input_embeddings()(token),
                attention_mask=mask,
                position_ids=position[None],
                use_cache=True,
                **given_cache(function_cache(write, keys.length)),
            ).last_hidden_state[:, -1]
            return self._predict(hidden), hidden


class GivenAnswer(StagedPipeline):
    """The original architecture with its answer given: one pass over the prompt and `ANSWER` tokens.

    Args: as of `OriginalPipeline`.
    """

    def __init__(self, model: ModifiedLISA, *, fast: bool) -> None:
        super().__init__(model, fast=fast)
        self.prepares_on = model.device if fast else None  # as LISA: Pillow, on the CPU
        self._undo = contextlib.ExitStack()
        if fast:
            self._undo.enter_context(compiled_clip(model))

    def close(self) -> None:
        self._undo.close()

    def prepare(self, images: list[Any], texts: list[str]) -> Any:
        """As usual, with the words of the answer before ``<SEG>``."""
        inputs = super().prepare(images, texts)
        rows, extra = len(inputs), ANSWER - 1
        words = torch.tensor([list(_GIVEN)]).expand(rows, -1)
        ids, is_seg = inputs.input_ids, inputs.is_seg
        segs = inputs.segs + torch.tensor([[0], [extra]])
        return replace(
            inputs,
            input_ids=torch.cat((ids[:, :-1], words, ids[:, -1:]), dim=1),
            is_seg=torch.cat(
                (is_seg[:, :-1], torch.zeros_like(words, dtype=torch.bool), is_seg[:, -1:]), dim=1
            ),
            segs=segs,
            first_seg=inputs.first_seg + extra,
        )


def compiled_clip(model: ModifiedLISA) -> AbstractContextManager[None]:
    """Meanwhile, CLIP's layers are compiled too (torch.compile); SAM's are wherever graphs are captured."""
    vision: Any = model.vision
    return compiled_layers(
        m for m in vision.encoder.tower.modules() if type(m).__name__ == "CLIPEncoderLayer"
    )
