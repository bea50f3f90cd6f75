"""Train each vision source, in 4 bit and not, on one data folder, and compare it with knowing nothing.

    python scripts/compare_sources.py --data_dir DATA --out runs/compare --epochs 5

Every run starts from the same seed and takes the same data. Beside the trained models stand the untrained ones
and the answers that look at no query: everything, nothing, and the mean mask of the training set (cut at the
share that is best on the training set). Prints a table and writes it to OUT/table.json and OUT/table.md. With
``--processes N`` up to N runs share the device, each in a process of its own that writes OUT/RUN/log.txt. Started
again, it goes on where it was stopped: a finished run is not repeated, a started one is resumed, and one that was
started with other options is refused.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from modified_lisa.config import VISION_SOURCES, ModelConfig, TrainingConfig
from modified_lisa.data import ReasonSegDataset
from modified_lisa.errors import ModifiedLISAError, TrainingError
from modified_lisa.files import write_json, write_text
from modified_lisa.images import resize_image
from modified_lisa.metrics import SegmentationMetrics

Row = dict[str, str | float | int]
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


def folder_of(source: str, quantize: bool, options: argparse.Namespace) -> Path:
    """Where the run of this name keeps its files."""
    return Path(options.out) / f"{source}-{'nf4' if quantize else options.dtype}"


def name_of(source: str, quantize: bool) -> str:
    """As the table says it."""
    return f"{source}{', 4 bit' if quantize else ''}"


def trained(source: str, quantize: bool, options: argparse.Namespace) -> list[Row]:
    """One row before and one after training."""
    from modified_lisa.evaluation import evaluate
    from modified_lisa.model.lisa import ModifiedLISA
    from modified_lisa.training.resume import seed_everything
    from modified_lisa.training.run import train

    folder = folder_of(source, quantize, options)
    model = ModelConfig(
        vlm_name=options.vlm_name,
        sam_name=options.sam_name,
        vision_source=source,
        dtype=options.dtype,
        quantize=quantize,
    )
    if not (folder / "untrained.json").is_file():
        seed_everything(options.seed)
        before = evaluate(ModifiedLISA.from_config(model), ReasonSegDataset(options.data_dir, "val"))
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
            max_train_samples=options.max_train_samples,
            max_val_samples=options.max_val_samples,
            output_dir=str(folder),
            checkpoint_dir=str(folder),
            resume="latest",
        )
    )
    return rows_of(folder, name_of(source, quantize))


def train_in_processes(runs: list[tuple[str, bool]], options: argparse.Namespace) -> None:
    """Do the ``runs``, ``options.processes`` at a time, by this script itself; `trained` then finds them finished.

    Raises TrainingError, with the end of the log, when all have ended and one has failed.
    """
    given = vars(options) | {"processes": 1}
    common = [
        f"--{name}={value}"
        for name, value in given.items()
        if value is not None and name not in ("sources", "only", "no_table")
    ]
    waiting, failed = list(runs), list[str]()
    running: list[tuple[Path, subprocess.Popen[bytes]]] = []
    with tqdm(total=len(runs), desc="runs") as bar:
        while waiting or running:
            while waiting and len(running) < options.processes:
                source, quantize = waiting.pop(0)
                log = folder_of(source, quantize, options) / "log.txt"
                log.parent.mkdir(parents=True, exist_ok=True)
                command = [sys.executable, __file__, *common, "--no_table", "--sources", source]
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


def rows_of(folder: Path, name: str) -> list[Row]:
    """What `trained` left in ``folder``, as rows of the table."""
    import json

    before = json.loads((folder / "untrained.json").read_text(encoding="utf-8"))
    history = json.loads((folder / "training_history.json").read_text(encoding="utf-8"))
    best = max(history["epochs"], key=lambda epoch: epoch["val"]["val_mIoU"])
    after = {key: best["val"][f"val_{key}"] for key in ("mIoU", "cIoU", "gIoU")}
    seconds = sum(epoch["seconds"] for epoch in history["epochs"])
    weights = history["parameters"]["trainable"]
    return [
        {"answer": f"{name}, untrained", **before},
        {
            "answer": f"{name}, trained",
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
    parser.add_argument("--sources", nargs="+", choices=VISION_SOURCES, default=list(VISION_SOURCES))
    parser.add_argument("--only", choices=("nf4", "plain"), help="4-bit runs only, or unquantised ones only")
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warmup_steps", type=int, default=50)
    parser.add_argument("--num_workers", type=int, default=0, help="loading processes of each run")
    parser.add_argument("--max_train_samples", type=int)
    parser.add_argument("--max_val_samples", type=int)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--processes", type=int, default=1, help="runs at a time, on one device (default: 1)")
    parser.add_argument("--no_table", action="store_true", help="train only; a later call makes the table")
    options = parser.parse_args()
    runs = [
        (source, quantize)
        for source in options.sources
        for quantize in (False, True)
        if options.only != ("plain" if quantize else "nf4")
    ]
    try:
        if options.no_table:
            for source, quantize in runs:
                trained(source, quantize, options)
            return 0
        rows = constant_answers(options.data_dir)
        if options.processes > 1:
            train_in_processes(runs, options)
        for source, quantize in runs:
            done = options.processes > 1
            folder, name = folder_of(source, quantize, options), name_of(source, quantize)
            rows += rows_of(folder, name) if done else trained(source, quantize, options)
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(Path(options.out) / "table.json", rows)
    write_text(Path(options.out) / "table.md", table(rows))
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
