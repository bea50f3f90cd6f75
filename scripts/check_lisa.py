"""Hold a checkpoint of the original LISA, or what was imported from it, against outputs of the original's code.

    python scripts/check_lisa.py MODEL RECORDING.pt

RECORDING holds, as plain tensors and values (opened with torch's safe loader): ``input_ids`` (B, T) with -200 in the
place of the image; ``images_clip`` (1 or B, 3, S, S); ``sam_image`` (1 or B, 3, 1024, 1024), or ``sam_image_64``, the
same 16 times smaller, to be enlarged (nearest) and zeroed from ``resize`` on; ``original_size`` (H, W);
``seg_token_id``; and the outputs ``pred_masks`` (N, H, W), ``image_embeddings`` or its sample
``image_embeddings_every_8th_channel_4th_row_4th_column``. Prints the largest difference of each, relative to the
largest recorded value; the exit status is 0 if both are below the limit.
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import torch

from modified_lisa import ModifiedLISA
from modified_lisa.errors import ModifiedLISAError
from modified_lisa.model.original_lisa.protocol import ProtocolProcessor

_SAMPLE = "image_embeddings_every_8th_channel_4th_row_4th_column"


def sam_image(recording: dict[str, Any], side: int) -> torch.Tensor:
    """float32 (B, 3, side, side): what SAM's encoder received."""
    if "sam_image" in recording:
        return recording["sam_image"].float()
    small: torch.Tensor = recording["sam_image_64"].float()
    times = side // small.shape[-1]
    image = small.repeat_interleave(times, 2).repeat_interleave(times, 3)
    height, width = recording["resize"]
    image[:, :, height:] = 0
    image[:, :, :, width:] = 0
    return image


def differences(model: ModifiedLISA, recording: dict[str, Any]) -> dict[str, float]:
    """``embedding`` and ``masks``: largest absolute difference over the largest recorded absolute value."""
    processor = model.processor
    if not isinstance(processor, ProtocolProcessor):
        raise SystemExit("the model was not made from a checkpoint of the original LISA")
    inputs = processor.from_tensors(
        recording["input_ids"],
        recording["images_clip"],
        sam_image(recording, processor.sam_side),
        [recording["original_size"]],
        seg_token_id=recording.get("seg_token_id"),
    ).to(model.device)
    with torch.no_grad():
        embedding = model.vision(inputs.vlm_pixels, inputs.sam_pixels).embedding
        logits = model(inputs)["pred_masks"]
        masks = torch.cat(
            [frame.mask_to_image(each) for frame, each in zip(inputs.frames, logits, strict=True)]
        )
    if _SAMPLE in recording:
        theirs, ours = recording[_SAMPLE], embedding[:, ::8, ::4, ::4]
    else:
        theirs, ours = recording["image_embeddings"], embedding
    return {
        "embedding": _relative(ours[: len(theirs)], theirs),
        "masks": _relative(masks, recording["pred_masks"]),
    }


def _relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    if ours.shape != theirs.shape:
        raise SystemExit(f"{tuple(ours.shape)} here and {tuple(theirs.shape)} in the recording")
    return float((ours.cpu() - theirs).abs().max() / theirs.abs().max())


def main(argv: list[str] | None = None) -> int:
    """Compare; print; 0 if all is below the limit."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("model", metavar="MODEL", help="a checkpoint in the original's layout, or imported")
    parser.add_argument("recording", metavar="RECORDING", type=Path, help="a .pt of inputs and outputs")
    parser.add_argument(
        "--limit", type=float, default=1e-4, help="largest relative difference (default: 1e-4)"
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    arguments = parser.parse_args(argv)
    if not arguments.recording.is_file():
        parser.error(f"there is no file {arguments.recording}")
    recording = torch.load(arguments.recording, weights_only=True)
    options: dict[str, Any] = {"dtype": "fp32", "quantize": False}
    if recording.get("seg_token_id") is not None:
        options["seg_token_id"] = int(recording["seg_token_id"])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the recording says where [SEG] is
            model = ModifiedLISA.from_pretrained(arguments.model, arguments.device, **options)
        found = differences(model, recording)
    except ModifiedLISAError as error:
        parser.error(str(error))
    for name, value in found.items():
        print(f"{name:<10}{value:.2e}  {'ok' if value < arguments.limit else 'too large'}")
    return 0 if max(found.values()) < arguments.limit else 1


if __name__ == "__main__":
    sys.exit(main())
