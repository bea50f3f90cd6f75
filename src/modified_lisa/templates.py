"""Questions and answers in words, as a model in answer mode is taught them (the lists of LISA, Lai et al. 2023).

The first of each list is the one that is used where nothing is drawn at random: a question is then asked as
it stands, and the answer that is given is ``<SEG>.``
"""

from modified_lisa.prompts import SEG_TOKEN

__all__ = ["ANSWERS", "EXPLAIN", "NO_TARGET_ANSWER", "PHRASES", "SENTENCES", "given_answer", "is_sentence"]

SENTENCES = (
    "{}",
    "{} Please respond with segmentation mask.",
    "{} Please output segmentation mask.",
)
"""Around a query that is a whole sentence."""
PHRASES = (
    "{}",
    "Can you segment {} in this image?",
    "Please segment {} in this image.",
    "What is {} in this image? Please respond with segmentation mask.",
    "What is {} in this image? Please output segmentation mask.",
)
"""Around a query that is a phrase. LISA has "the {}"; the queries of ReasonSeg bring their own article."""
EXPLAIN = (
    "Please output segmentation mask and explain why.",
    "Please output segmentation mask and explain the reason.",
    "Please output segmentation mask and give some explanation.",
)
"""Behind a query whose answer explains itself."""
ANSWERS = (
    f"{SEG_TOKEN}.",
    f"It is {SEG_TOKEN}.",
    f"Sure, {SEG_TOKEN}.",
    f"Sure, it is {SEG_TOKEN}.",
    f"Sure, the segmentation result is {SEG_TOKEN}.",
)
"""To a query with a target."""
NO_TARGET_ANSWER = "There is no such thing in this image."
"""To a query that nothing in the image answers; ``--no_target_answer`` replaces it."""


def is_sentence(text: str) -> bool:
    """Whether a query of which the data says nothing is taken for a sentence: by its last letter."""
    return text.rstrip().endswith((".", "?", "!"))


def given_answer(masks: int = 1) -> str:
    """The answer up to its last ``<SEG>``, where the answer is given: ``<SEG> and <SEG>`` for two masks."""
    return " and ".join([SEG_TOKEN] * masks)
