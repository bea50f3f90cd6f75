"""The ``modified-lisa`` command: which subcommands there are, their arguments, and what errors look like.

Nothing heavy is imported here, so that ``--help`` answers at once; `commands` does the work.
"""

import argparse
import errno
import io
import os
import sys
from collections.abc import Callable, Sequence

from modified_lisa import __version__
from modified_lisa.apps.chat_arguments import add_chat_arguments
from modified_lisa.apps.evaluate_arguments import add_calibrate_arguments, add_evaluate_arguments
from modified_lisa.benchmark.arguments import add_arguments as add_benchmark_arguments
from modified_lisa.config import DTYPES, QUANTIZATIONS
from modified_lisa.errors import ModifiedLISAError
from modified_lisa.training.arguments import add_arguments as add_training_arguments
from modified_lisa.training.distillation.settings import add_arguments as add_distillation_arguments

__all__ = ["build_parser", "main"]

Command = Callable[[argparse.Namespace], None]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (None: this process's own) and return the exit status.

    0: done. 2: something the user can put right, said in one message. 130: interrupted. 141: whoever read
    the output has stopped reading. Any other exception is a bug in this package and shows its traceback.
    """
    arguments = build_parser().parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # letters of a file's name that the output cannot show
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments.run(arguments)
        if sys.stdout is not None:  # closed by whoever started this
            sys.stdout.flush()
    except ModifiedLISAError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        print("modified-lisa: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        _drop_output()
        return 141
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        if error.filename is None:  # files say which they are (`files.write_atomically`)
            _drop_output()
            return _refuse("the output cannot be written: no space left on the device")
        return _refuse(f"{error.filename}: {error.strerror}")  # a path given that cannot be read or written
    return 0


def _drop_output() -> None:
    """Python flushes stdout once more as it ends; give it somewhere to write."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(message: str) -> int:
    print(f"modified-lisa: error: {message}", file=sys.stderr)
    return 2


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command; ``run`` in its result is what to call with the result."""
    parser = argparse.ArgumentParser(
        prog="modified-lisa",
        description="Reasoning segmentation: an image and a question in plain words go in, a mask comes out.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"modified-lisa {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_segment,
        _add_chat,
        _add_scenes,
        _add_train,
        _add_evaluate,
        _add_calibrate,
        _add_merge_results,
        _add_import_lisa,
        _add_benchmark,
        _add_distill,
    ):
        add(commands)
    return parser


def _command(
    commands: "argparse._SubParsersAction", name: str, text: str, epilog: str | None = None
) -> argparse.ArgumentParser:
    """A subcommand that is carried out by the function of its name in `commands`."""

    def run(arguments: argparse.Namespace) -> None:
        from modified_lisa.apps import commands as heavy

        getattr(heavy, name.replace("-", "_"))(arguments)

    added: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text[0].upper() + text[1:] + ".", epilog=epilog, allow_abbrev=False
    )
    added.set_defaults(run=run)
    return added


def _add_segment(commands: "argparse._SubParsersAction") -> None:
    parser = _command(
        commands,
        "segment",
        "answer a query about an image with a mask",
        epilog="Example: modified-lisa segment photo.jpg 'what to sit on' --out overlay.png",
    )
    parser.add_argument("image", metavar="IMAGE", help="an image file, of any mode and size")
    parser.add_argument(
        "query", metavar="QUERY", help="what to segment, in words; each <SEG> in it gives a mask"
    )
    parser.add_argument(
        "--out",
        metavar="PATH",
        help="where to write the answer: .png or .jpg draws it on the image, .npz holds the masks, .json"
        " everything (default: IMAGE's name with _overlay.png, in the current folder; none with --json)",
    )
    parser.add_argument(
        "--json",
        nargs="?",
        const="-",
        type=_json_path,
        metavar="PATH",
        help="write the masks, scores, boxes and polygons as JSON; without PATH, to the standard output and"
        " nothing else there. Put it after IMAGE and QUERY.",
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.0,
        metavar="LOGIT",
        help="a pixel is in the mask if its logit is above this; higher gives smaller masks (default: 0)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        help="a .pt file of the training or a folder of save_pretrained (default: the bundled tiny model)",
    )
    _add_model_options(parser)


def _add_chat(commands: "argparse._SubParsersAction") -> None:
    parser = _command(
        commands,
        "chat",
        "talk about an image in the terminal",
        epilog="Example: modified-lisa chat photo.jpg --checkpoint checkpoints/best_model_epoch_20.pt",
    )
    add_chat_arguments(parser)
    _add_model_options(parser)


def _add_evaluate(commands: "argparse._SubParsersAction") -> None:
    parser = _command(commands, "evaluate", "measure a checkpoint on a split of a data folder")
    add_evaluate_arguments(parser)
    _add_model_options(parser)


def _add_calibrate(commands: "argparse._SubParsersAction") -> None:
    parser = _command(
        commands,
        "calibrate",
        "make the IoU that a checkpoint predicts right on average, and save the checkpoint anew",
        epilog="Example: modified-lisa calibrate checkpoints/best_model_epoch_20.pt models/calibrated --data_dir DATA",
    )
    add_calibrate_arguments(parser)
    _add_model_options(parser)


def _add_merge_results(commands: "argparse._SubParsersAction") -> None:
    parser = _command(
        commands,
        "merge-results",
        "merge what evaluate measured for several seeds, and compare two models on the same samples",
        epilog="Example: modified-lisa merge-results seed_1 seed_2 seed_3 --against base_1 base_2 base_3",
    )
    parser.add_argument(
        "results",
        nargs="+",
        metavar="RESULT",
        help="one for each seed: an --output_dir of evaluate, or its results_SPLIT.jsonl",
    )
    parser.add_argument(
        "--against",
        nargs="+",
        default=[],
        metavar="RESULT",
        help="results of another model on the same samples; the difference is reported (default: none)",
    )
    parser.add_argument("--out", metavar="PATH", help="also write everything as JSON (default: no file)")


def _add_scenes(commands: "argparse._SubParsersAction") -> None:
    parser = _command(
        commands, "scenes", "generate synthetic scenes with queries, in the layout of ReasonSeg"
    )
    parser.add_argument("out", metavar="OUT", help="folder to make; train/, val/ and test/ come into it")
    for split, number in (("train", 1000), ("val", 100), ("test", 100)):
        parser.add_argument(
            f"--{split}",
            type=int,
            default=number,
            metavar="N",
            help=f"scenes in {split}/ (default: {number})",
        )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="the same seed, the same bytes (default: 0)"
    )
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes (default: one for each core, one for a few scenes)",
    )
    parser.add_argument(
        "--no_target_share",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="share of the queries that ask for what is not there (default: 0.1)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace scenes that are already in OUT")


def _add_train(commands: "argparse._SubParsersAction") -> None:
    parser = _command(
        commands,
        "train",
        "train on a data folder; the same as scripts/train_new2.py",
        epilog="On several GPUs: accelerate launch scripts/train_new2.py, with the same arguments.",
    )
    add_training_arguments(parser)


def _add_import_lisa(commands: "argparse._SubParsersAction") -> None:
    parser = _command(
        commands,
        "import-lisa",
        "convert a checkpoint in the original LISA's layout into a folder of this package's own",
        epilog="Example: modified-lisa import-lisa xinlai/LISA-7B-v1 models/lisa-7b --quantize",
    )
    parser.add_argument("source", metavar="SOURCE", help="the checkpoint: a folder or a hub name")
    parser.add_argument("out", metavar="OUT", help="folder to make")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="precision in which OUT is loaded (default: that of SOURCE's files)"
    )
    parser.add_argument(
        "--quantize",
        action="store_true",
        help="load OUT's language model in 4 bit; the files stay as they are",
    )
    parser.add_argument(
        "--vision_tower",
        metavar="NAME",
        help="folder or hub name of the CLIP (default: the one that SOURCE's config.json names)",
    )
    parser.add_argument(
        "--tokenizer", metavar="NAME", help="folder or hub name of the tokenizer (default: SOURCE)"
    )
    parser.add_argument(
        "--seg_token_id", type=int, metavar="N", help="id of [SEG], for a checkpoint without a tokenizer"
    )


def _add_benchmark(commands: "argparse._SubParsersAction") -> None:
    parser = _command(
        commands,
        "benchmark",
        "measure time and memory of this package and of the original architecture side by side",
        epilog="Example: modified-lisa benchmark --random_init --ablate --out benchmark.json",
    )
    add_benchmark_arguments(parser)


def _add_distill(commands: "argparse._SubParsersAction") -> None:
    parser = _command(
        commands,
        "distill",
        "make a shared-encoder model of a dual one from unlabelled images",
        epilog="Example: modified-lisa distill models/lisa-7b models/shared-7b --images photos",
    )
    add_distillation_arguments(parser)
    _add_model_options(parser)


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model", "what to replace in the checkpoint's own configuration")
    group.add_argument(
        "--device", metavar="NAME", help="cpu, cuda or cuda:N (default: a GPU if there is one)"
    )
    group.add_argument("--vlm_name", metavar="NAME", help="where the VLM is: a hub name or a folder")
    group.add_argument("--sam_name", metavar="NAME", help="where the SAM is: a hub name or a folder")
    group.add_argument("--dtype", choices=DTYPES, help="precision of the frozen parts")
    group.add_argument(
        "--no_quantization", action="store_true", help="load the language model without 4-bit weights"
    )
    group.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        help="quantise the language model to 4 bits, 8 bits (int8, fp8) or not",
    )


def _json_path(text: str) -> str:
    if text != "-" and not text.lower().endswith(".json"):
        raise argparse.ArgumentTypeError(
            f"{text!r} does not end in .json; to print the JSON, put --json after IMAGE and QUERY"
        )
    return text


if __name__ == "__main__":
    sys.exit(main())
