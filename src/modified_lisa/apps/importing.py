"""``modified-lisa import-lisa``, with a bar that knows how long it will take."""

import argparse
import warnings

from tqdm import tqdm

from modified_lisa.model.original_lisa.importing import import_lisa

__all__ = ["run"]


def run(arguments: argparse.Namespace) -> None:
    """Convert ``arguments.source`` into the folder ``arguments.out``."""
    bar: tqdm | None = None

    def progress(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:  # not before everything that can be wrong has been looked at
            bar = tqdm(total=total, unit="B", unit_scale=True, unit_divisor=1024, desc="weights", leave=False)
        bar.update(done - bar.n)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", UserWarning)
        folder = import_lisa(
            arguments.source,
            arguments.out,
            dtype=arguments.dtype,
            quantize=arguments.quantize,
            vision_tower=arguments.vision_tower,
            tokenizer=arguments.tokenizer,
            seg_token_id=arguments.seg_token_id,
            progress=progress,
        )
    if bar is not None:
        bar.close()
    for warning in said:
        if issubclass(warning.category, UserWarning):
            print(f"note: {warning.message}")
    print(f"wrote {folder}: config.json, model.safetensors, vlm/, sam/")
    if (folder / "vlm" / "tokenizer.json").is_file():
        print(f"try: modified-lisa segment photo.jpg 'what to sit on' --checkpoint {folder}")
    else:
        print("it has no tokenizer: it takes token ids (processor.from_tensors), not words")
