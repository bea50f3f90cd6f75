"""The words around a query. The VLM's own chat template does the wrapping (see `model.processor`)."""

import re

from modified_lisa.errors import ConfigError

__all__ = ["SEG_TOKEN", "Query", "user_turn", "with_seg"]

SEG_TOKEN = "<SEG>"
"""Its hidden state becomes a mask."""
_HALVES = re.compile("[\ud800-\udfff]")


class Query(str):
    """A query that knows whether it is a sentence or a phrase; None: nobody has said. Only LISA's protocol asks."""

    is_sentence: bool | None

    def __new__(cls, text: str, is_sentence: bool | None = None) -> "Query":
        query = super().__new__(cls, text)
        query.is_sentence = is_sentence
        return query


def with_seg(text: str) -> str:
    """The query with ``<SEG>`` in it: appended where it is missing, left where it stands otherwise.

    Several ``<SEG>`` give several masks. A query with no words of its own, or with
    half a surrogate pair in it, is a ConfigError.
    """
    if not isinstance(text, str):
        raise ConfigError(f"a query is {type(text).__name__}; it must be a string")
    if _HALVES.search(text):  # what Python makes of bytes that are not UTF-8
        raise ConfigError(f"the query {text!r} is not valid text; give it in UTF-8")
    text = " ".join(text.split())
    if not text.replace(SEG_TOKEN, "").strip():
        raise ConfigError("the query is empty; say in words what to segment")
    return text if SEG_TOKEN in text else f"{text} {SEG_TOKEN}"


def user_turn(text: str) -> list[dict[str, object]]:
    """One user's turn, image before text, in the form that chat templates take."""
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": text}]}]
