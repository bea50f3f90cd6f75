"""The original's tokenizer: a LLaMA sentencepiece model and added tokens -> one fast tokenizer.

The original uses transformers 4.31's slow LLaMA tokenizer, whose ways are kept: each stretch of text between
added tokens gets a space before it, and an added token swallows the white space on both its sides.
"""

from pathlib import Path
from typing import Any

from modified_lisa.errors import ModelLoadError
from modified_lisa.model.original_lisa.shards import find_file, read_json
from modified_lisa.model.sources import first_line

__all__ = ["ADDED", "IMAGE", "IM_END", "IM_START", "SEG", "read_tokenizer", "saved_tokens"]

SEG, IM_START, IM_END, IMAGE = "[SEG]", "<im_start>", "<im_end>", "<image>"
ADDED = (SEG, IM_START, IM_END)
"""In the order in which the original adds them to a vocabulary that has none of them."""

_SPECIAL = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def read_tokenizer(source: str, rows: int, *, start_end: bool = True) -> Any | None:
    """A ``PreTrainedTokenizerFast`` from the files of ``source``; None: it has none.

    Reads ``tokenizer.json`` or ``tokenizer.model``, and `saved_tokens`. ``<image>`` becomes the first id after all others.

    Args:
        rows: of the language model's embedding; no token but ``<image>`` may lie beyond.
        start_end: whether the prompts have ``<im_start>`` and ``<im_end>``; without, the original adds ``[SEG]`` only.

    Raises:
        ModelLoadError: files that cannot be read, or whose tokens have no row.
    """
    from transformers import PreTrainedTokenizerFast

    settings = read_json(source, "tokenizer_config.json", missing={})
    special = {
        **_SPECIAL,
        **_named(settings),
        **_named(read_json(source, "special_tokens_map.json", missing={})),
    }
    if path := find_file(source, "tokenizer.json"):
        core = _load(path)
    elif path := find_file(source, "tokenizer.model"):
        core = _from_sentencepiece(path, special)
    else:
        return None
    _add_saved(core, saved_tokens(source), path)
    _add(core, [token for token in (ADDED if start_end else (SEG,)) if core.token_to_id(token) is None])
    # Files of another program may have added them with other habits.
    _add(core, [token for token in ADDED if core.token_to_id(token) is not None])
    if (largest := max(number for token, number in core.get_vocab().items() if token != IMAGE)) >= rows:
        raise ModelLoadError(
            f"{source}: its tokenizer has the token {largest} ({core.id_to_token(largest)!r}) and its embedding rows for "
            f"0 to {rows - 1}; they do not belong together"
        )
    _add(core, [IMAGE])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=special["unk_token"], padding_side="right", **special
    )


def saved_tokens(source: str) -> dict[str, int]:
    """Tokens and ids of ``added_tokens.json`` and of the added tokens of ``tokenizer_config.json``."""
    decoder = read_json(source, "tokenizer_config.json", missing={}).get("added_tokens_decoder") or {}
    listed = read_json(source, "added_tokens.json", missing={})
    try:
        named = {entry["content"]: number for number, entry in decoder.items()}
        return {token: int(number) for token, number in {**named, **listed}.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelLoadError(
            f"{source}: added_tokens.json or tokenizer_config.json has no ids for its added tokens: {first_line(error)}"
        ) from error


def _add(core: Any, tokens: list[str]) -> None:
    from tokenizers import AddedToken

    for token in tokens:
        swallow = token in ADDED
        core.add_tokens(
            [AddedToken(token, lstrip=swallow, rstrip=swallow, normalized=False, special=token != SEG)]
        )


def _add_saved(core: Any, saved: dict[str, int], path: Path) -> None:
    """Added tokens in the order of their ids, which must come out as they are in the file."""
    for token, number in sorted(saved.items(), key=lambda item: item[1]):
        if core.token_to_id(token) is None:
            _add(core, [token])
        if core.token_to_id(token) != number:
            raise ModelLoadError(
                f"{path.parent}: the added token {token!r} has the id {number}, and {core.token_to_id(token)} is what "
                f"follows from {path.name}; the files do not belong together"
            )


def _from_sentencepiece(path: Path, special: dict[str, str]) -> Any:
    """LLaMA's tokenizer of a sentencepiece file, read as protobuf: BPE with bytes for unknown letters."""
    from tokenizers import Tokenizer, decoders, models, normalizers, processors
    from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

    model = sentencepiece.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's own DecodeError, of whichever implementation is installed
        raise ModelLoadError(f"{path} is not a sentencepiece model: {first_line(error)}") from error
    if not model.pieces:
        raise ModelLoadError(f"{path} is not a sentencepiece model: it has no pieces")
    vocabulary = {piece.piece: number for number, piece in enumerate(model.pieces)}
    scores = {piece.piece: piece.score for piece in model.pieces}
    normal = {
        piece.piece for piece in model.pieces if piece.type in (0, 1)
    }  # no control, unknown, byte pieces
    merges = [
        (-scores[whole], vocabulary[whole], whole[:cut], whole[cut:])
        for whole in normal
        for cut in range(1, len(whole))
        if whole[:cut] in normal and whole[cut:] in normal
    ]
    # Of several ways to make a piece the leftmost short one comes first, as in transformers' own conversion.
    merges.sort(key=lambda m: (m[0], m[1], len(m[2]), len(m[3])))
    core = Tokenizer(
        models.BPE(
            vocabulary,
            [(left, right) for _, _, left, right in merges],
            unk_token=special["unk_token"],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _add(core, [token for token in _special_order(special) if token in vocabulary])
    bos = special["bos_token"]
    if bos not in vocabulary:
        raise ModelLoadError(f"{path} has no {bos!r}, with which every prompt begins")
    core.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, vocabulary[bos])]
    )
    return core


def _special_order(special: dict[str, str]) -> list[str]:
    return [special[name] for name in _SPECIAL]


def _load(path: Path) -> Any:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exceptions
        raise ModelLoadError(f"{path} is not a tokenizer: {first_line(error)}") from error


def _named(values: dict[str, Any]) -> dict[str, str]:
    """unk, bos and eos token, which are strings or dictionaries with ``content``."""
    found = {name: values[name] for name in _SPECIAL if values.get(name)}
    return {
        name: str(token["content"] if isinstance(token, dict) else token) for name, token in found.items()
    }
