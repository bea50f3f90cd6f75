"""Records as an evaluation makes them, from a few numbers."""

from typing import Any

import numpy as np


def record(name: str, intersection: int = 5, union: int = 10, **other: Any) -> dict[str, Any]:
    iou = intersection / union if union else 1.0
    made = {
        "name": name,
        "text": "what?",
        "type": None,
        "is_sentence": None,
        "groups": {},
        "iou": iou,
        "giou": iou,
        "intersection": intersection,
        "union": union,
        "boundary_iou": iou / 2,
        "iou_prediction": 0.5,
        "target_area": union,
        "predicted_area": intersection,
        "target_empty": union == 0,
        "predicted_empty": union == 0,
    }
    return {**made, **other}


def random_records(seed: int, images: int = 12) -> list[dict[str, Any]]:
    """One to three queries an image, some without a target."""
    rng = np.random.default_rng(seed)
    made = []
    for image in range(images):
        for query in range(rng.integers(1, 4)):
            union = int(rng.integers(0, 4)) * int(rng.integers(1, 500))
            made.append(
                record(
                    f"val/{image}#{query}",
                    int(rng.integers(0, union + 1)),
                    union,
                    iou_prediction=float(rng.random()),
                    target_empty=bool(rng.random() < 0.3),
                    predicted_empty=bool(rng.random() < 0.3),
                    groups={"type": str(rng.choice(["use", "relation"]))},
                )
            )
    return made
