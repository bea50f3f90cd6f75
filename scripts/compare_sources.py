"""Train each vision source, in 4 bit and not, on one data folder, and compare it with knowing nothing.

    python scripts/compare_sources.py --data_dir DATA --out runs/compare --epochs 5

Every run starts from the same seed and takes the same data. Beside the trained models stand the untrained ones
and the answers that look at no query: everything, nothing, and the mean mask of the training set (cut at the
share that is best on the training set). Prints a table and writes it to OUT/table.json and OUT/table.md. With
``--processes N`` up to N runs share the device, each in a process of its own that writes OUT/RUN/log.txt. Started
again, it goes on where it was stopped: a finished run is not repeated, a started one is resumed, and one that was
started with other options is refused. ``--table_only`` makes the table of what is there, also of runs that were
stopped between. The trained weights are the specification's; ``--more vlm`` trains that source once more, with the
whole mask decoder and LoRA beside them.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from modified_lisa.config import VISION_SOURCES, ModelConfig, TrainingConfig
from modified_lisa.data import ReasonSegDataset
from modified_lisa.errors import ModifiedLISAError, TrainingError
from modified_lisa.files import write_json, write_text
from modified_lisa.images import resize_image
from modified_lisa.metrics import SegmentationMetrics

Row = dict[str, str | float | int]
Run = tuple[str, bool, bool]
"""Vision source, in 4 bit, with `MORE`."""
MORE: dict[str, Any] = {"train_mask_decoder": True, "lora_r": 8}
SHARES = np.linspace(0.05, 0.95, 19)


def constant_answers(data_dir: str) -> list[Row]:
    """Metrics on val of the answers that do not look at the query."""
    train = ReasonSegDataset(data_dir, "train", every_text=False)
    val = ReasonSegDataset(data_dir, "val")
    squares = np.stack([_square(train[index].target == 1) for index in tqdm(range(len(train)), "mean mask")])
    mean = squares.mean(axis=0)
    best = max(SHARES, key=lambda share: _miou(squares > 0.5, mean > share))
    answers = {
        "everything": lambda size: np.ones(size, bool),
        "nothing": lambda size: np.zeros(size, bool),
        f"mean mask above {best:.2f}": lambda size: _stretch(mean, size) > best,
    }
    return [{"answer": name, **_measure(val, answer)} for name, answer in answers.items()]


def _measure(samples: ReasonSegDataset, answer) -> dict[str, float]:  # type: ignore[no-untyped-def]
    metrics = SegmentationMetrics()
    for index in range(len(samples)):
        target = samples[index].target
        metrics.update(answer(target.shape), target)
    return metrics.compute()


def _miou(truths: np.ndarray, answer: np.ndarray) -> float:
    """The mean IoU of one answer (128, 128) with every truth (N, 128, 128)."""
    either = (truths | answer).sum((1, 2))
    return float(((truths & answer).sum((1, 2)) / np.maximum(either, 1)).mean())


def _square(mask: np.ndarray) -> np.ndarray:
    picture = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, axis=2)
    return resize_image(picture, 128, 128, "bilinear")[..., 0] / 255


def _stretch(mean: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = np.repeat((mean[..., None] * 255).round().astype(np.uint8), 3, axis=2)
    return resize_image(picture, *size, "bilinear")[..., 0] / 255


def folder_of(run: Run, options: argparse.Namespace) -> Path:
    """Where the run keeps its files."""
    source, quantize, more = run
    return Path(options.out) / f"{source}-{'nf4' if quantize else options.dtype}{'-more' if more else ''}"


def name_of(run: Run) -> str:
    """As the table says it."""
    source, quantize, more = run
    return f"{source}{', 4 bit' if quantize else ''}{', mask decoder and LoRA' if more else ''}"


def runs_of(options: argparse.Namespace) -> list[Run]:
    """All runs that were asked for, those with `MORE` last."""
    kinds = [kind for kind, name in ((False, "plain"), (True, "nf4")) if options.only in (None, name)]
    return [
        *((source, quantize, False) for source in options.sources for quantize in kinds),
        *((source, quantize, True) for source in options.more for quantize in kinds),
    ]


def trained(run: Run, options: argparse.Namespace) -> list[Row]:
    """One row before and one after training."""
    from modified_lisa.evaluation import evaluate
    from modified_lisa.model.lisa import ModifiedLISA
    from modified_lisa.training.resume import seed_everything
    from modified_lisa.training.run import train

    source, quantize, more = run
    folder = folder_of(run, options)
    model = ModelConfig(
        vlm_name=options.vlm_name,
        sam_name=options.sam_name,
        vision_source=source,
        dtype=options.dtype,
        quantize=quantize,
        **(MORE if more else {}),
    )
    if not (folder / "untrained.json").is_file():
        seed_everything(options.seed)
        val = ReasonSegDataset(options.data_dir, "val", max_samples=options.max_val_samples)
        workers = {"batch_size": options.batch_size, "num_workers": options.num_workers}
        before = evaluate(ModifiedLISA.from_config(model), val, **workers)
        write_json(folder / "untrained.json", before.metrics)
    train(
        TrainingConfig(
            model=model,
            data_dir=options.data_dir,
            epochs=options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            warmup_steps=options.warmup_steps,
            seed=options.seed,
            num_workers=options.num_workers,
            cache_dir=options.cache_dir,
            max_train_samples=options.max_train_samples,
            max_val_samples=options.max_val_samples,
            output_dir=str(folder),
            checkpoint_dir=str(folder),
            resume="latest",
        )
    )
    return rows_of(run, options)


def train_in_processes(runs: list[Run], options: argparse.Namespace) -> None:
    """Do the ``runs``, ``options.processes`` at a time, by this script itself; `trained` then finds them finished.

    Raises TrainingError, with the end of the log, when all have ended and one has failed.
    """
    given = vars(options) | {"processes": 1}
    common = [
        f"--{name}={value}"
        for name, value in given.items()
        if value is not None and name not in ("sources", "more", "only", "no_table", "table_only")
    ]
    waiting, failed = list(runs), list[str]()
    running: list[tuple[Path, subprocess.Popen[bytes]]] = []
    with tqdm(total=len(runs), desc="runs") as bar:
        while waiting or running:
            while waiting and len(running) < options.processes:
                run = waiting.pop(0)
                source, quantize, more = run
                log = folder_of(run, options) / "log.txt"
                log.parent.mkdir(parents=True, exist_ok=True)
                command = [sys.executable, __file__, *common, "--no_table"]
                command += ["--sources", "--more", source] if more else ["--sources", source]
                command.append(f"--only={'nf4' if quantize else 'plain'}")
                with log.open("ab") as file:
                    running.append((log, subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT)))
            time.sleep(0.5)
            for log, process in [entry for entry in running if entry[1].poll() is not None]:
                running.remove((log, process))
                bar.update()
                if process.returncode:
                    failed.append(f"{log}:\n{log.read_text(encoding='utf-8', errors='replace')[-1500:]}")
    if failed:
        raise TrainingError("\n".join(["some runs failed; the others are kept", *failed]))


def rows_of(run: Run, options: argparse.Namespace) -> list[Row]:
    """What `trained` left, as rows of the table; of a run that was stopped, those that there are."""
    import json

    folder, name = folder_of(run, options), name_of(run)
    if not (folder / "untrained.json").is_file():
        return []
    before = json.loads((folder / "untrained.json").read_text(encoding="utf-8"))
    untrained: Row = {"answer": f"{name}, untrained", **before}
    path = folder / "training_history.json"
    history = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"epochs": []}
    if not history["epochs"]:
        return [untrained]
    best = max(history["epochs"], key=lambda epoch: epoch["val"]["val_mIoU"])
    after = {key: best["val"][f"val_{key}"] for key in ("mIoU", "cIoU", "gIoU")}
    seconds = sum(epoch["seconds"] for epoch in history["epochs"])
    epochs = len(history["epochs"])
    done = epochs >= history["config"]["epochs"]
    weights = history["parameters"]["trainable"]
    return [
        untrained,
        {
            "answer": f"{name}, trained" if done else f"{name}, stopped after {epochs} epochs",
            **after,
            "epoch": best["epoch"],
            "weights": weights,
            "seconds": round(seconds),
        },
    ]


def table(rows: list[Row]) -> str:
    """The rows as Markdown."""
    lines = [
        "| answer | mIoU | cIoU | gIoU | best epoch | trained weights |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        numbers = [f"{row[key]:.3f}" for key in ("mIoU", "cIoU", "gIoU")]
        lines.append(
            f"| {row['answer']} | {' | '.join(numbers)} | {row.get('epoch', '')} | {row.get('weights', '')} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True, help="folder with train/ and val/")
    parser.add_argument(
        "--out", default="runs/compare", help="where runs and table go (default: runs/compare)"
    )
    parser.add_argument("--vlm_name", default="tiny")
    parser.add_argument("--sam_name", default="tiny")
    parser.add_argument("--sources", nargs="*", choices=VISION_SOURCES, default=list(VISION_SOURCES))
    parser.add_argument(
        "--more", nargs="*", choices=VISION_SOURCES, default=[], help="sources to train once more, see above"
    )
    parser.add_argument("--only", choices=("nf4", "plain"), help="4-bit runs only, or unquantised ones only")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup_steps", type=int, default=50)
    parser.add_argument("--num_workers", type=int, default=0, help="loading processes of each run")
    parser.add_argument(
        "--cache_dir", help="where features of the frozen encoders are kept; all runs share it"
    )
    parser.add_argument("--max_train_samples", type=int)
    parser.add_argument("--max_val_samples", type=int)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--processes", type=int, default=1, help="runs at a time, on one device (default: 1)")
    parser.add_argument("--no_table", action="store_true", help="train only; a later call makes the table")
    parser.add_argument("--table_only", action="store_true", help="of what is there; nothing is trained")
    options = parser.parse_args()
    runs = runs_of(options)
    try:
        if options.no_table:
            for run in runs:
                trained(run, options)
            return 0
        rows = constant_answers(options.data_dir)
        if options.processes > 1 and not options.table_only:
            train_in_processes(runs, options)
        done = options.processes > 1 or options.table_only
        for run in runs:
            rows += rows_of(run, options) if done else trained(run, options)
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(Path(options.out) / "table.json", rows)
    write_text(Path(options.out) / "table.md", table(rows))
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
