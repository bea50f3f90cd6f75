"""Training on two GPUs against one, at full size: `accelerate launch` with the configurations of configs/accelerate.

    python scripts/measure_two_gpus.py --out two-gpus.json              LLaVA-1.5-7B and SAM ViT-B, random weights
    python scripts/measure_two_gpus.py --out two-gpus.json --tiny       the bundled models; two CPU processes without GPUs

Each run is the command of a user on the same generated scenes, with the same samples in each optimizer step: what one
GPU accumulates over two batches, two GPUs take at once. So the losses must agree but for rounding, and the seconds of
an epoch's training, its first left out (it captures graphs), say what the second GPU gains. JSON and a table.
"""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modified_lisa.apps.cli import main as modified_lisa
from modified_lisa.benchmark.measure import describe_device, versions
from modified_lisa.config import ModelConfig
from modified_lisa.files import write_json
from modified_lisa.model.random_init import random_sam, random_vlm, seeded
from modified_lisa.model.sizes import sizes_of
from modified_lisa.model.tiny import save_sam, save_vlm

ROOT = Path(__file__).resolve().parents[1]
PROCESSES = 2


@dataclass(frozen=True)
class Run:
    """One training. ``config``: a file of configs/accelerate, for two processes; None: one process."""

    name: str
    config: str | None
    flags: tuple[str, ...]
    alone: str
    """Name of the run on one GPU that it is compared with."""


LORA = ("--no_quantization", "--lora_r", "8", "--lora_dropout", "0", "--gradient_checkpointing")
RUNS = [
    Run("nf4, one", None, (), ""),
    Run("bf16, one", None, ("--no_quantization",), ""),
    Run("bf16 with LoRA, one", None, LORA, ""),
    Run("nf4, two, whole on each", "two-gpus", (), "nf4, one"),
    Run("bf16, two, FSDP2", "fsdp2", ("--no_quantization",), "bf16, one"),
    Run("bf16, two, whole on each", "two-gpus", ("--no_quantization",), "bf16, one"),
    Run("bf16 with LoRA, two, FSDP2", "fsdp2", LORA, "bf16 with LoRA, one"),
]


def write_models(folder: Path, vlm_name: str, sam_name: str) -> tuple[str, str]:
    """Random weights of these sizes in the hub's layout."""
    from transformers import AutoTokenizer

    config = ModelConfig(vlm_name=vlm_name, sam_name=sam_name, quantize=False, vision_source="dual")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with seeded(0):
        vlm, _ = random_vlm(config, device, torch.bfloat16, with_lm_head=True)
        source, _ = sizes_of(vlm_name, "--vlm_name", "llava")
        save_vlm(folder / "vlm", vlm, AutoTokenizer.from_pretrained(source))
        del vlm
        save_sam(folder / "sam", random_sam(config, device, torch.bfloat16))
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return str(folder / "vlm"), str(folder / "sam")


def command_of(run: Run, words: list[str]) -> tuple[list[str], dict[str, str]]:
    """What a user types, and the environment. Without GPUs `accelerate launch` starts one process, so torchrun does."""
    script = [str(ROOT / "scripts" / "train_new2.py"), *words, *run.flags]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    if torch.cuda.is_available():
        config = str(ROOT / "configs" / "accelerate" / f"{run.config}.yaml")
        how = ["--num_processes", "1"] if run.config is None else ["--config_file", config]
        return [sys.executable, "-m", "accelerate.commands.launch", *how, *script], environment
    environment["ACCELERATE_USE_CPU"] = "true"
    if run.config is None:
        return [sys.executable, *script], environment
    if run.config == "fsdp2":
        environment |= {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(PROCESSES)]
    return [sys.executable, *start, *script], environment


def run_within(
    seconds: float, command: list[str], environment: dict[str, str] | None = None
) -> tuple[int, str, str] | None:
    """Exit status, stdout and stderr; None if it took longer. It is ended then, and with it all that it has started:
    a launcher that is killed alone leaves its training on the GPU, beside the next run that is measured."""
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except BaseException as error:
        # Asked first: torchrun's workers are in sessions of their own, and it ends them.
        for end in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, end)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=15)
        if isinstance(error, subprocess.TimeoutExpired):
            return None
        raise
    return process.returncode, stdout, stderr


