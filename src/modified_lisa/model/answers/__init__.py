"""Answers in words with masks in them: prompts, the answer head, generation, training. Read `generation` first."""

from modified_lisa.model.answers.generation import generate_answers
from modified_lisa.model.answers.head import build_answer_head

__all__ = ["build_answer_head", "generate_answers"]
