"""Questions about a scene, each with the objects that answer it.

A query is only made when its answer is beyond doubt (`judge.py`), leaves at least one object out, and uses
no combination that the split must not see. A later kind of query without any target fits in as a builder
that gives an empty ``targets``; none does yet.
"""

from dataclasses import dataclass

import numpy as np

from modified_lisa.data.scenes import builders_more, builders_one
from modified_lisa.data.scenes.drafts import Context, Draft
from modified_lisa.data.scenes.held_out import allows_held_out, is_held_out
from modified_lisa.data.scenes.scene import Scene
from modified_lisa.data.scenes.speaker import Speaker, is_sentence
from modified_lisa.data.scenes.wordings import COMMANDS, QUESTIONS

__all__ = ["QUERY_KINDS", "Query", "make_queries"]

_BUILDERS = {
    "attribute": builders_one.attribute,
    "superlative": builders_one.superlative,
    "comparison": builders_one.comparison,
    "relation": builders_more.relation,
    "counting": builders_one.counting,
    "negation": builders_one.negation,
    "use": builders_one.use,
    "two-step": builders_more.two_step,
    "several-targets": builders_more.several,
}
QUERY_KINDS = tuple(_BUILDERS)
_WEIGHTS = np.array([0.13, 0.14, 0.07, 0.15, 0.09, 0.11, 0.14, 0.1, 0.07])
_ATTEMPTS = 12
_HELD_OUT_WORDINGS = 0.4  # of the queries of val and test


@dataclass(frozen=True)
class Query:
    """One question in several wordings."""

    texts: tuple[str, ...]
    """All phrases, or all sentences; all with held-out wording, or none."""
    targets: tuple[int, ...]
    """Indices of the objects that answer it, ascending."""
    kind: str
    """One of `QUERY_KINDS`."""
    wording_held_out: bool
    combination_held_out: bool
    is_sentence: bool
    concept: str
    """What exactly is asked: "left", "kind count", "use: rolls"."""


def make_queries(
    scene: Scene, rng: np.random.Generator, *, split: str, count: int | None = None, wordings: int = 4
) -> list[Query]:
    """Up to ``count`` different queries (None: about two of each kind), each in up to ``wordings`` texts.

    Queries of one scene differ in what they ask for. Some scenes offer fewer than ``count``, or none.
    """
    context = Context(scene, rng, allows_held_out(split))
    wanted = 2 * len(QUERY_KINDS) if count is None else count
    order = rng.choice(len(QUERY_KINDS), len(QUERY_KINDS), replace=False, p=_WEIGHTS)
    queries: list[Query] = []
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for _ in range(2 if count is None else max(1, -(-wanted // len(QUERY_KINDS)) + 1)):
        for index in order:
            kind = QUERY_KINDS[int(index)]
            draft = _draft(context, kind)
            if draft is None or (draft.concept, draft.targets) in seen:
                continue
            seen.add((draft.concept, draft.targets))
            queries.append(_worded(context, kind, draft, wordings))
            if len(queries) >= wanted:
                return queries
    return queries


def _draft(context: Context, kind: str) -> Draft | None:
    for _ in range(_ATTEMPTS):
        draft = _BUILDERS[kind](context)
        if draft is None or not 0 < len(draft.targets) < len(context.scene.objects):
            continue
        if context.may_use(_pairs(context.scene, draft)):
            return draft
    return None


def _pairs(scene: Scene, draft: Draft) -> set[tuple[str, str]]:
    """The combinations in the wording and in the targets."""
    return set(draft.pairs).union(*(scene.objects[index].pairs for index in draft.targets))


def _worded(context: Context, kind: str, draft: Draft, wordings: int) -> Query:
    rng = context.rng
    sentence = bool(rng.random() < 0.6)
    held_out = context.held_out and bool(rng.random() < _HELD_OUT_WORDINGS)
    texts: dict[str, None] = {}
    for _ in range(int(rng.integers(1, wordings + 1)) if wordings > 1 else 1):
        speaker = Speaker(rng, held_out=held_out)
        texts[_text(speaker, draft, sentence)] = None
    return Query(
        texts=tuple(texts),
        targets=tuple(sorted(draft.targets)),
        kind=kind,
        wording_held_out=held_out,
        combination_held_out=any(is_held_out(*pair) for pair in _pairs(context.scene, draft)),
        is_sentence=sentence,
        concept=draft.concept,
    )


def _text(speaker: Speaker, draft: Draft, sentence: bool) -> str:
    plural = len(draft.targets) > 1
    own = [text for text in draft.templates if is_sentence(text) and text.startswith("!") is speaker.held_out]
    phrases = [template for template in draft.templates if not is_sentence(template)]
    if sentence and own and speaker.rng.random() < 0.5:
        return _capital(speaker.fill(speaker.pick(own), draft.slots, plural))
    phrase = speaker.fill(speaker.pick(phrases), draft.slots, plural)
    if not sentence:
        return phrase
    around = (
        COMMANDS
        if phrase.startswith(("what", "every", "all", "any", "of ", "among", "counting"))
        else COMMANDS + QUESTIONS
    )
    if phrase.startswith(("of ", "among", "counting")):
        return f"Show me this: {phrase}."
    return speaker.fill(speaker.pick(around), {"np": phrase}, plural)


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
