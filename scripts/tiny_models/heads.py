"""The heads of the tiny VLM's pretraining, which are thrown away, and where they begin."""

from pathlib import Path

import torch
from data import NAMES
from safetensors.torch import load_file
from torch import nn

from modified_lisa.model.mask_head import SegProjection
from modified_lisa.model.pyramid import PyramidBridge

HEADS = "tiny-vlm-heads.safetensors"
"""The heads of the VLM's pretraining: `default.py` and ``--start`` can begin with them. Not shipped."""
PLACES = {"bridge.": "vision.bridge.", "projection.": "seg_projection."}
"""What `ModifiedLISA` calls the two of them whose shapes it trains."""
GRID = 64
CHANNELS = 128


class Heads(nn.Module):
    """A bridge and a projection of the shapes that `ModifiedLISA` trains, and what tells of patches and of nothing."""

    def __init__(self, vision_width: int, width: int, layers: int) -> None:
        super().__init__()
        self.bridge = PyramidBridge(layers, vision_width, CHANNELS, GRID)
        self.projection = SegProjection(width, torch.zeros(CHANNELS))
        self.bias = nn.Parameter(torch.tensor(-2.0))
        self.nothing = nn.Linear(width, 1)
        self.patches = nn.ModuleDict(
            {name: nn.Linear(vision_width, len(table) + 1) for name, table in NAMES.items()}
        )
        self.boxes = nn.Linear(vision_width, 5)
        self.edges = nn.Linear(vision_width, 16)


def take_heads(heads: Heads, start: Path) -> int:
    """Load the heads that were kept in ``start``, or the two of its tiny-lisa that have the same shapes; how many weights.

    Beside those two the others become 0, so that they do not push the VLM before they know anything.
    """
    if (start / HEADS).is_file():
        given = load_file(start / HEADS)
        heads.load_state_dict(given)
    elif (lisa := start / "tiny-lisa" / "model.safetensors").is_file():
        given = {
            head + name.removeprefix(place): value.float()
            for name, value in load_file(lisa).items()
            for head, place in PLACES.items()
            if name.startswith(place)
        }
        own = {name: torch.zeros_like(value) for name, value in heads.state_dict().items()}
        if unknown := heads.load_state_dict(own | given, strict=False).unexpected_keys:
            raise SystemExit(f"the tiny-lisa of --start has other parts than the heads here: {unknown[:5]}")
    else:
        given = {}
    return sum(value.numel() for value in given.values())
