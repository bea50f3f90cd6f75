"""Generated tokens as text, and the place of each ``<SEG>`` in it."""

from collections.abc import Callable, Sequence
from typing import Any

from modified_lisa.prompts import SEG_TOKEN

__all__ = ["Span", "TextStream", "read_tokens"]

Span = tuple[int, int]
"""First letter of a ``<SEG>`` in the text, and the first behind it."""


def read_tokens(processor: Any, tokens: Sequence[int]) -> tuple[str, list[Span]]:
    """(text, the span of each ``<SEG>`` token, in order): ``text[begin:end] == "<SEG>"``.

    A blank is put before a ``<SEG>`` that follows a word: the tokenizer's token swallows it. Words that merely
    look like ``<SEG>`` have no span.
    """
    text, spans, read = "", [], 0
    for place, token in enumerate(tokens):
        if token != processor.seg_token_id:
            continue
        before = _decode(processor, tokens[:place])
        text += before[read:]
        text = text.rstrip(" ") + " " if text.strip() else ""
        spans.append((len(text), len(text) + len(SEG_TOKEN)))
        text += SEG_TOKEN
        read = len(_decode(processor, tokens[: place + 1]))
    text += _decode(processor, tokens)[read:]
    if not spans:
        text = text.lstrip()
    elif spans[0][0]:  # a blank in front of the first word
        blanks = len(text) - len(text.lstrip())
        text = text[blanks:]
        spans = [(begin - blanks, end - blanks) for begin, end in spans]
    return text.rstrip(), spans


def _decode(processor: Any, tokens: Sequence[int]) -> str:
    text: str = processor.tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False)
    return text


class TextStream:
    """A streamer for ``generate``: hands on the text as it grows, ``<SEG>`` in it, whole letters only.

    Args:
        write: called with each new piece; all pieces together are the answer's text.
    """

    def __init__(self, processor: Any, write: Callable[[str], Any]) -> None:
        self.processor, self.write = processor, write
        self._end = processor.tokenizer.eos_token_id
        self._tokens: list[int] = []
        self._shown = 0
        self._ended = False

    def put(self, value: Any) -> None:
        """Called by transformers: first with the prompt (of no tokens here), then with each token."""
        for token in value.flatten().tolist():
            self._ended = self._ended or token == self._end
            if not self._ended:
                self._tokens.append(token)
        text, _ = read_tokens(self.processor, self._tokens)
        # Half a letter shows as a replacement mark until its other bytes have come.
        self._show(text.rstrip("\ufffd"))

    def end(self) -> None:
        """Called by transformers behind the last token."""
        self._show(read_tokens(self.processor, self._tokens)[0])

    def _show(self, text: str) -> None:
        if len(text) > self._shown:
            self.write(text[self._shown :])
            self._shown = len(text)