def measure(run: Run, words: list[str], options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Train; what its history says. ``error``: the end of what it said, if it failed."""
    accumulated = 1 if run.config else PROCESSES
    command, environment = command_of(
        run,
        [
            *words,
            *("--output_dir", str(folder / "outputs"), "--checkpoint_dir", str(folder / "checkpoints")),
            *("--gradient_accumulation_steps", str(accumulated)),
        ],
    )
    done = run_within(options.limit, command, environment)
    if done is None:
        return {"error": f"not done after {options.limit} s"}
    status, stdout, stderr = done
    if status:
        return {"error": (stdout[-1000:] + stderr[-3000:]).strip()}
    history = json.loads((folder / "outputs" / "training_history.json").read_text(encoding="utf-8"))
    seconds = [epoch["train_seconds"] for epoch in history["epochs"]]
    return {
        "processes": history["processes"],
        "samples_in_a_step": history["global_batch"],
        "epoch_seconds": seconds,
        "samples_per_second": round(options.samples / statistics.median(seconds[1:]), 2),
        "peak_memory_gb": history["benchmarks"]["peak_memory_gb"],
        "train_loss": [epoch["train"]["loss"] for epoch in history["epochs"]],
        "val_loss": [epoch["val"]["val_loss"] for epoch in history["epochs"]],
        "said": [line for line in stdout.splitlines() if "FSDP" in line or "CUDA graphs" in line],
    }


def compare(found: dict[str, dict[str, Any]]) -> None:
    """Add to each run on two GPUs the gain over one, and how far its losses are off."""
    for run in RUNS:
        mine, alone = found.get(run.name, {}), found.get(run.alone, {})
        if "train_loss" in mine and "train_loss" in alone:
            mine["times_one"] = round(mine["samples_per_second"] / alone["samples_per_second"], 3)
            pairs = [*zip(mine["train_loss"], alone["train_loss"], strict=True)]
            mine["train_loss_off"] = max(abs(a - b) / abs(b) for a, b in pairs)


def table(found: dict[str, dict[str, Any]]) -> str:
    """The runs as Markdown."""
    lines = [
        "| run | samples a second | times one GPU | peak of each, GiB | losses differ by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, row in found.items():
        if "error" in row:
            lines.append(f"| {name} | failed | | | |")
            continue
        gain, off = row.get("times_one", ""), row.get("train_loss_off")
        lines.append(
            f"| {name} | {row['samples_per_second']} | {gain} | {row['peak_memory_gb']:.2f} | "
            f"{'' if off is None else f'{off:.1e}'} |"
        )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure; write; 1 if a run failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("two-gpus.json"), help="default: two-gpus.json")
    parser.add_argument("--vlm_name", default="llava-hf/llava-1.5-7b-hf")
    parser.add_argument("--sam_name", default="facebook/sam-vit-base")
    parser.add_argument("--tiny", action="store_true", help="the bundled models instead")
    parser.add_argument("--work", type=Path, help="folder for 14 GB of weights (default: a temporary one)")
    parser.add_argument("--samples", type=int, default=192, help="of an epoch (default: 192)")
    parser.add_argument("--epochs", type=int, default=3, help="two at least (default: 3)")
    parser.add_argument("--batch_size", type=int, default=4, help="of a process (default: 4)")
    parser.add_argument("--num_workers", type=int, default=4, help="of a process (default: 4)")
    parser.add_argument("--limit", type=float, default=300, help="seconds of a run (default: 300)")
    parser.add_argument("--runs", nargs="+", help="only those whose names contain one of these texts")
    options = parser.parse_args(argv)
    if options.epochs < 2:
        parser.error(f"--epochs is {options.epochs}; the first one is not measured, so two are the least")
    if torch.cuda.is_available() and torch.cuda.device_count() < PROCESSES:
        parser.error(
            f"PyTorch sees {torch.cuda.device_count()} GPU(s) here, and {PROCESSES} are to be measured"
        )
    chosen = [run for run in RUNS if not options.runs or any(text in run.name for text in options.runs)]
    report: dict[str, Any] = {
        "device": describe_device(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "versions": versions("torch", "transformers", "accelerate", "bitsandbytes"),
        "options": {
            name: value for name, value in vars(options).items() if name not in ("out", "work", "runs")
        },
        "runs": {},
    }
    with tempfile.TemporaryDirectory(dir=options.work) as temporary:
        work = Path(temporary)
        scenes = [
            "scenes",
            str(work / "scenes"),
            "--train",
            str(options.samples),
            "--val",
            "4",
            "--test",
            "0",
        ]
        if status := modified_lisa(scenes):
            return status
        names = ("tiny", "tiny")
        if not options.tiny:
            names = write_models(work, options.vlm_name, options.sam_name)
        words = [
            *("--vlm_name", names[0], "--sam_name", names[1], "--use_vlm_vision"),
            *("--data_dir", str(work / "scenes"), "--max_train_samples", str(options.samples)),
            *(
                "--max_val_samples",
                "4",
                "--epochs",
                str(options.epochs),
                "--batch_size",
                str(options.batch_size),
            ),
            *("--num_workers", str(options.num_workers), "--warmup_steps", "4", "--save_every", "100"),
        ]
        for number, run in enumerate(chosen):
            found = report["runs"][run.name] = measure(run, words, options, work / f"run-{number}")
            compare(report["runs"])
            write_json(options.out, report)
            print(f"{run.name}: {json.dumps(found)}", flush=True)
    print(table(report["runs"]))
    return int(any("error" in row for row in report["runs"].values()))


if __name__ == "__main__":
    sys.exit(main())
