"""Going on with a run exactly where it stopped.

A resumed run ends with the same weights and metrics as one that was never stopped, to the last bit on the
same machine. What that takes besides the weights and the optimizer is derived instead of stored: the order
of the data and the random state of every process follow from the seed and the epoch, the learning rate
from the number of steps done. So a checkpoint is whole at the end of an epoch, and can be resumed by
another number of processes if the samples of an optimizer step stay the same (then up to rounding, and with
LoRA up to its dropout, which each process draws for itself).

A run that would not be the same run is refused, with everything that differs.
"""

import hashlib
import random
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modified_lisa.config import TrainingConfig
from modified_lisa.errors import CheckpointError
from modified_lisa.model.checkpoint import load_checkpoint
from modified_lisa.training.batches import Layout

__all__ = ["find_checkpoint", "identity", "load_resumable", "seed_everything", "set_aside"]

KEY = "training"
"""Where a checkpoint keeps what is needed to go on."""
_NUMBER = re.compile(r"checkpoint_epoch_(\d+)\.pt")
_FREE = {"data_dir", "output_dir", "checkpoint_dir", "save_every", "num_workers", "resume", "log_with"}
_FREE |= {"gradient_checkpointing", "cache_dir", "cache_limit_gb"}
_FREE |= {"same_bridge"}  # what it chooses is the model's bridge
_FREE |= {"dataset", "split_by", "images_dir"}  # what they choose is known by the samples' names
"""Fields that may change: where things are and how fast it goes, not what comes out."""
_LAYOUT = {"batch_size", "gradient_accumulation_steps"}
_FLAGS = {"vision_source": "--use_vlm_vision/--vision_source", "quantize": "without --no_quantization"}


def seed_everything(seed: int, epoch: int = 0, rank: int = 0) -> None:
    """Set every random state of this process as a function of the three numbers (epoch 0: before training)."""
    torch_seed, numpy_seed = np.random.SeedSequence([seed, epoch, rank]).generate_state(2).tolist()
    random.seed(torch_seed)
    np.random.seed(numpy_seed)  # noqa: NPY002 - libraries may draw from the global state
    torch.manual_seed(torch_seed)  # all devices


def find_checkpoint(resume: str, checkpoint_dir: str | Path) -> Path | None:
    """The file that ``--resume`` means: a path, or for a folder or ``latest`` (``checkpoint_dir``) the newest one.

    None if ``latest`` finds none; CheckpointError if a folder that was named holds none.
    """
    folder = Path(checkpoint_dir if resume == "latest" else resume)
    if resume != "latest" and not folder.is_dir():
        return folder
    found = [
        (int(match[1]), path)
        for path in folder.glob("checkpoint_epoch_*.pt")
        if (match := _NUMBER.fullmatch(path.name))
    ]
    if not found and resume != "latest":
        raise CheckpointError(
            f"--resume {folder}: there is no checkpoint_epoch_N.pt in this folder; name a folder that holds one, "
            "or the file itself"
        )
    return max(found)[1] if found else None


def identity(
    config: TrainingConfig, layout: Layout, samples: dict[str, Iterable[str]]
) -> dict[str, str | int | float | bool | None]:
    """What decides the outcome of a run, by the flag that sets it.

    Args:
        samples: for each split, what names its samples.
    """
    values: dict[str, Any] = {}
    for name, value in vars(config).items():
        if name not in _FREE | _LAYOUT | {"model", "loss"}:
            values[f"--{name}"] = value
    for name, value in config.model.to_dict().items():
        if name == "quantization" and value in ("nf4", "none"):  # said by quantize, and always were
            continue
        values[_FLAGS.get(name, f"--{name}")] = str(value) if isinstance(value, list) else value
    for name, value in vars(config.loss).items():
        values[f"--{name}_weight"] = value
    values["--batch_size x --gradient_accumulation_steps x processes"] = layout.global_batch
    for split, names in samples.items():
        listing = list(names)
        digest = hashlib.sha256("\n".join(listing).encode()).hexdigest()[:12]
        values[f"the samples of {split}"] = f"{len(listing)} (digest {digest})"
    return values


def load_resumable(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint of a run whose `identity` is ``wanted``.

    Raises CheckpointError if it is missing or torn, holds no training state, or is of another run.
    """
    content = load_checkpoint(path)
    state = content.get(KEY)
    if not isinstance(state, dict):
        raise CheckpointError(
            f"{path} holds weights only and training cannot go on from it; give a checkpoint_epoch_N.pt"
        )
    before = state["identity"]
    if wanted[_FLAGS["vision_source"]] != "vlm":  # has none, whatever the default was
        before = {**before, "--bridge": wanted["--bridge"]}
    changed = [
        f"  {flag}: {before.get(flag, 'not there')} then, {wanted.get(flag, 'not there')} now"
        for flag in dict.fromkeys((*before, *wanted))
        if before.get(flag) != wanted.get(flag)
    ]
    if changed:
        lines = "\n".join(changed)
        raise CheckpointError(
            f"{path} is of another run, and going on would not give what either run gives:\n{lines}\n"
            "Resume with the options of that run (the schedule spans all of its --epochs), or start a new run "
            "without --resume."
        )
    return content


def set_aside(*folders: str | Path) -> list[Path]:
    """Move what an earlier run left in these folders into ``earlier_run_N`` inside them; where it went.

    So nothing is lost, the highest number is always this run's, and ``--resume`` finds this run's files.
    """
    moved_to = []
    for folder in dict.fromkeys(Path(folder) for folder in folders):
        old = sorted(entry for pattern in _OUTPUTS for entry in folder.glob(pattern))
        if not old:
            continue
        number = 1
        while (target := folder / f"earlier_run_{number}").exists():
            number += 1
        target.mkdir()
        for entry in old:
            shutil.move(entry, target / entry.name)
        moved_to.append(target)
    return moved_to


_OUTPUTS = (
    "best_model_epoch_*.pt",
    "checkpoint_epoch_*.pt",
    "metrics_epoch_*.json",
    "overlays_epoch_*.png",
    "training_history.json",
    "curves.png",
    "tracker_logs",
)
