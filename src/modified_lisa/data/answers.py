"""What a model in answer mode is taught to say: a question and an answer for each sample, drawn from templates."""

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from modified_lisa.data.sample import Sample
from modified_lisa.errors import DataError
from modified_lisa.prompts import SEG_TOKEN
from modified_lisa.templates import ANSWERS, EXPLAIN, NO_TARGET_ANSWER, PHRASES, SENTENCES, is_sentence

__all__ = ["EXPLANATIONS", "AnswerWriter", "read_explanations"]

EXPLANATIONS = Path("explanatory") / "train.json"
"""Where a ReasonSeg folder keeps them."""
_LENGTH = {"long": True, "short": False}


@dataclass(frozen=True)
class AnswerWriter:
    """``writer(sample)`` -> (question, answer); the same for the same sample, seed and epoch.

    Half of the samples of an image with an explanation are asked for it, as in LISA. LISA also asks some
    questions whose answer has no ``<SEG>``; here that is kept for queries without a target.
    """

    seed: int = 0
    epoch: int = 0
    no_target_answer: str = NO_TARGET_ANSWER
    explanations: Mapping[str, str] = field(default_factory=dict)
    """{stem of the image's file: explanation}."""

    def __call__(self, sample: Sample) -> tuple[str, str]:
        rng = np.random.default_rng([self.seed, self.epoch, zlib.crc32(sample.name.encode())])
        query = sample.text.replace(SEG_TOKEN, "").strip()
        sentence = _LENGTH.get(sample.groups.get("length", ""), is_sentence(query))
        questions = SENTENCES if sentence else PHRASES
        question = questions[rng.integers(len(questions))].format(query)
        if not bool((sample.target == 1).any()):
            return question, self.no_target_answer
        answer = ANSWERS[rng.integers(len(ANSWERS))]
        stem = sample.name.rpartition("/")[2].rpartition("#")[0]
        explanation = self.explanations.get(stem)
        if explanation is not None and rng.random() < 0.5:
            return f"{query} {EXPLAIN[rng.integers(len(EXPLAIN))]}", f"{answer} {explanation}"
        return question, answer


def read_explanations(root: str | os.PathLike[str]) -> dict[str, str]:
    """{stem of the image's file: explanation} of a ReasonSeg folder; {} where it has none.

    ``root/explanatory/train.json`` is LISA's: a list of ``{"image": "1.jpg", "query": ..., "outputs": ...}``.
    DataError for anything else.
    """
    path = Path(root) / EXPLANATIONS
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(entries, list):
        raise DataError(f"{path}: a list of objects with image, query and outputs is expected")
    found: dict[str, str] = {}
    for number, entry in enumerate(entries, 1):
        image, outputs = (
            (entry.get("image"), entry.get("outputs")) if isinstance(entry, dict) else (None, None)
        )
        if not isinstance(image, str) or not isinstance(outputs, str):
            raise DataError(f'{path}: entry {number} must have "image" and "outputs", both strings')
        text = " ".join(outputs.replace("[SEG]", "").replace(SEG_TOKEN, "").split())
        if text:
            found[Path(image).stem] = text
    return found
