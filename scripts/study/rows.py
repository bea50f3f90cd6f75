"""The rows of the study's table: what is built and what trains in each."""

from dataclasses import dataclass, field
from typing import Any

from modified_lisa.config import VISION_SOURCES, ModelConfig
from modified_lisa.model.bridge import default_layers
from modified_lisa.model.sources import read_config

SPECIFICATION = "specification"
BASE = f"vlm, {SPECIFICATION}"
"""What the rows of the bridges differ from in one thing."""
PYRAMID = {"bridge": "pyramid"}
"""What the rows of `vlm` have, unless they say otherwise. It was the package's default until the feature pyramid network won."""
LORA_RANK = 8
TOWER = "+ vision tower"
PRETRAINED = ("vision.encoder.", "projector.", "mask_head.mask_decoder.")
"""Names of what knows something already, but for `JUDGE`."""
JUDGE = "mask_head.mask_decoder.iou_prediction_head."
"""Learns anew what its masks are worth; trains in all rows."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    part: str
    """The table that it stands in: ``sources`` or ``bridges``."""
    source: str
    trained: str
    """Name of the trainable set."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of `ModelConfig`."""
    distilled: bool = False
    """A third of the steps go into the bridge alone, which learns to give SAM's embedding, without labels."""

    @property
    def folder(self) -> str:
        """A name for files."""
        return "".join(letter if letter.isalnum() else "-" for letter in self.name)

    def config(self, vlm_name: str, sam_name: str, dtype: str) -> ModelConfig:
        return ModelConfig(
            vlm_name=vlm_name,
            sam_name=sam_name,
            dtype=dtype,
            quantize=False,
            vision_source=self.source,
            **self.options,
        )


def trainable_sets() -> dict[str, dict[str, Any]]:
    """Each one trains what the one before it does, and one thing more."""
    decoder = {"train_mask_decoder": True}
    lora = {**decoder, "lora_r": LORA_RANK}
    projector = {**lora, "train_projector": True}
    return {
        SPECIFICATION: {},
        "+ mask decoder": decoder,
        "+ LoRA": lora,
        "+ VLM projector": projector,
        TOWER: {**projector, "train_vision": True},
    }


def designs(vlm_name: str, sam_name: str) -> dict[str, dict[str, Any]]:
    """{name: options}: what `vlm` may spend the encoder on that it saves, for the comparison with `dual`."""
    finer = finer_side(vlm_name, sam_name)
    return (
        {}
        if finer is None
        else {f"pyramid network of {finer} pixels": {"bridge": "fpn", "image_side": finer}}
    )


def finer_side(vlm_name: str, sam_name: str) -> int | None:
    """Pixels: as many whole patches of the VLM's encoder as fit into the square of SAM's; None: no more than it has."""
    sizes = read_config(vlm_name, "--vlm_name", "vlm")[1].vision_config
    square = read_config(sam_name, "--sam_name", "sam")[1].vision_config.image_size
    finer = int(square // sizes.patch_size * sizes.patch_size)
    return finer if finer > sizes.image_size else None


def bridges(vlm_name: str, sam_name: str) -> dict[str, dict[str, Any]]:
    """What differs from `BASE`, whose bridge is the pyramid of four layers."""
    _, sizes = read_config(vlm_name, "--vlm_name", "vlm")
    depth = sizes.vision_config.num_hidden_layers
    read = sizes.vision_feature_layer
    finer = finer_side(vlm_name, sam_name)
    last = read % (depth + 1) if isinstance(read, int) else max(layer % (depth + 1) for layer in read)
    return {
        "last layer only": {"options": {"bridge_layers": (last,)}},
        "last layer, bilinear only": {"options": {"bridge": "linear"}},
        "four layers, bilinear only": {
            "options": {"bridge": "linear", "bridge_layers": default_layers("pyramid", last)}
        },
        "feature pyramid network": {"options": {"bridge": "fpn"}},
        "light stem for edges": {"options": {"bridge": "stem"}},
        **({f"input of {finer} pixels": {"options": {"image_side": finer}}} if finer else {}),
        "pyramid, distilled first": {"distilled": True},
    }


def all_rows(vlm_name: str, sam_name: str) -> list[Row]:
    """In the order in which they are run."""
    sets = trainable_sets()
    sources = [
        Row(f"{source}, {name}", "sources", source, name, {**(PYRAMID if source == "vlm" else {}), **options})
        for name, options in sets.items()
        for source in VISION_SOURCES
        if (source, name) != ("sam", TOWER)  # it has none
    ]
    spent = [
        Row(f"vlm, {design}, {name}", "sources", "vlm", name, {**sets[name], **options})
        for design, options in designs(vlm_name, sam_name).items()
        for name in ("+ LoRA", TOWER)
    ]
    made = [
        Row(
            f"vlm, {name}",
            "bridges",
            "vlm",
            SPECIFICATION,
            {**PYRAMID, **what.get("options", {})},
            "distilled" in what,
        )
        for name, what in bridges(vlm_name, sam_name).items()
    ]
    return [*sources, *spent, *made]
