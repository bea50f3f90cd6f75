"""Answers in words with masks in them: the image is encoded once, and serves the words and the masks.

The hidden states that become masks are those of the generation itself (`speaker.Speaker`), not of a second
pass. Step k reads token k - 1 and predicts token k, so its state is the one "before" token k and "at" k - 1.

Shapes: B images, T tokens of the longest prompt, L of the longest answer, N masks in all, Dl, C as in `lisa`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from modified_lisa.errors import ConfigError
from modified_lisa.images import ImageSource
from modified_lisa.model.answers.prompting import AnswerInputs, answer_inputs
from modified_lisa.model.answers.words import Span, read_tokens
from modified_lisa.model.cache_names import CACHE_NAMES, given_cache, returned_cache

if TYPE_CHECKING:
    from modified_lisa.model.lisa import ModifiedLISA

__all__ = [
    "MAX_NEW_TOKENS",
    "Continuation",
    "GeneratedAnswers",
    "check_answers",
    "continue_text",
    "decode_masks",
    "generate_answers",
]

MAX_NEW_TOKENS = 256
"""Where nothing else is asked for."""
_ONE = {"num_beams": "search by beams", "num_return_sequences": "several answers to one question"}
_REFUSED = {
    "num_beam_groups": "search by beams",
    "penalty_alpha": "contrastive search",
    "guidance_scale": "a second pass without the question",
    "assistant_model": "assisted generation",
    "prompt_lookup_num_tokens": "assisted generation",
    "custom_generate": "another loop",
}
_OURS = [
    "input_ids",
    "inputs",
    "inputs_embeds",
    "attention_mask",
    "position_ids",
    *CACHE_NAMES,
    "use_cache",
    "cache_implementation",
    "return_dict_in_generate",
    "output_hidden_states",
    "output_attentions",
    "output_scores",
    "output_logits",
]


@dataclass(frozen=True)
class GeneratedAnswers:
    """What a model answered to B questions."""

    sequences: torch.Tensor
    """int64 (B, L): the tokens of the answers, without the prompts, filled up behind their ends."""
    texts: list[str]
    """With ``<SEG>`` in them; N_i in text i, and N_i may be 0."""
    spans: list[list[Span]]
    """The letters of each ``<SEG>``: ``texts[i][begin:end] == "<SEG>"``."""
    complete: list[bool]
    """Whether an answer came to its end; False: it was cut off, by ``max_new_tokens`` for instance."""
    seg_embeddings: list[torch.Tensor]
    """float32 (N_i, C) each: the prompts for the mask decoder."""
    pred_masks: list[torch.Tensor]
    """float32 (N_i, 256, 256) each: logits on the model's square, positive inside."""
    iou_predictions: list[torch.Tensor]
    """float32 (N_i,) each."""


@dataclass(frozen=True)
class Continuation:
    """What `continue_text` gives."""

    sequences: torch.Tensor
    """int64 (B, L)."""
    tokens: list[list[int]]
    """Of each answer, without its end."""
    complete: list[bool]
    seg_states: torch.Tensor
    """(N, Dl), answer by answer."""
    seg_counts: list[int]
    cache: Any
    """transformers' cache, of all tokens that were read."""


def generate_answers(
    self: "ModifiedLISA",
    images: Sequence[ImageSource] | AnswerInputs,
    texts: Sequence[str] | None = None,
    **options: Any,
) -> GeneratedAnswers:
    """Answer questions about images in words, with a mask for each ``<SEG>`` that the model writes.

    Args:
        images: B images (paths, PIL images, uint8 arrays), or what `prompting.answer_inputs` made of them.
        texts: B questions, without ``<SEG>``. None with ready inputs.
        options: those of transformers' ``generate``: ``max_new_tokens`` (256), ``do_sample``, ``temperature``,
            ``top_p``, ``repetition_penalty``, ``stopping_criteria``, ``stop_strings``, ``streamer``, ...

    Raises ConfigError for a model without answers, for options that are not known, and for those that reorder
    or repeat sequences (beams, several answers to one question), whose states could not be told apart.
    """
    model = self
    with torch.inference_mode(), torch.autocast(model.device.type, enabled=False):
        check_answers(model)
        if isinstance(images, AnswerInputs):
            inputs = images
        elif texts is None:
            raise ConfigError("got images without questions; give one question for each image")
        else:
            inputs = answer_inputs(model.processor, images, texts, device=model.device)
        inputs = inputs.to(model.device)  # type: ignore[assignment]
        encoding = model.vision.encode(inputs)
        embeds, mask = _padded_left(model.embed(encoding.tokens, inputs), inputs.lengths)
        said = continue_text(model, embeds, mask, **options)
        prompts, logits, iou = decode_masks(model, encoding.embedding, said)
        words = [read_tokens(model.processor, tokens) for tokens in said.tokens]
        return GeneratedAnswers(
            sequences=said.sequences,
            texts=[text for text, _ in words],
            spans=[spans for _, spans in words],
            complete=said.complete,
            seg_embeddings=list(prompts.split(said.seg_counts)),
            pred_masks=list(logits.split(said.seg_counts)),
            iou_predictions=list(iou.split(said.seg_counts)),
        )


