"""What the tokenizer of the tiny VLM is trained on."""

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from modified_lisa.data.scenes import describe, make_queries, make_scene
from modified_lisa.data.scenes.facts import FACTS

WORDS = Path(__file__).with_name("words.txt")


def corpus_part(job: tuple[int, int]) -> list[str]:
    """Text of ``job[1]`` training scenes, as the tokenizer will meet it."""
    seed, scenes = job
    rng = np.random.default_rng([seed, 7])
    texts = []
    for _ in range(scenes):
        scene = make_scene(rng, split="train", size=(128, 128))
        texts += [f"USER: \n{question} ASSISTANT: {answer} " for question, answer in describe(scene, rng)]
        texts += [
            f"USER: \n{text} " for query in make_queries(scene, rng, split="train") for text in query.texts
        ]
    return texts


def corpus(seed: int, scenes: int, workers: int, more: Sequence[str] = ()) -> list[str]:
    """Text of the training split, every wording of every fact that is not held out, and English words in their usual
    places: those of words.txt, and ``more``."""
    jobs = [(seed * 1000 + number, -(-scenes // workers)) for number in range(workers)]
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        texts = [text for part in pool.map(corpus_part, jobs) for text in part]
    # One token each: <SEG> starts as the mean of these two.
    texts += ["segmentation mask"] * 400
    words = WORDS.read_text(encoding="utf-8").split()
    texts += [f" {word} {word.capitalize()}" for word in words] * 4
    texts += [f" {word}" for word in more] * 8
    texts += [text for fact in FACTS.values() for text in fact.wordings if not text.startswith("!")] * 2
    return texts
