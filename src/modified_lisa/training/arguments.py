"""The command line of training: names, defaults and meanings are those of the specification.

No torch here: ``train_new2.py --help`` answers at once.
"""

import argparse
from collections.abc import Callable, Sequence

from modified_lisa.config import (
    BRIDGES,
    DATASETS,
    DTYPES,
    QUANTIZATIONS,
    VISION_SOURCES,
    LossWeights,
    ModelConfig,
    TrainingConfig,
)
from modified_lisa.errors import ConfigError

__all__ = ["add_arguments", "bridge_layers", "build_parser", "parse", "to_config"]

_MODEL, _LOSS, _RUN = ModelConfig(), LossWeights(), TrainingConfig()


def build_parser(prog: str | None = None) -> argparse.ArgumentParser:
    """A parser with every training flag."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Train ModifiedLISA on a folder in ReasonSeg's layout (train/ and val/ with JPEG + JSON).",
        epilog="Several processes: start it with `accelerate launch` or `torchrun --nproc_per_node N`.",
        allow_abbrev=False,  # a mistyped flag is an error, not another flag
    )
    add_arguments(parser)
    return parser


def parse(argv: Sequence[str] | None = None, prog: str | None = None) -> TrainingConfig:
    """Read a command line (None: this process's own).

    Raises:
        SystemExit: a flag that does not exist or cannot be read; argparse has said which.
        ConfigError: a value, or a combination of flags, that cannot work.
    """
    return to_config(build_parser(prog).parse_args(argv))


def to_config(values: argparse.Namespace) -> TrainingConfig:
    """What `add_arguments` has read, as a checked configuration. Raises ConfigError."""
    model = ModelConfig(
        vlm_name=values.vlm_name,
        sam_name=values.sam_name,
        vision_source=_vision_source(values.vision_source, values.use_vlm_vision),
        dtype=values.dtype,
        quantize=False if values.no_quantization else None,
        quantization=values.quantization,
        bridge=values.bridge or _MODEL.bridge,
        bridge_layers=values.bridge_layers,
        image_side=values.image_side,
        train_mask_decoder=values.train_mask_decoder,
        train_projector=values.train_projector,
        train_vision=values.train_vision,
        lora_r=values.lora_r,
        lora_alpha=values.lora_alpha,
        lora_dropout=values.lora_dropout,
    )
    return TrainingConfig(
        model=model,
        loss=LossWeights(
            bce=values.bce_weight, dice=values.dice_weight, iou=values.iou_weight, ce=values.ce_weight
        ),
        data_dir=values.data_dir,
        dataset=values.dataset,
        split_by=values.split_by,
        images_dir=values.images_dir,
        max_train_samples=values.max_train_samples,
        max_val_samples=values.max_val_samples,
        skip_bad_samples=values.skip_bad_samples,
        no_target_answer=values.no_target_answer,
        epochs=values.epochs,
        batch_size=values.batch_size,
        gradient_accumulation_steps=values.gradient_accumulation_steps,
        lr=values.lr,
        weight_decay=values.weight_decay,
        grad_clip=values.grad_clip,
        warmup_steps=values.warmup_steps,
        balance=values.balance,
        output_dir=values.output_dir,
        checkpoint_dir=values.checkpoint_dir,
        save_every=values.save_every,
        seed=values.seed,
        num_workers=values.num_workers,
        init_from=values.init_from,
        same_bridge=values.bridge is None and values.init_from is not None,
        resume=values.resume,
        log_with=values.log_with,
        gradient_checkpointing=values.gradient_checkpointing,
        cache_dir=values.cache_dir,
        cache_limit_gb=values.cache_limit_gb,
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add every training flag, in the groups of the specification."""
    _model_arguments(parser)
    _data_arguments(parser)
    _training_arguments(parser)
    _loss_arguments(parser)
    _output_arguments(parser)


def _vision_source(named: str | None, use_vlm_vision: bool) -> str:
    if named is None:
        return "vlm" if use_vlm_vision else "sam"
    if use_vlm_vision and named != "vlm":
        raise ConfigError(
            f"--use_vlm_vision asks for the VLM's encoder and --vision_source for {named!r}; give one of the two"
        )
    return named


def bridge_layers(text: str) -> tuple[int, ...]:
    """``6,12,-2`` as a tuple, for argparse."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of layer numbers such as 6,12,-2 (write --bridge_layers=-2 for a leading minus)"
        ) from None


def _adder(group: argparse._ActionsContainer) -> Callable[..., None]:
    """``add(flag, type, default, help, ...)`` that shows the default in the help text."""

    def add(flag: str, kind: Callable[[str], object], default: object, text: str, **more: object) -> None:
        shown = "none" if default is None else default
        group.add_argument(
            flag,
            type=kind,
            default=default,
            help=f"{text} (default: {shown})",
            **{"metavar": getattr(kind, "__name__", "").lstrip("_").upper(), **more},  # type: ignore[arg-type]
        )

    return add


def _flag(group: argparse._ArgumentGroup, name: str, text: str) -> None:
    group.add_argument(name, action="store_true", help=f"{text} (default: off)")


def _model_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model configuration")
    add = _adder(group)
    name = {"metavar": "NAME"}
    add(
        "--vlm_name",
        str,
        _MODEL.vlm_name,
        "hub name or folder of a LLaVA, or 'tiny': the bundled one",
        **name,
    )
    add("--sam_name", str, _MODEL.sam_name, "hub name or folder of a SAM, or 'tiny': the bundled one", **name)
    _flag(group, "--use_vlm_vision", "use the VLM's vision encoder for both; without this flag, SAM's")
    add(
        "--vision_source",
        str,
        None,
        "names the encoder instead of --use_vlm_vision; dual: both run, as in the original LISA",
        choices=VISION_SOURCES,
        metavar="{" + ",".join(VISION_SOURCES) + "}",
    )
    choices = {"choices": DTYPES, "metavar": "{" + ",".join(DTYPES) + "}"}
    add("--dtype", str, _MODEL.dtype, "precision of the frozen parts; what trains is always fp32", **choices)
    _flag(group, "--no_quantization", "load the language model unquantised instead of in 4 bits")
    group.add_argument(
        "--quantization",
        choices=QUANTIZATIONS,
        metavar="{" + ",".join(QUANTIZATIONS) + "}",
        help="how the language model is quantised: 4 bits, 8 bits (int8, fp8) or not (default: nf4; with --no_quantization, none)",
    )
    choices = {"choices": BRIDGES, "metavar": "{" + ",".join(BRIDGES) + "}"}
    add(
        "--bridge",
        str,
        None,
        f"design of the bridge from vision features to SAM's embedding; none: {_MODEL.bridge}, or that of --init_from",
        **choices,
    )
    add(
        "--bridge_layers",
        bridge_layers,
        None,
        "encoder layers that the bridge reads, such as 6,12,-2; none: the bridge's own choice",
        metavar="N,N,...",
    )
    add(
        "--image_side",
        int,
        None,
        "side of the square that the VLM's encoder sees, in pixels, its positions interpolated; none: its own",
    )
    _flag(group, "--train_mask_decoder", "train SAM's mask decoder too")
    _flag(group, "--train_projector", "train the VLM's projector too")
    _flag(group, "--train_vision", "train the VLM's vision tower too")
    add("--lora_r", int, _MODEL.lora_r, "rank of LoRA on the language model's q_proj and v_proj; 0: off")
    add("--lora_alpha", float, None, "scale of LoRA; none: twice the rank")
    add("--lora_dropout", float, _MODEL.lora_dropout, "dropout of LoRA's input while training")


def add_dataset_arguments(group: argparse._ActionsContainer) -> None:
    """Flags for data in other files than ReasonSeg's; `data.opening.open_dataset` takes their values."""
    add = _adder(group)
    add(
        "--dataset",
        str,
        _RUN.dataset,
        "what kind of files --data_dir holds",
        choices=DATASETS,
        metavar=None,
    )
    whose = "the refCOCO sets: whose split, such as unc, umd or google; none: umd for refcocog, else unc"
    add("--split_by", str, None, whose, metavar="NAME")
    where = "the refCOCO sets: COCO's images; none: images/mscoco/images/train2014 in --data_dir"
    add("--images_dir", str, None, where, metavar="DIR")


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data configuration")
    add = _adder(group)
    add("--data_dir", str, _RUN.data_dir, "folder that holds train/ and val/", metavar="DIR")
    add_dataset_arguments(group)
    add("--max_train_samples", int, None, "use only the first N training samples", metavar="N")
    add("--max_val_samples", int, None, "use only the first N validation samples", metavar="N")
    nothing = "with --ce_weight: what to answer where nothing in the image answers the query"
    add("--no_target_answer", str, _RUN.no_target_answer, nothing, metavar="TEXT")
    _flag(
        group,
        "--skip_bad_samples",
        "go on without samples that are broken, instead of listing them and stopping",
    )


def _training_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training configuration")
    add = _adder(group)
    add("--epochs", int, _RUN.epochs, "number of training epochs", metavar="N")
    add("--batch_size", int, _RUN.batch_size, "samples that one process computes at once", metavar="N")
    steps = "batches of each process that make one optimizer step"
    add("--gradient_accumulation_steps", int, _RUN.gradient_accumulation_steps, steps, metavar="N")
    add("--lr", float, _RUN.lr, "peak learning rate: linear warm-up to it, then a cosine down to 0")
    add("--weight_decay", float, _RUN.weight_decay, "AdamW's weight decay; not on biases and norms")
    add("--grad_clip", float, _RUN.grad_clip, "largest norm of the gradient; 0: no clipping")
    add("--warmup_steps", int, _RUN.warmup_steps, "optimizer steps of the warm-up", metavar="N")
    _flag(group, "--gradient_checkpointing", "save memory by computing the language model twice")
    add(
        "--cache_dir",
        str,
        None,
        "keep what the frozen encoders make of the images in this folder, for later epochs and runs",
        metavar="DIR",
    )
    add("--cache_limit_gb", float, None, "the most that --cache_dir may hold for this model", metavar="GB")
    weights = (
        "start from the trained weights of a checkpoint or folder, such as a distilled model's, or of tiny"
    )
    add("--init_from", str, None, weights, metavar="PATH")
    group.add_argument(
        "--resume",
        nargs="?",
        const="latest",
        default=None,
        metavar="PATH",
        help="go on from a checkpoint_epoch_N.pt; without PATH, from the newest in --checkpoint_dir, "
        "or from the start if there is none (default: none)",
    )


def _loss_arguments(parser: argparse.ArgumentParser) -> None:
    add = _adder(parser.add_argument_group("loss weights"))
    add("--bce_weight", float, _LOSS.bce, "weight of the binary cross-entropy")
    add("--dice_weight", float, _LOSS.dice, "weight of the Dice loss")
    add("--iou_weight", float, _LOSS.iou, "weight of the IoU loss")
    words = "share of the training in which small targets count for more, less and less so; 0: never"
    add("--balance", float, _RUN.balance, words, metavar="SHARE")
    words = "weight of the answer's words (cross-entropy); above 0: the model learns to answer, see docs/answers.md"
    add("--ce_weight", float, _LOSS.ce, words)


def _output_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output configuration")
    add = _adder(group)
    add("--output_dir", str, _RUN.output_dir, "folder of metrics, curves and overlays", metavar="DIR")
    add("--checkpoint_dir", str, _RUN.checkpoint_dir, "folder of checkpoints", metavar="DIR")
    add("--save_every", int, _RUN.save_every, "write a checkpoint to resume from every N epochs", metavar="N")
    add("--seed", int, _RUN.seed, "random seed; the same seed gives the same run", metavar="N")
    add(
        "--num_workers",
        int,
        _RUN.num_workers,
        "processes that prepare batches; 0: none beside this",
        metavar="N",
    )
    trackers = "also log to a tracker: tensorboard, or another that accelerate knows by name"
    add("--log_with", str, None, trackers, metavar="NAME")
