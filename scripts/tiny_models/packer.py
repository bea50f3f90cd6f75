"""Questions, answers and queries about scenes as token rows for the pretraining of the VLM."""

from typing import Any

import numpy as np
import torch
from data import PADDING, Words

MOST_QUERIES = 24
MOST_WORDS = 128
"""Tokens of answers in a row that are learned."""
SEG = -2
"""Marks the place behind a query among the token ids, until the embeddings are looked up."""


def image_place(tokenizer: Any) -> slice:
    """Where the image's 576 tokens stand in a row."""
    first = len(tokenizer.encode("USER: "))
    return slice(first, first + 576)


class Packer:
    """Scenes as token rows of one length: the image once, then questions and queries, each blind to the others."""

    def __init__(
        self, tokenizer: Any, text_tokens: int, answers: float = 0.3, drop_words: float = 0.0
    ) -> None:
        """``drop_words``: share of the words that every second query loses (`shortened`)."""
        image = tokenizer.convert_tokens_to_ids("<image>")
        place = image_place(tokenizer)
        self.begin = [*tokenizer.encode("USER: "), *[image] * (place.stop - place.start)]
        self.length = -(-(len(self.begin) + text_tokens) // 64) * 64
        self.pad, self.end = int(tokenizer.pad_token_id), int(tokenizer.eos_token_id)
        self.answers, self.drop_words = answers, drop_words
        vocabulary = [tokenizer.convert_ids_to_tokens(number) for number in range(len(tokenizer))]
        self.begins = np.array([token.startswith("Ġ") for token in vocabulary])
        """Which tokens a word begins with, unless it is the first of a line."""
        self.newline = np.array([token == "Ċ" for token in vocabulary])

    def _begins(self, wording: list[int]) -> np.ndarray:
        """bool, for each token: does a word begin there?"""
        after_newline = np.append(False, self.newline[wording][:-1])
        found: np.ndarray = self.begins[wording] | after_newline
        return found

    def pack(self, words: list[Words], rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """ids, segment (0: the image's part, -1: padding), positions, each int64 (B, T); said (B, MOST_WORDS), the
        places of the answers' tokens, which are predicted, 0 for none; at (B, Q), the place of each query's end, -1
        for none; chosen, bool (B, Q, N); kinds (B, Q); names (B, 3, N)."""
        shape = (len(words), self.length)
        ids, said = np.full(shape, self.pad), np.zeros((len(words), MOST_WORDS), np.int64)
        segment, positions = np.full(shape, -1), np.zeros(shape, np.int64)
        at = np.full((len(words), MOST_QUERIES), -1)
        chosen = np.zeros((len(words), MOST_QUERIES, PADDING + 1), bool)
        kinds = np.zeros((len(words), MOST_QUERIES), np.int64)
        start = len(self.begin)
        ids[:, :start], segment[:, :start] = self.begin, 0
        positions[:, :start] = np.arange(start)
        for row, scene in enumerate(words):
            place, number, asked, spoken = start, 0, 0, 0
            answers = rng.permutation(len(scene.answers)).tolist()
            queries = rng.permutation(len(scene.queries)).tolist()
            while (answers or queries) and place < self.length:
                number += 1
                if queries and asked < MOST_QUERIES and not (answers and rng.random() < self.answers):
                    wordings, targets, kind = scene.queries[queries.pop()]
                    wording = wordings[int(rng.integers(len(wordings)))]
                    if self.drop_words and rng.random() < 0.5:
                        wording = shortened(wording, self._begins(wording), self.drop_words, rng)
                    part = [*wording, SEG]
                    if place + len(part) > self.length:
                        break
                    at[row, asked], kinds[row, asked] = place + len(part) - 1, kind
                    chosen[row, asked, [target + 1 for target in targets]] = True
                    asked += 1
                elif answers:
                    question, answer = scene.answers[answers.pop()]
                    part = [*question, *answer, self.end]
                    if place + len(part) > self.length:
                        break
                    new = np.arange(place + len(question), place + len(part))[: MOST_WORDS - spoken]
                    said[row, spoken : spoken + len(new)] = new
                    spoken += len(new)
                else:
                    break
                last = place + len(part)
                ids[row, place:last], segment[row, place:last] = part, number
                positions[row, place:last] = np.arange(start, start + len(part))
                place = last
        arrays = {
            "ids": ids, "said": said, "segment": segment, "positions": positions, "at": at, "chosen": chosen,
            "kinds": kinds, "names": np.stack([scene.names for scene in words]),
        }  # fmt: skip
        return {key: torch.from_numpy(value) for key, value in arrays.items()}


def shortened(wording: list[int], begins: np.ndarray, share: float, rng: np.random.Generator) -> list[int]:
    """``wording`` without about ``share`` of its words, so that what is asked for is read from all of them. The tokens
    before the first at which a word ``begins`` (bool, of each token) stay, and the whole wording where nothing else would."""
    number = np.cumsum(begins)
    kept = rng.random(int(number[-1]) + 1) >= share
    if not kept[1:].any():
        return wording
    kept[0] = True
    return [token for token, stays in zip(wording, kept[number], strict=True) if stays]
