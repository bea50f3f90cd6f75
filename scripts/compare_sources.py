"""Train each vision source, in 4 bit and not, on one data folder, and compare it with knowing nothing.

    python scripts/compare_sources.py --data_dir DATA --out runs/compare --epochs 5

Every run starts from the same seed and takes the same data. Beside the trained models stand the untrained ones
and the answers that look at no query: everything, nothing, and the mean mask of the training set (cut at the
share that is best on the training set). Prints a table and writes it to OUT/table.json and OUT/table.md. Started
again, it goes on where it was stopped: a finished run is not repeated, a started one is resumed, and one that was
started with other options is refused.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from modified_lisa.config import VISION_SOURCES, ModelConfig, TrainingConfig
from modified_lisa.data import ReasonSegDataset
from modified_lisa.errors import ModifiedLISAError
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


def trained(source: str, quantize: bool, options: argparse.Namespace) -> list[Row]:
    """One row before and one after training."""
    from modified_lisa.evaluation import evaluate
    from modified_lisa.model.lisa import ModifiedLISA
    from modified_lisa.training.resume import seed_everything
    from modified_lisa.training.run import train

    name = f"{source}{', 4 bit' if quantize else ''}"
    folder = Path(options.out) / f"{source}-{'nf4' if quantize else options.dtype}"
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
            output_dir=str(folder),
            checkpoint_dir=str(folder),
            resume="latest",
        )
    )
    return rows_of(folder, name)


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
    parser.add_argument("--seed", type=int, default=42)
    options = parser.parse_args()
    try:
        rows = constant_answers(options.data_dir)
        for source in options.sources:
            for quantize in (False, True):
                if options.only != ("plain" if quantize else "nf4"):
                    rows += trained(source, quantize, options)
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_json(Path(options.out) / "table.json", rows)
    write_text(Path(options.out) / "table.md", table(rows))
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
