"""Can the queries of the scenes be answered without reasoning? Three answers that do not, by kind of query.

    python scripts/scene_baselines.py --out baselines.json
    python scripts/scene_baselines.py --out baselines.json --checkpoint tiny

- text-blind: one constant policy for each scene, whatever is asked: everything, nothing, all objects, the largest
  object, the most central one, and the object that a policy fitted on training scenes likes best (logistic
  regression on size, place, and how common its kind and colour are). With ``--checkpoint``, also a trained model
  that is given the query "segment" every time.
- image-blind: the mean mask of the training scenes for the words of the query: of the training queries with the most
  words in common (weighted by how rare they are), cut where it is best on the training scenes.
- keywords: a matcher that sees the true list of objects and picks those whose kind, colour, pattern or size is named in
  the query; of several words of one sort any may fit, of several sorts all must. Nothing named: nothing picked.

mIoU is the mean IoU of the masks (the LISA paper's gIoU); nothing picked where nothing is right counts as 1.
"""

import argparse
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from modified_lisa.data.scenes import KINDS, QUERY_KINDS, Query, Scene, make_queries, make_scene
from modified_lisa.data.scenes.colours import COLOURS
from modified_lisa.data.scenes.textures import NAMED_TEXTURES
from modified_lisa.files import write_json

SIDE = 64
SHARES = np.linspace(0.02, 0.9, 23)
Asked = tuple[Scene, Query]
_SIZES = {"small": ("small", "tiny", "little"), "large": ("large", "big", "huge")}


def ask(split: str, scenes: int, seed: int) -> list[Asked]:
    """One query of each kind that a scene offers, as the generator's own choice would be for each kind."""
    found = []
    for number in tqdm(range(scenes), f"{split} scenes", disable=None):
        rng = np.random.default_rng([seed, number])
        scene = make_scene(rng, split=split)
        seen: set[str] = set()
        for query in make_queries(scene, rng, split=split, wordings=1, no_target_share=0.2):
            if query.kind not in seen:
                seen.add(query.kind)
                found.append((scene, query))
    return found


def iou(scene: Scene, query: Query, picked: Sequence[int]) -> float:
    """IoU of the union of some objects with the answer; objects do not overlap, so areas will do."""
    areas = [thing.area for thing in scene.objects]
    both = sum(areas[index] for index in set(picked) & set(query.targets))
    either = sum(areas[index] for index in set(picked) | set(query.targets))
    return both / either if either else 1.0


def features(scene: Scene, index: int) -> list[float]:
    """What can be said of an object without a query; the last is a constant."""
    thing = scene.objects[index]
    x, y = thing.centre[0] / scene.width - 0.5, thing.centre[1] / scene.height - 0.5
    kinds, colours = (Counter(getattr(other, name) for other in scene.objects) for name in ("kind", "colour"))
    order = sorted(range(len(scene.objects)), key=lambda other: -scene.objects[other].area)
    rank = order.index(index) / max(1, len(order) - 1)
    return [
        math.log(thing.share), rank, math.hypot(x, y), x, y, kinds[thing.kind] / len(order),
        colours[thing.colour] / len(order), float(kinds[thing.kind] == 1), float(colours[thing.colour] == 1),
        float(thing.texture in NAMED_TEXTURES), 1 / len(order), 1.0,
    ]  # fmt: skip


def fit_policy(asked: list[Asked]) -> tuple[np.ndarray, float]:
    """Logistic regression of being a target, and the probability above which an object is picked."""
    rows, wanted = [], []
    for scene, query in asked:
        for index in range(len(scene.objects)):
            rows.append(features(scene, index))
            wanted.append(float(index in query.targets))
    x, y = np.array(rows), np.array(wanted)
    weights = np.zeros(x.shape[1])
    for _ in range(30):  # Newton's method
        p = 1 / (1 + np.exp(-x @ weights))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + 1e-3 * np.eye(len(weights))
        weights += np.linalg.solve(hessian, x.T @ (y - p) - 1e-3 * weights)
    return weights, max(
        np.linspace(0.05, 0.6, 23),
        key=lambda cut: np.mean([iou(s, q, by_policy(s, weights, cut)) for s, q in asked]),
    )


def by_policy(scene: Scene, weights: np.ndarray, cut: float) -> list[int]:
    p = 1 / (1 + np.exp(-np.array([features(scene, index) for index in range(len(scene.objects))]) @ weights))
    return [index for index in range(len(p)) if p[index] >= cut] or [int(p.argmax())]


def text_blind(train: list[Asked], test: list[Asked]) -> dict[str, list[float]]:
    """IoUs of each policy."""
    weights, cut = fit_policy(train)

    def central(scene: Scene) -> list[int]:
        off = [
            math.hypot(t.centre[0] / scene.width - 0.5, t.centre[1] / scene.height - 0.5)
            for t in scene.objects
        ]
        return [int(np.argmin(off))]

    def everything(scene: Scene, query: Query) -> float:
        return sum(scene.objects[index].share for index in query.targets)

    policies = {
        "nothing": lambda scene: [],
        "all objects": lambda scene: list(range(len(scene.objects))),
        "the largest object": lambda scene: [int(np.argmax([thing.area for thing in scene.objects]))],
        "the most central object": central,
        "the fitted policy": lambda scene: by_policy(scene, weights, cut),
    }
    found = {
        name: [iou(scene, query, pick(scene)) for scene, query in test] for name, pick in policies.items()
    }
    return {"everything": [everything(*pair) for pair in test], **found}


