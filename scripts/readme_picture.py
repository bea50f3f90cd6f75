"""Draw the README's picture: python scripts/readme_picture.py

Scenes of the test split, which the bundled model was not trained on, and its answers to queries written by hand.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from modified_lisa import Segmenter
from modified_lisa.data.scenes import make_scene
from modified_lisa.files import write_atomically
from modified_lisa.pictures import text_block

WIDTH, GAP = 280, 12
SCENES = (
    (
        16,
        (
            "what would keep me dry here?",
            "something a monkey would like",
            "It is dark in here. What could help?",
        ),
    ),
    (51, ("what would I drink from?", "which of these could take me to town?", "what should I wear?")),
)
"""Seed, and what is asked. Nothing in the last scene can be worn."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", help="default: the bundled model")
    parser.add_argument("--out", type=Path, default=Path("docs/images/segment.png"))
    options = parser.parse_args()
    segmenter = Segmenter.from_pretrained(options.checkpoint)
    rows = [row(segmenter, seed, queries) for seed, queries in SCENES]
    sheet = Image.new(
        "RGB", (rows[0].width, sum(part.height for part in rows) + GAP * (len(rows) + 1)), "white"
    )
    top = GAP
    for part in rows:
        sheet.paste(part, (0, top))
        top += part.height + GAP
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, lambda file: sheet.save(file, format="PNG", optimize=True))


def row(segmenter: Segmenter, seed: int, queries: tuple[str, ...]) -> Image.Image:
    """One scene and the answers, the query above each."""
    scene = make_scene(np.random.default_rng(seed), split="test", size=(400, 300))
    pictures = [Image.fromarray(scene.image)]
    pictures += [segmenter.segment(scene.image, query).overlay() for query in queries]
    height = WIDTH * 3 // 4
    sheet = Image.new("RGB", (len(pictures) * (WIDTH + GAP) + GAP, height + 60), "white")
    for place, (picture, text) in enumerate(zip(pictures, ["an image", *queries], strict=True)):
        left = GAP + place * (WIDTH + GAP)
        sheet.paste(text_block(text, WIDTH, size=16, bold=place > 0), (left, 0))
        sheet.paste(picture.resize((WIDTH, height), Image.Resampling.LANCZOS), (left, 60))
    return sheet


if __name__ == "__main__":
    main()
