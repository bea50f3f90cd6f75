"""The arguments of ``modified-lisa evaluate`` and ``calibrate``. No torch here: ``--help`` answers at once."""

import argparse

from modified_lisa.training.arguments import add_dataset_arguments

__all__ = ["add_calibrate_arguments", "add_evaluate_arguments"]


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all but those of the model."""
    _add_checkpoint(parser)
    _add_data(parser)
    parser.add_argument(
        "--protocol",
        default="teacher_forced",
        choices=("teacher_forced", "generated", "both"),
        metavar=None,
        help="teacher_forced: <SEG> is given, as LISA measures; generated: what the model writes is measured; both: one"
        " after the other (default: teacher_forced)",
    )
    parser.add_argument(
        "--max_new_tokens",
        type=int,
        metavar="N",
        help="longest answer of the generated protocol (default: 256)",
    )
    parser.add_argument(
        "--output_dir",
        metavar="DIR",
        help="where to write a report page (HTML), the metrics (JSON), each sample's results (JSON lines) and a"
        " sheet of overlays (default: nothing is written)",
    )
    parser.add_argument(
        "--per_sample",
        metavar="PATH",
        help="write each sample's results to this file, one JSON object a line (default: only in --output_dir)",
    )
    _add_batches(parser)


def add_calibrate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all but those of the model."""
    _add_checkpoint(parser)
    parser.add_argument(
        "out", metavar="OUT", help="folder for the calibrated checkpoint; not one that holds one"
    )
    _add_data(parser)
    _add_batches(parser)


def _add_checkpoint(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="a .pt file of the training, a folder of save_pretrained, or tiny",
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data_dir", default=".", metavar="DIR", help="folder that holds the split (default: .)"
    )
    parser.add_argument(
        "--split",
        default="val",
        metavar="NAME",
        help="split to measure on: a folder in DIR, or testA and so on of a refCOCO set (default: val)",
    )
    add_dataset_arguments(parser)


def _add_batches(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--batch_size", type=int, default=1, metavar="N", help="images at once (default: 1)")
    parser.add_argument(
        "--max_samples", type=int, metavar="N", help="only the first N samples (default: all)"
    )
    parser.add_argument(
        "--num_workers", type=int, default=0, metavar="N", help="processes that prepare batches (default: 0)"
    )
    parser.add_argument(
        "--skip_bad_samples", action="store_true", help="go on without broken samples instead of listing them"
    )