def squared(scene: Scene, query: Query) -> np.ndarray:
    """The answer on a square of `SIDE`, stretched: bool (SIDE, SIDE)."""
    mask = np.zeros((scene.height, scene.width), np.uint8)
    for index in query.targets:
        mask |= scene.mask(index).astype(np.uint8)
    return cv2.resize(mask * 255, (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 127


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def image_blind(train: list[Asked], test: list[Asked], nearest: int = 40) -> list[float]:
    """IoUs of the mean mask of the training queries nearest in words."""
    texts = [words_of(query.texts[0]) for _, query in train]
    number = Counter(word for words in texts for word in words)
    vocabulary = {word: row for row, word in enumerate(number)}
    weight = np.array([math.log(len(texts) / count) for count in number.values()], np.float32)

    def vectors(sets: list[set[str]]) -> np.ndarray:
        matrix = np.zeros((len(sets), len(vocabulary)), np.float32)
        for row, words in enumerate(sets):
            columns = [vocabulary[word] for word in words if word in vocabulary]
            matrix[row, columns] = weight[columns]
        return matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-6)

    own = vectors(texts)
    masks = np.stack([squared(*pair) for pair in train]).reshape(len(train), -1)

    def means(matrix: np.ndarray, *, leave_out: bool) -> np.ndarray:
        likeness = matrix @ own.T
        if leave_out:
            np.fill_diagonal(likeness, -1)
        return np.stack([masks[np.argpartition(-row, nearest)[:nearest]].mean(0) for row in likeness])

    sample = slice(0, min(1500, len(train)))
    guesses = means(own, leave_out=True)[sample]
    best = max(SHARES, key=lambda share: np.mean(_ious(guesses > share, masks[sample])))
    answers = means(vectors([words_of(query.texts[0]) for _, query in test]), leave_out=False) > best
    return _ious(answers, np.stack([squared(*pair) for pair in test]).reshape(len(test), -1)).tolist()


def _ious(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    either = (one | other).sum(1)
    return np.where(either > 0, (one & other).sum(1) / np.maximum(either, 1), 1.0)


def keywords(scene: Scene, text: str) -> list[int]:
    """The objects whose kind, colour, pattern and size the text names."""
    lowered = text.lower()

    def named(words: Sequence[str]) -> bool:
        return any(re.search(rf"\b{re.escape(word.lower())}\b", lowered) for word in words)

    kinds = {name for name, kind in KINDS.items() if named([word for pair in kind.names for word in pair])}
    colours = {name for name in COLOURS if named([name])}
    textures = {name for name in NAMED_TEXTURES if named([name])}
    sizes = {
        name
        for name, words in _SIZES.items()
        if named([f"{word}{end}" for word in words for end in ("", "er", "est")])
    }
    if not (kinds or colours or textures or sizes):
        return []
    return [
        index
        for index, thing in enumerate(scene.objects)
        if all(
            not wanted or value in wanted
            for wanted, value in (
                (kinds, thing.kind),
                (colours, thing.colour),
                (textures, thing.texture),
                (sizes, thing.size),
            )
        )
    ]


def of_model(checkpoint: str, test: list[Asked], query: str | None) -> list[float]:
    """IoUs of a trained model, given the real queries or (``query``) always the same one."""
    from modified_lisa.inference.segmenter import Segmenter

    segmenter = Segmenter.from_pretrained(checkpoint)
    found = []
    for scene, asked in tqdm(test, "model", disable=None):
        answer = np.zeros((scene.height, scene.width), bool)
        for index in asked.targets:
            answer |= scene.mask(index)
        mask = np.asarray(segmenter.segment(scene.image, query or asked.texts[0]).masks[0]) > 0
        found.append(float(_ious(mask.reshape(1, -1), answer.reshape(1, -1))[0]))
    return found


def summarised(test: list[Asked], ious: Sequence[float]) -> dict[str, float]:
    """mIoU of all, and by kind of query."""
    groups = defaultdict(list)
    for (_, query), value in zip(test, ious, strict=True):
        groups[query.kind].append(value)
    means = {kind: round(float(np.mean(groups[kind])), 4) for kind in QUERY_KINDS if groups[kind]}
    return {"all": round(float(np.mean(ious)), 4), **means}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="write the numbers here, as JSON")
    parser.add_argument("--train", type=int, default=700, help="training scenes, for what is fitted")
    parser.add_argument("--test", type=int, default=300, help="scenes of the val split to measure on")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--checkpoint", help="a trained model to measure too, with and without its query")
    options = parser.parse_args()
    train, test = ask("train", options.train, options.seed), ask("val", options.test, options.seed + 1)
    rows = {f"text-blind: {name}": ious for name, ious in text_blind(train, test).items()}
    rows["image-blind"] = image_blind(train, test)
    rows["keywords"] = [iou(scene, query, keywords(scene, query.texts[0])) for scene, query in test]
    if options.checkpoint:
        rows["text-blind: the model"] = of_model(options.checkpoint, test, "segment")
        rows["the model"] = of_model(options.checkpoint, test, None)
    table: dict[str, Any] = {name: summarised(test, ious) for name, ious in rows.items()}
    counts = Counter(query.kind for _, query in test)
    if options.out:
        about = {
            "train_scenes": options.train,
            "test_scenes": options.test,
            "seed": options.seed,
            "queries": dict(counts),
        }
        write_json(options.out, {**about, "mIoU": table})
    kinds = ["all", *(kind for kind in QUERY_KINDS if counts[kind])]
    print(f"| mIoU | {' | '.join(kinds)} |\n|{' --- |' * (len(kinds) + 1)}")
    for name, means in table.items():
        print(f"| {name} | {' | '.join(f'{means[kind]:.2f}' for kind in kinds)} |")
    print(json.dumps({"queries": dict(counts)}))


if __name__ == "__main__":
    main()
