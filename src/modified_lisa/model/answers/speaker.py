"""The language model as transformers generates with it, remembering one hidden state for each step.

transformers' own `GenerationMixin` runs the loop, with its options, its cache and its streamers; this is only the
step: embeddings, with the ``<SEG>`` row among them, the language model, and the answer head.
"""

import copy
from typing import Any

import torch
import transformers
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from modified_lisa.errors import ModelLoadError
from modified_lisa.model.cache_names import cache_name, given_cache, returned_cache
from modified_lisa.model.reading import embed_words

__all__ = ["Speaker"]


class Speaker(PreTrainedModel, GenerationMixin):
    """Made for one call of ``generate``; holds no weights of its own."""

    main_input_name = "input_ids"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True

    def __init__(self, model: Any) -> None:
        config = copy.deepcopy(model.language_model.config)
        super().__init__(config)
        # In a list: a submodule would be searched for weights, tied ones and hooks.
        self._model = [model]
        self.generation_config = GenerationConfig()
        self.states: list[torch.Tensor] = []
        """One (B, Dl) for each step: the state that predicts the step's token, at the token before it."""

    @property
    def device(self) -> torch.device:
        return self._model[0].device

    @property
    def dtype(self) -> torch.dtype:
        return self._model[0].language_model.get_input_embeddings().weight.dtype

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        **others: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, 1, W) of the token after the last one.

        Raises ModelLoadError without the cache: the tokens so far would be forgotten, and the answer be wrong.
        """
        (model,) = self._model
        cache = others.get(cache_name())
        if cache is None:
            raise ModelLoadError(
                f"transformers {transformers.__version__} came without {cache_name()}, the cache of the tokens so far, but "
                f"with {', '.join(others) or 'nothing else'}; install a version that pyproject.toml allows"
            )
        if inputs_embeds is None:
            assert input_ids is not None
            inputs_embeds = embed_words(model, input_ids)
        out = model.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            use_cache=True,
            **given_cache(cache),
        )
        last = out.last_hidden_state[:, -1]
        self.states.append(last)
        return CausalLMOutputWithPast(
            logits=model.answer_head(last)[:, None], **given_cache(returned_cache(out))
        )
