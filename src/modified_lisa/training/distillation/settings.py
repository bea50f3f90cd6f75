"""What a distillation is made from, and its command line. No torch here: ``--help`` answers at once."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modified_lisa.config import BRIDGES, ModelConfig
from modified_lisa.errors import ConfigError, DataError
from modified_lisa.prompts import with_seg
from modified_lisa.training.arguments import bridge_layers

__all__ = ["GENERIC_QUERIES", "DistillConfig", "add_arguments", "read_queries", "to_config"]

GENERIC_QUERIES = (
    "the main thing in this picture",
    "the largest thing",
    "the smallest thing that can be seen well",
    "what is nearest to the camera",
    "what is farthest away",
    "something that a person made",
    "something that grew",
    "something that can move",
    "something that stays where it is",
    "the thing on the left",
    "the thing on the right",
    "what is behind everything else",
)
"""Asked of any picture where nobody has named better ones."""


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """One distillation. Names and defaults are those of the command line."""

    teacher: str
    out: str
    images: str
    bridge: str = ModelConfig.bridge
    bridge_layers: tuple[int, ...] | None = None
    queries: str | None = None
    queries_per_image: int = 4
    max_images: int | None = None
    val_share: float = 0.05
    embedding_epochs: int = 10
    mask_epochs: int = 5
    batch_size: int = 8
    lr: float = 1e-3
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    warmup_steps: int = 50
    seed: int = 42
    num_workers: int = 0
    cache_dir: str | None = None
    """None: ``cache`` in ``out``."""
    resume: bool = False
    data_dir: str | None = None
    split: str = "val"
    device: str | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    """Fields of ModelConfig that replace the teacher's, such as ``dtype`` or ``quantize``."""

    def __post_init__(self) -> None:
        for name in ("queries_per_image", "batch_size"):
            _least(name, getattr(self, name), 1)
        for name in ("embedding_epochs", "mask_epochs", "warmup_steps", "seed", "num_workers"):
            _least(name, getattr(self, name), 0)
        if self.max_images is not None:
            _least("max_images", self.max_images, 2)
        if self.embedding_epochs + self.mask_epochs == 0:
            raise ConfigError("--embedding_epochs and --mask_epochs are both 0: nothing would be learned")
        if not 0 < self.val_share < 1:
            raise ConfigError(f"--val_share is {self.val_share!r}; it must be above 0 and below 1")
        if not self.lr > 0:
            raise ConfigError(f"--lr is {self.lr!r}; it must be above 0")
        for name in ("weight_decay", "grad_clip"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"--{name} is {getattr(self, name)!r}; it must be at least 0")

    @property
    def epochs(self) -> int:
        """Of both stages."""
        return self.embedding_epochs + self.mask_epochs

    @property
    def cache(self) -> Path:
        """Folder of what the frozen parts make of the images."""
        return Path(self.cache_dir) if self.cache_dir is not None else Path(self.out) / "cache"


def _least(name: str, value: int, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ConfigError(f"--{name} is {value!r}; it must be a whole number of at least {low}")


def read_queries(path: str | None) -> list[str]:
    """The queries of a text file, UTF-8, one a line; `GENERIC_QUERIES` for None.

    Raises DataError for a file without any, or with one that asks for several masks; OSError for no file.
    """
    if path is None:
        return list(GENERIC_QUERIES)
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"--queries {path}: it is not UTF-8 ({error}); save it as UTF-8") from error
    queries = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not queries:
        raise DataError(f"--queries {path}: there is no query in it; write one a line")
    for query in queries:
        if with_seg(query).count("<SEG>") > 1:
            raise DataError(f"--queries {path}: {query!r} asks for several masks; write one <SEG>, or none")
    return queries


def to_config(values: argparse.Namespace, overrides: dict[str, Any]) -> DistillConfig:
    """What `add_arguments` has read, checked. Raises ConfigError."""
    names = [name for name in DistillConfig.__dataclass_fields__ if name != "overrides"]
    return DistillConfig(**{name: getattr(values, name) for name in names}, overrides=overrides)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every flag but those of the model and the device."""
    parser.add_argument(
        "teacher",
        metavar="TEACHER",
        help="the dual model: a .pt file of the training, a folder of save_pretrained, or an imported LISA",
    )
    parser.add_argument("out", metavar="OUT", help="folder to make: the student's, with reports")
    add = _Adder(parser.add_argument_group("student"))
    default = DistillConfig(teacher="", out="", images="")
    add.choice(
        "--bridge", default.bridge, BRIDGES, "design of the bridge that learns to replace SAM's encoder"
    )
    layers = "encoder layers that the bridge reads, such as 6,12,-2"
    add("--bridge_layers", bridge_layers, None, layers, "N,N,...")
    add = _Adder(parser.add_argument_group("images and queries"))
    parser.add_argument(
        "--images",
        required=True,
        metavar="DIR",
        help="folder of pictures, searched to the bottom; no labels are read",
    )
    add("--max_images", int, None, "use only the first N images", "N")
    add(
        "--queries",
        str,
        None,
        "text file with a query a line, for the masks; none: a dozen generic ones",
        "PATH",
    )
    add("--queries_per_image", int, default.queries_per_image, "queries drawn for each image", "N")
    add("--val_share", float, default.val_share, "share of the images that is kept to measure on", "SHARE")
    add("--data_dir", str, None, "measure teacher and student on this labelled data afterwards", "DIR")
    add("--split", str, default.split, "split of --data_dir", "NAME")
    add = _Adder(parser.add_argument_group("training"))
    add("--embedding_epochs", int, default.embedding_epochs, "epochs on the teacher's SAM embedding", "N")
    add("--mask_epochs", int, default.mask_epochs, "epochs on the teacher's masks, after those", "N")
    add("--batch_size", int, default.batch_size, "images in a step", "N")
    add(
        "--lr",
        float,
        default.lr,
        "peak learning rate of each stage: linear warm-up, then a cosine to 0",
        "LR",
    )
    add(
        "--weight_decay",
        float,
        default.weight_decay,
        "AdamW's weight decay; not on biases and norms",
        "WEIGHT",
    )
    add("--grad_clip", float, default.grad_clip, "largest norm of the gradient; 0: no clipping", "NORM")
    add("--warmup_steps", int, default.warmup_steps, "steps of the warm-up of each stage", "N")
    add("--seed", int, default.seed, "random seed; the same seed gives the same run", "N")
    add("--num_workers", int, default.num_workers, "processes that read; 0: none beside this", "N")
    add("--cache_dir", str, None, "where encodings of the images are kept; none: cache in OUT", "DIR")
    add.group.add_argument("--resume", action="store_true", help="go on where OUT was stopped (default: off)")


class _Adder:
    def __init__(self, group: Any) -> None:
        self.group = group

    def __call__(self, flag: str, kind: Any, default: object, text: str, metavar: str | None) -> None:
        shown = "none" if default is None else default
        self.group.add_argument(
            flag, type=kind, default=default, metavar=metavar, help=f"{text} (default: {shown})"
        )

    def choice(self, flag: str, default: str, choices: tuple[str, ...], text: str) -> None:
        self.group.add_argument(flag, choices=choices, default=default, help=f"{text} (default: {default})")
