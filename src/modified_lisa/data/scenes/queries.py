"""Questions about a scene, each with the objects that answer it.

A query is only made when its answer is beyond doubt (`judge.py`), leaves at least one object out, and uses
no combination that the split must not see. A query of the kind "no-target" has no answer, beyond doubt too.
"""

import re
from dataclasses import dataclass

import numpy as np

from modified_lisa.data.scenes import builders_more, builders_none, builders_one
from modified_lisa.data.scenes.drafts import Context, Draft
from modified_lisa.data.scenes.held_out import HELD_OUT_KINDS, allows_held_out, is_held_out
from modified_lisa.data.scenes.kinds import KINDS
from modified_lisa.data.scenes.scene import Scene
from modified_lisa.data.scenes.speaker import Speaker, is_sentence
from modified_lisa.data.scenes.wordings import COMMANDS, QUESTIONS

__all__ = ["HELD_OUT", "NO_TARGET", "NO_TARGET_SHARE", "QUERY_KINDS", "Query", "make_queries"]

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
_ANSWERED = tuple(_BUILDERS)
NO_TARGET = "no-target"
QUERY_KINDS = (*_ANSWERED, NO_TARGET)
NO_TARGET_SHARE = 0.1
"""Of the queries, where nobody says otherwise."""
HELD_OUT = ("wording", "combination", "kind")
"""What may be held out of a query; each is a field of `Query`."""
_WEIGHTS = np.array([0.13, 0.14, 0.07, 0.15, 0.09, 0.11, 0.14, 0.1, 0.07])
_NO_NOUN = (
    "what",
    "every",
    "all",
    "any",
    "some",
    "of ",
    "among",
    "counting",
    "each",
    "a ",
    "an ",
    "no",
    "number",
)
"""Beginnings of phrases that "Where is ..." does not go with."""
_BARE = (
    "{n}",
    "{ns}",
    "{c} {",
    "{d} {",
    "biggest",
    "largest",
    "smallest",
    "tiniest",
    "tallest",
    "widest",
    "leftmost",
    "rightmost",
    "topmost",
    "lowest",
    "second",
)
_ATTEMPTS = 12
_UNSEEN = re.compile(
    rf"\b({'|'.join(name for kind in sorted(HELD_OUT_KINDS) for pair in KINDS[kind].names for name in pair)})\b",
    re.IGNORECASE,
)
_HELD_OUT_WORDINGS = 0.4  # of the queries of val and test


@dataclass(frozen=True)
class Query:
    """One question in several wordings."""

    texts: tuple[str, ...]
    """All phrases, or all sentences; all with held-out wording, or none."""
    targets: tuple[int, ...]
    """Indices of the objects that answer it, ascending; none for the kind "no-target"."""
    kind: str
    """One of `QUERY_KINDS`."""
    wording_held_out: bool
    combination_held_out: bool
    kind_held_out: bool
    """Whether a target is of a kind that training never sees, or a text names such a kind."""
    is_sentence: bool
    concept: str
    """What exactly is asked: "left", "kind count", "use: rolls"."""


def make_queries(
    scene: Scene,
    rng: np.random.Generator,
    *,
    split: str,
    count: int | None = None,
    wordings: int = 4,
    no_target_share: float = NO_TARGET_SHARE,
) -> list[Query]:
    """Up to ``count`` different queries (None: about two of each kind), each in up to ``wordings`` texts.

    About ``no_target_share`` of them are of the kind "no-target". Queries of one scene differ in what they ask for. Some scenes offer fewer than ``count``, or none.
    """
    context = Context(scene, rng, allows_held_out(split))
    wanted = 2 * len(_ANSWERED) if count is None else count
    order = rng.choice(len(_ANSWERED), len(_ANSWERED), replace=False, p=_WEIGHTS)
    queries: list[Query] = []
    seen: set[tuple[str, tuple[int, ...]]] = set()
    for _ in range(2 if count is None else max(1, -(-wanted // len(_ANSWERED)) + 1)):
        for index in order:
            kind = NO_TARGET if rng.random() < no_target_share else _ANSWERED[int(index)]
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
        draft = builders_none.nothing(context) if kind == NO_TARGET else _BUILDERS[kind](context)
        if draft is None:
            continue
        if kind != NO_TARGET and not 0 < len(draft.targets) < len(context.scene.objects):
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
        speaker = Speaker(rng, held_out=held_out, training=not context.held_out)
        texts[_text(speaker, draft, sentence)] = None
    return Query(
        texts=tuple(texts),
        targets=tuple(sorted(draft.targets)),
        kind=kind,
        wording_held_out=held_out,
        combination_held_out=any(is_held_out(*pair) for pair in _pairs(context.scene, draft)),
        kind_held_out=any(context.scene.objects[index].kind in HELD_OUT_KINDS for index in draft.targets)
        or any(_UNSEEN.search(text) for text in texts),
        is_sentence=sentence,
        concept=draft.concept,
    )


def _text(speaker: Speaker, draft: Draft, sentence: bool) -> str:
    plural = len(draft.targets) > 1 if draft.plural is None else draft.plural
    own = [text for text in draft.templates if is_sentence(text) and text.startswith("!") is speaker.held_out]
    own = [text for text in own if speaker.knows(text)]
    phrases = [template for template in draft.templates if not is_sentence(template)]
    if sentence and own and speaker.rng.random() < 0.5:
        return _capital(speaker.fill(speaker.pick(own), draft.slots, plural))
    if sentence:  # "Segment red ball." is no English
        phrases = [text for text in phrases if not text.lstrip("!").startswith(_BARE)]
    phrase = speaker.fill(speaker.pick(phrases), draft.slots, plural)
    if not sentence:
        return phrase
    around = COMMANDS if phrase.startswith(_NO_NOUN) else COMMANDS + QUESTIONS
    if phrase.startswith(("of ", "among", "counting")):
        return f"Show me this: {phrase}."
    return _capital(speaker.fill(speaker.pick(around), {"np": phrase}, plural))


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
