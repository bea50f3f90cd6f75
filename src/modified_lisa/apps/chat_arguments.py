"""The arguments of ``modified-lisa chat``. No torch here: ``--help`` answers at once."""

import argparse

__all__ = ["add_chat_arguments"]


def add_chat_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all but those of the model."""
    parser.add_argument("image", metavar="IMAGE", help="an image file, of any mode and size")
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="a .pt file of a training with --ce_weight, or a folder of save_pretrained; a checkpoint that was not trained"
        " to answer in words answers each line with a mask (default: the bundled tiny model)",
    )
    parser.add_argument(
        "--out_dir",
        default=".",
        metavar="DIR",
        help="folder for the overlay of each answer, named IMAGE_answer_N.png (default: .)",
    )
    parser.add_argument(
        "--max_new_tokens", type=int, default=256, metavar="N", help="longest answer (default: 256)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.0,
        metavar="LOGIT",
        help="a pixel is in the mask if its logit is above this (default: 0)",
    )