def continue_text(
    model: "ModifiedLISA", embeds: torch.Tensor, mask: torch.Tensor, cache: Any = None, /, **options: Any
) -> Continuation:
    """Generate behind ``embeds`` (B, T, Dl), padded on the left where ``mask`` (B, T) is 0.

    Args:
        cache: transformers', of the first tokens of ``embeds``; those are not read again, whatever stands there.
    """
    from modified_lisa.model.answers.speaker import Speaker

    check_answers(model)
    given = _checked(options)
    tokenizer = model.processor.tokenizer
    ends = given.setdefault("eos_token_id", tokenizer.eos_token_id)
    ends = {ends} if isinstance(ends, int) else set(ends or ())
    # Finished rows are filled with an id that has a row of the embedding; nothing looks there.
    given.setdefault("pad_token_id", min(ends, default=0))
    if "stop_strings" in given:
        given.setdefault("tokenizer", tokenizer)
    if not {"max_new_tokens", "max_length", "generation_config"} & given.keys():
        given["max_new_tokens"] = MAX_NEW_TOKENS
    _check_room(model, embeds.shape[1], given)
    speaker = Speaker(model)
    try:
        out = speaker.generate(
            inputs_embeds=embeds,
            attention_mask=mask,
            return_dict_in_generate=True,
            **given_cache(cache),
            **given,
        )
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"generate cannot work with these options: {reason[:400]}") from error
    sequences, cache = out.sequences, returned_cache(out)
    tokens, complete = _cut(sequences.tolist(), ends)
    seg = model.processor.seg_token_id
    places = [(row, k) for row, said in enumerate(tokens) for k, token in enumerate(said) if token == seg]
    behind = int(model.config.seg_state == "at")
    if any(k + behind >= len(speaker.states) for _, k in places):
        # A <SEG> that is the last token has been written, but not read.
        more = mask.new_ones(sequences.shape)
        whole = torch.cat((mask, more), dim=1)
        speaker(
            input_ids=sequences[:, -1:],
            attention_mask=whole,
            position_ids=whole.long().cumsum(-1)[:, -1:] - 1,
            **given_cache(cache),
        )
    if places:
        states = torch.stack([speaker.states[k + behind][row] for row, k in places])
    else:
        states = embeds.new_zeros((0, embeds.shape[2]))
    return Continuation(sequences, tokens, complete, states, [said.count(seg) for said in tokens], cache)


def decode_masks(
    model: "ModifiedLISA", embedding: torch.Tensor, said: Continuation
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Prompts (N, C), logits (N, 256, 256) and predicted IoU (N,), float32, of what was said about each image.

    Args:
        embedding: float32 (B, C, h, w), what the mask decoder reads of each image.
    """
    prompts = model.seg_projection(said.seg_states.float())
    if not len(prompts):
        side = model.processor.mask_side
        return prompts, prompts.new_zeros((0, side, side)), prompts.new_zeros(0)
    rows = [row for row, count in enumerate(said.seg_counts) for _ in range(count)]
    return prompts, *model.mask_head(embedding[rows], prompts)


def _padded_left(embeds: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Prompts (B, T, Dl), padded on the right, with their padding on the left; and the mask int64 (B, T)."""
    places = torch.arange(embeds.shape[1], device=embeds.device)[None]
    pads = embeds.shape[1] - lengths[:, None]
    index = (places - pads).clamp(min=0)
    moved = embeds.gather(1, index[..., None].expand_as(embeds))
    return moved, (places >= pads).long()


def _cut(rows: list[list[int]], ends: set[int]) -> tuple[list[list[int]], list[bool]]:
    """Answers up to their ends, and whether they have one."""
    cut, complete = [], []
    for row in rows:
        end = next((k for k, token in enumerate(row) if token in ends), None)
        cut.append(row if end is None else row[:end])
        complete.append(end is not None)
    return cut, complete


def check_answers(model: "ModifiedLISA") -> None:
    """ConfigError unless the model can answer in words."""
    if model.answer_head is None and model.processor.own_seg_token:  # left out unless it is asked for
        raise ConfigError("this model was loaded without its words; load it with answers=None (or True)")
    if model.answer_head is None:
        raise ConfigError(
            "this model was not trained to answer in words; train one with --ce_weight, or ask for a mask with segment"
        )


def _check_room(model: "ModifiedLISA", read: int, given: dict[str, Any]) -> None:
    """Shorten the answer to what the language model has positions for; ConfigError if there is none left."""
    most = getattr(model.language_model.config, "max_position_embeddings", None)
    if most is None:
        return
    if read >= most:
        raise ConfigError(
            f"the dialogue has {read} tokens and the language model reads {most}; begin a new one"
        )
    if isinstance(new := given.get("max_new_tokens"), int):
        given["max_new_tokens"] = min(new, most - read)


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if value is not None}
    config = given.get("generation_config")
    for name, what in _ONE.items():
        value = given.get(name, getattr(config, name, None))
        if value not in (None, 1):
            raise ConfigError(f"{name}={value!r} is not supported: {what} would mix up the states of <SEG>")
    for name, what in _REFUSED.items():
        if given.get(name, getattr(config, name, None)) not in (None, 1):
            raise ConfigError(f"{name} is not supported: {what} would mix up the states of <SEG>")
    ours = sorted(given.keys() & set(_OURS))
    if ours:
        raise ConfigError(f"{', '.join(ours)}: set by this package itself; leave it out")
    return given
