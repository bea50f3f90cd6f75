"""What a run says and writes: console lines, the progress bar, trackers, metrics and history as JSON."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import LoggerType, ProjectConfiguration
from tqdm import tqdm

from modified_lisa.benchmark.measure import versions
from modified_lisa.config import TrainingConfig
from modified_lisa.errors import ConfigError
from modified_lisa.files import write_json

__all__ = ["Report", "make_accelerator", "plain_config", "wants_sharding"]

VERSIONS = ("torch", "transformers", "accelerate", "bitsandbytes")


def make_accelerator(config: TrainingConfig) -> Accelerator:
    """The processes of this run, and its tracker.

    Raises ConfigError for a tracker that accelerate does not know or that is not installed, and for a
    launcher set up for something other than plain data parallelism or FSDP2.
    """
    name = config.log_with
    if name is not None:
        known = [str(entry) for entry in LoggerType]
        installed = [str(entry) for entry in get_available_trackers()]
        if name not in known:
            raise ConfigError(f"--log_with is {name!r}; accelerate knows {', '.join(known)}")
        if name not in installed and name != "all":
            raise ConfigError(
                f"--log_with {name}: it is not installed; install its package, or use one that is: "
                f"{', '.join(installed)}"
            )
    # The model sets its own precision part by part, so no autocast is laid around it.
    try:
        accelerator = Accelerator(
            mixed_precision="no",
            log_with=name,
            project_config=ProjectConfiguration(
                project_dir=config.output_dir, logging_dir=str(Path(config.output_dir) / "tracker_logs")
            ),
        )
    except ImportError as error:  # DeepSpeed and others, asked for by the launcher's configuration
        raise ConfigError(
            f"the launcher asks for what is not installed: {error} This training needs plain data parallelism: "
            "choose 'multi-GPU' in `accelerate config`."
        ) from error
    kind = str(accelerator.distributed_type.value)
    if wants_sharding(accelerator):
        if os.environ.get("FSDP_VERSION", "1") != "2":
            raise ConfigError(
                "the launcher is set up for FSDP of version 1; this training works with version 2: "
                "fsdp_version: 2, as in configs/accelerate/fsdp2.yaml"
            )
        # transformers would leave the weights of all processes but the first empty, for `prepare` to fill in.
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"
    elif kind != "NO" and not kind.startswith("MULTI_"):
        raise ConfigError(
            f"the launcher is set up for {kind}; this training needs plain data parallelism, in which every "
            "process holds the whole model, or FSDP2. Choose 'multi-GPU' in `accelerate config`."
        )
    return accelerator


def wants_sharding(accelerator: Accelerator) -> bool:
    """Whether the launcher asks for FSDP, with several processes. accelerate itself leaves it out on CPUs, silently."""
    asked = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return accelerator.num_processes > 1 and (asked or accelerator.distributed_type.value == "FSDP")


def plain_config(config: TrainingConfig) -> dict[str, Any]:
    """Plain nested values, for JSON."""
    return {**dataclasses.asdict(config), "model": config.model.to_dict()}


class Report:
    """Everything that a person reads. Only the main process writes; the others call in vain."""

    def __init__(self, config: TrainingConfig, accelerator: Accelerator, facts: dict[str, Any]) -> None:
        """``facts``: what is known before the first step, goes into the history as it is."""
        self.config, self.accelerator = config, accelerator
        self.folder = Path(config.output_dir)
        self.is_main = accelerator.is_main_process
        self.history: dict[str, Any] = {
            "config": plain_config(config),
            "versions": versions(*VERSIONS),
            **facts,
            "best": None,
            "benchmarks": None,
            "epochs": [],
        }
        self.bar: Any = None

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The records of the epochs done so far."""
        return self.history["epochs"]

    def start(self, samples: int, done: int) -> None:
        """Open the bar, which counts all samples of the run, and the tracker."""
        # Not a terminal: a line each half minute instead of several a second.
        every = 0.2 if sys.stderr.isatty() else 30.0
        self.bar = tqdm(
            total=samples,
            initial=done,
            unit="sample",
            mininterval=every,
            smoothing=0.02,
            dynamic_ncols=True,
            disable=not self.is_main,
        )
        if self.config.log_with:
            self.accelerator.init_trackers("modified_lisa", config=_flat(plain_config(self.config)))

    def close(self) -> None:
        """Close the bar; what has been said stays."""
        if self.bar is not None:
            self.bar.close()

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self.is_main:
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()

    def step(self, samples: int, step: int, values: dict[str, float]) -> None:
        """Show and log one optimizer step of ``samples`` samples."""
        self.bar.set_postfix({key: f"{value:.4g}" for key, value in values.items()}, refresh=False)
        self.bar.update(samples)
        self.log({f"step/{key}": value for key, value in values.items()}, step)

    def log(self, values: dict[str, float], step: int) -> None:
        """Send values to the tracker, if there is one."""
        if self.config.log_with:
            self.accelerator.log(values, step=step)

    def epoch(self, record: dict[str, Any], *, best: bool, step: int) -> None:
        """Write one epoch's metrics and the history, and say it in a line."""
        self.epochs.append(record)
        # The bar has guessed how far the other processes are; now all are here.
        self.bar.n = record["epoch"] * sum(self.history["samples"].values())
        self.write_history()
        if self.is_main:
            write_json(self.folder / f"metrics_epoch_{record['epoch']}.json", record)
        train, val = record["train"], record["val"]
        self.log({f"train/{key}": value for key, value in train.items()}, step)
        self.log({f"val/{key.removeprefix('val_')}": value for key, value in val.items()}, step)
        self.say(
            f"epoch {record['epoch']}/{self.config.epochs}  "
            f"train: loss {train['loss']:.4f} mIoU {train['mIoU']:.3f}  "
            f"val: loss {val['val_loss']:.4f} mIoU {val['val_mIoU']:.3f} cIoU {val['val_cIoU']:.3f}"
            f"{' (best)' if best else ''}  lr {record['lr']:.2e}  {record['seconds']:.0f} s"
        )

    def write_history(self) -> None:
        """Write ``training_history.json`` as it is now."""
        if self.is_main:
            write_json(self.folder / "training_history.json", self.history)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested options as ``model.dtype`` and so on, in types that every tracker takes."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value if isinstance(value, str | int | float) else str(value)
    return flat
