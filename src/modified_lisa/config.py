"""What a model and a training run are made from: small frozen dataclasses, checked as they are made.

No torch here: ``modified-lisa --help`` reads this file and answers at once.
"""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

from modified_lisa.errors import ConfigError
from modified_lisa.prompts import SEG_TOKEN
from modified_lisa.templates import NO_TARGET_ANSWER

__all__ = [
    "BRIDGES",
    "DATASETS",
    "DTYPES",
    "PROTOCOLS",
    "QUANTIZATIONS",
    "SEG_PROJECTIONS",
    "SEG_STATES",
    "VISION_SOURCES",
    "LossWeights",
    "ModelConfig",
    "TrainingConfig",
]

VISION_SOURCES = ("vlm", "sam", "dual")
DTYPES = ("bf16", "fp16", "fp32")
DATASETS = ("reasonseg", "refcoco", "refcoco+", "refcocog", "grefcoco")
BRIDGES = ("fpn", "pyramid", "stem", "linear")
SEG_STATES = ("at", "before")
QUANTIZATIONS = ("nf4", "int8", "fp8", "none")
SEG_PROJECTIONS = ("normed", "plain")
PROTOCOLS = ("native", "lisa")


def _choice(flag: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{flag} is {value!r}; it must be one of {', '.join(allowed)}")


def _at_least(flag: str, value: float, low: float, *, above: bool = False, whole: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{flag} is {value!r}; it must be a finite number")
    if whole and not isinstance(value, int):
        raise ConfigError(f"{flag} is {value!r}; it must be a whole number")
    if value < low or (above and value == low):
        raise ConfigError(f"{flag} is {value!r}; it must be {'above' if above else 'at least'} {low:g}")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which parts a model is built from, in which precision, and which of them train."""

    vlm_name: str = "llava-hf/llava-1.5-7b-hf"
    """Hub name or local folder of a LLaVA, or ``tiny`` for the bundled one."""
    sam_name: str = "facebook/sam-vit-base"
    """Hub name or local folder of a SAM, or ``tiny`` for the bundled one."""
    vision_source: str = "vlm"
    """Whose encoder sees the image: ``vlm``, ``sam``, or ``dual`` for both, as in the original LISA."""
    dtype: str = "bf16"
    """Precision of the frozen parts; what trains, the mask decoder and the losses are always fp32."""
    quantize: bool | None = None
    """Quantise the language model's linear layers; None: unless ``quantization`` is ``none``. Read back, a bool."""
    quantization: str | None = None
    """How: ``nf4`` (4 bit, double quantisation), ``int8`` (LLM.int8), ``fp8`` (e4m3, GPUs from compute
    capability 8.9 on) or ``none``; None: by ``quantize``. Read back, one of these names."""
    bridge: str = "fpn"
    """Design of the bridge from vision features to SAM's embedding (``vlm`` only)."""
    bridge_layers: tuple[int, ...] | None = None
    """Encoder layers that the bridge reads, as indices into the hidden states; None: the design's default."""
    image_side: int | None = None
    """Side of the square that the VLM's encoder sees, in pixels; None: its own. Its positions are interpolated to
    another, whose finer grid the bridge reads; the language model reads as many tokens as ever, averaged."""
    seg_state: str = "at"
    """Which hidden state becomes the mask: ``at`` the <SEG> token, or ``before`` it (published LISA)."""
    seg_projection: str = "normed"
    """``normed``: LayerNorm, Linear, ReLU, Linear; ``plain``: without the LayerNorm, as published LISA."""
    protocol: str = "native"
    """``native``: the VLM's chat template, images padded; ``lisa``: the original LISA's prompts and images (with one
    encoder, ``vlm``, its prompts alone: a square that serves the masks too must not be cropped)."""
    seg_token_id: int | None = None
    """Id of the original's ``[SEG]`` under LISA's protocol; None: what the model's files say."""
    answers: bool = False
    """Answer in words, with <SEG> in the answer; needs the VLM's lm_head. ``--ce_weight`` trains it."""
    train_mask_decoder: bool = False
    train_projector: bool = False
    train_vision: bool = False
    """Train the VLM's vision tower too (``vlm`` and ``dual``)."""
    lora_r: int = 0
    """Rank of LoRA on the language model's q_proj and v_proj; 0: none."""
    lora_alpha: float | None = None
    """Scale of LoRA; None: twice the rank."""
    lora_dropout: float = 0.05

    def __post_init__(self) -> None:
        _choice("vision_source", self.vision_source, VISION_SOURCES)
        _choice("--dtype", self.dtype, DTYPES)
        _choice("--bridge", self.bridge, BRIDGES)
        _choice("seg_state", self.seg_state, SEG_STATES)
        _choice("seg_projection", self.seg_projection, SEG_PROJECTIONS)
        _choice("protocol", self.protocol, PROTOCOLS)
        if self.image_side is not None:
            _at_least("--image_side", self.image_side, 1, whole=True)
            if self.vision_source == "sam" or self.protocol == "lisa":
                raise ConfigError(
                    "--image_side is for the VLM's encoder, in the 'vlm' and 'dual' vision sources and the native protocol"
                )
        if self.seg_token_id is not None:
            _at_least("seg_token_id", self.seg_token_id, 0, whole=True)
            if self.protocol != "lisa":
                raise ConfigError(
                    "seg_token_id is for LISA's protocol; other models have a <SEG> of their own"
                )
        if self.protocol == "lisa" and self.vision_source == "sam":
            raise ConfigError(
                "LISA's protocol is for the 'dual' vision source, and for 'vlm' models distilled from such; this model's "
                "is 'sam'"
            )
        _at_least("--lora_r", self.lora_r, 0, whole=True)
        _at_least("--lora_dropout", self.lora_dropout, 0)
        if self.lora_dropout >= 1:
            raise ConfigError(f"--lora_dropout is {self.lora_dropout!r}; it must be below 1")
        if self.lora_alpha is not None:
            _at_least("--lora_alpha", self.lora_alpha, 0, above=True)
        self._settle_quantization()
        for switch in ("answers", "train_mask_decoder", "train_projector", "train_vision"):
            if not isinstance(getattr(self, switch), bool):
                raise ConfigError(f"{switch} is {getattr(self, switch)!r}; it must be True or False")
        for flag, name in (("--vlm_name", self.vlm_name), ("--sam_name", self.sam_name)):
            if not isinstance(name, str) or not name.strip():
                raise ConfigError(f"{flag} is {name!r}; give a hub name, a folder, or 'tiny'")
        if self.train_vision and self.vision_source == "sam":
            raise ConfigError(
                "--train_vision trains the VLM's encoder, and the 'sam' vision source does not use it; "
                "choose 'vlm' or 'dual', or leave it out"
            )
        if self.bridge_layers is not None:
            if not self.bridge_layers:
                raise ConfigError("--bridge_layers is empty; name at least one layer, or leave it out")
            if len(set(self.bridge_layers)) != len(self.bridge_layers):
                raise ConfigError(f"--bridge_layers names a layer twice: {self.bridge_layers}")
            if self.vision_source != "vlm":
                raise ConfigError(
                    f"--bridge_layers is for the 'vlm' vision source; this model's is {self.vision_source!r}"
                )

    def _settle_quantization(self) -> None:
        """Make `quantize` and `quantization` say the same."""
        if self.quantize is not None and not isinstance(self.quantize, bool):
            raise ConfigError(f"quantize is {self.quantize!r}; it must be True or False")
        if self.quantization is not None:
            _choice("--quantization", self.quantization, QUANTIZATIONS)
            if self.quantize is not None and self.quantize == (self.quantization == "none"):
                raise ConfigError(
                    f"--quantization {self.quantization} contradicts "
                    f"{'quantize=True' if self.quantize else '--no_quantization (quantize=False)'}; give one of the two"
                )
        how = self.quantization or ("none" if self.quantize is False else "nf4")
        object.__setattr__(self, "quantization", how)
        object.__setattr__(self, "quantize", how != "none")

    def replaced(self, **changes: Any) -> "ModelConfig":
        """A copy with other values; either of `quantize` and `quantization` may be given alone.

        ``answers=None``: where the weights can, which published LISA's always do.
        """
        if changes.get("answers", False) is None:
            changes["answers"] = self.answers or self.protocol == "lisa"
        values = self.to_dict()
        if changes.keys() & {"quantize", "quantization"}:
            del values["quantize"], values["quantization"]
        return ModelConfig.from_dict({**values, **changes})

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, for JSON and for checkpoints."""
        values = dataclasses.asdict(self)
        if self.bridge_layers is not None:
            values["bridge_layers"] = list(self.bridge_layers)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """The inverse of `to_dict`; an unknown key is a ConfigError."""
        known = {entry.name for entry in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"unknown model option(s) {', '.join(unknown)}; known: {', '.join(sorted(known))}"
            )
        values = dict(values)
        if values.get("bridge_layers") is not None:
            try:
                values["bridge_layers"] = tuple(int(layer) for layer in values["bridge_layers"])
            except (TypeError, ValueError) as error:
                raise ConfigError(
                    f"bridge_layers is {values['bridge_layers']!r}; it must be a list of whole numbers, or None"
                ) from error
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """Total = bce_weight * BCE + dice_weight * Dice + iou_weight * IoU, and + ce_weight * CE in answer mode."""

    bce: float = 1.0
    dice: float = 1.0
    iou: float = 1.0
    ce: float = 0.0
    """Of the answer's words (cross-entropy); above 0: the model learns to answer, see `ModelConfig.answers`."""

    def __post_init__(self) -> None:
        for name in ("bce", "dice", "iou", "ce"):
            _at_least(f"--{name}_weight", getattr(self, name), 0)
        if self.bce == self.dice == self.iou == self.ce == 0:
            raise ConfigError("all loss weights are 0: nothing would be learned; give one of them a value")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """One training run. Names and defaults are those of the command line."""

    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossWeights = field(default_factory=LossWeights)
    data_dir: str = "."
    dataset: str = "reasonseg"
    """Kind of files in data_dir: one of `DATASETS`."""
    split_by: str | None = None
    images_dir: str | None = None
    max_train_samples: int | None = None
    max_val_samples: int | None = None
    skip_bad_samples: bool = False
    no_target_answer: str = NO_TARGET_ANSWER
    """What is answered, without <SEG>, to a query that nothing in the image answers; for ``loss.ce`` above 0."""
    epochs: int = 20
    batch_size: int = 1
    gradient_accumulation_steps: int = 1
    lr: float = 3e-4
    weight_decay: float = 0.01
    grad_clip: float = 1.0
    """Largest norm of the gradient; 0: no clipping."""
    warmup_steps: int = 100
    balance: float = 0.0
    """Share of the run, 0 to 1, in which the pixels of small targets count for more, less and less so; 0: never."""
    output_dir: str = "outputs"
    checkpoint_dir: str = "checkpoints"
    save_every: int = 1
    seed: int = 42
    num_workers: int = 0
    init_from: str | None = None
    """A checkpoint or folder whose trained weights the run starts from; those that it lacks start as usual."""
    same_bridge: bool = False
    """The bridge is of the design that ``init_from`` has, instead of the one that ``model`` names."""
    resume: str | None = None
    """A checkpoint_epoch_N.pt to go on from, or 'latest' for the newest one in checkpoint_dir."""
    log_with: str | None = None
    gradient_checkpointing: bool = False
    cache_dir: str | None = None
    """Where features of the frozen encoders are kept between epochs and runs; None: nowhere."""
    cache_limit_gb: float | None = None

    def __post_init__(self) -> None:
        _choice("--dataset", self.dataset, DATASETS)
        for name in ("epochs", "batch_size", "gradient_accumulation_steps", "save_every"):
            _at_least(f"--{name}", getattr(self, name), 1, whole=True)
        for name in ("max_train_samples", "max_val_samples"):
            if getattr(self, name) is not None:
                _at_least(f"--{name}", getattr(self, name), 1, whole=True)
        for name in ("warmup_steps", "num_workers", "seed"):
            _at_least(f"--{name}", getattr(self, name), 0, whole=True)
        for name in ("weight_decay", "grad_clip"):
            _at_least(f"--{name}", getattr(self, name), 0)
        _at_least("--lr", self.lr, 0, above=True)
        _at_least("--balance", self.balance, 0)
        if self.balance > 1:
            raise ConfigError(f"--balance is {self.balance}; it is a share of the training, 0 to 1")
        if self.cache_limit_gb is not None:
            _at_least("--cache_limit_gb", self.cache_limit_gb, 0, above=True)
            if self.cache_dir is None:
                raise ConfigError("--cache_limit_gb goes with --cache_dir; name a folder, or leave it out")
        if self.cache_dir is not None and self.model.train_vision:
            raise ConfigError(
                "--cache_dir keeps what frozen encoders make, and --train_vision trains one: leave one of the two out"
            )
        if not isinstance(self.no_target_answer, str) or not self.no_target_answer.strip():
            raise ConfigError(f"--no_target_answer is {self.no_target_answer!r}; say it in words")
        if SEG_TOKEN in self.no_target_answer:
            raise ConfigError(f"--no_target_answer holds {SEG_TOKEN}, which would be a mask; leave it out")
        if self.loss.ce > 0 and not self.model.answers:
            object.__setattr__(self, "model", self.model.replaced(answers=True))
