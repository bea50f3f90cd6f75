"""Draw the README's picture: python scripts/readme_picture.py

Scenes of a seed that the bundled model was not trained on, two queries each, answered by the bundled model.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from modified_lisa import Segmenter
from modified_lisa.data.scenes import make_queries, make_scene
from modified_lisa.files import write_atomically
from modified_lisa.pictures import text_block

WIDTH, GAP = 300, 12


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="one row each")
    parser.add_argument("--checkpoint", help="default: the bundled model")
    parser.add_argument("--out", type=Path, default=Path("docs/images/segment.png"))
    options = parser.parse_args()
    segmenter = Segmenter.from_pretrained(options.checkpoint)
    rows = [row(segmenter, seed) for seed in options.seeds]
    sheet = Image.new(
        "RGB", (rows[0].width, sum(part.height for part in rows) + GAP * (len(rows) + 1)), "white"
    )
    top = GAP
    for part in rows:
        sheet.paste(part, (0, top))
        top += part.height + GAP
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(options.out, lambda file: sheet.save(file, format="PNG", optimize=True))


def row(segmenter: Segmenter, seed: int) -> Image.Image:
    """One scene and the answers to its first two queries, the query above each."""
    rng = np.random.default_rng(seed)
    scene = make_scene(rng, split="test", size=(400, 300))
    queries = [query.texts[0] for query in make_queries(scene, rng, split="test", count=2)]
    pictures = [Image.fromarray(scene.image)]
    pictures += [segmenter.segment(scene.image, query).overlay() for query in queries]
    sheet = Image.new("RGB", (3 * WIDTH + 4 * GAP, 225 + 85), "white")
    for place, (picture, text) in enumerate(zip(pictures, ["an image", *queries], strict=True)):
        left = GAP + place * (WIDTH + GAP)
        sheet.paste(text_block(text, WIDTH, size=16, bold=place > 0), (left, 0))
        sheet.paste(picture.resize((WIDTH, 225), Image.Resampling.LANCZOS), (left, 85))
    return sheet


if __name__ == "__main__":
    main()
