"""How much of a two-encoder model a shared one recovers without a label, and what labels add.

    python scripts/distillation_study.py --out runs/distillation

On generated scenes, with the bundled tiny models:

1. a ``dual`` teacher is trained with labels;
2. a ``vlm`` student is distilled from it, on other scenes, whose labels are not read: only their pictures, and
   the wordings of their queries, shuffled;
3. for comparison: the student before it learned anything, the same ``vlm`` model trained with the teacher's labels
   from the start, and the distilled student trained on with them.

All are measured on a test split that none has seen. Prints a table and writes it to OUT/table.md and
OUT/table.json. Started again, it goes on where it was stopped.
"""

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from modified_lisa.config import ModelConfig, TrainingConfig
from modified_lisa.data import ReasonSegDataset
from modified_lisa.data.scenes import generate
from modified_lisa.errors import ModifiedLISAError
from modified_lisa.evaluation import evaluate_checkpoint
from modified_lisa.files import write_json, write_text
from modified_lisa.model.loading import find_device
from modified_lisa.training.distillation.run import distill
from modified_lisa.training.distillation.settings import DistillConfig
from modified_lisa.training.distillation.student import build_student, read_teacher, student_config
from modified_lisa.training.resume import seed_everything
from modified_lisa.training.run import train

Row = dict[str, Any]


@dataclass(frozen=True)
class Study:
    """The command line, and where things are."""

    options: argparse.Namespace
    out: Path

    def done(self, name: str) -> Path | None:
        """The folder of a part that is finished."""
        folder = self.out / name
        return folder if (folder / "seconds.json").is_file() else None

    def finish(self, name: str, start: float) -> None:
        write_json(self.out / name / "seconds.json", round(time.monotonic() - start, 1))


def make_scenes(study: Study) -> None:
    """Labelled scenes, unlabelled ones from another seed, and the wordings of the latter's queries."""
    options = study.options
    if not study.done("labelled"):
        start, sizes = time.monotonic(), {"train": options.train, "val": options.val, "test": options.test}
        generate(study.out / "labelled", **sizes, seed=options.seed, overwrite=True)
        study.finish("labelled", start)
    if not study.done("unlabelled"):
        start, folder = time.monotonic(), study.out / "unlabelled"
        generate(folder, train=options.unlabelled, val=0, test=0, seed=options.seed + 1, overwrite=True)
        texts: set[str] = set()
        for path in sorted((folder / "train").glob("*.json")):
            texts |= set(json.loads(path.read_text(encoding="utf-8"))["text"])
        write_text(folder / "queries.txt", "\n".join(sorted(texts)) + "\n")
        study.finish("unlabelled", start)


def trained(study: Study, name: str, source: str, epochs: int, **more: Any) -> Path:
    """The best checkpoint of a training with labels, in OUT/name."""
    options, folder = study.options, study.out / name
    if not study.done(name):
        start = time.monotonic()
        model = ModelConfig(
            vlm_name=options.vlm_name,
            sam_name=options.sam_name,
            vision_source=source,
            dtype=options.dtype,
            quantize=False,
            train_mask_decoder=not options.frozen_decoder,
        )
        samples = len(ReasonSegDataset(study.out / "labelled", "train"))
        steps = epochs * -(-samples // options.batch_size)
        train(
            TrainingConfig(
                model=model,
                data_dir=str(study.out / "labelled"),
                epochs=epochs,
                batch_size=options.batch_size,
                warmup_steps=steps // 10,
                seed=options.seed,
                num_workers=options.num_workers,
                output_dir=str(folder),
                checkpoint_dir=str(folder),
                cache_dir=str(study.out / "cache"),
                resume="latest",
                **{"lr": options.lr, **more},
            )
        )
        study.finish(name, start)
    history = json.loads((folder / "training_history.json").read_text(encoding="utf-8"))
    return folder / Path(history["best"]["checkpoint"]).name


def distilled(study: Study, teacher: Path) -> Path:
    """The student's folder."""
    options, folder = study.options, study.out / "student"
    if not study.done("student"):
        start = time.monotonic()
        distill(
            DistillConfig(
                teacher=str(teacher),
                out=str(folder),
                images=str(study.out / "unlabelled" / "train"),
                queries=str(study.out / "unlabelled" / "queries.txt"),
                embedding_epochs=options.embedding_epochs,
                mask_epochs=options.mask_epochs,
                batch_size=options.batch_size,
                lr=options.lr,
                seed=options.seed,
                num_workers=options.num_workers,
                cache_dir=str(study.out / "cache"),
                resume=True,
            )
        )
        study.finish("student", start)
    return folder


def untrained(study: Study, teacher: Path) -> Path:
    """The student before its bridge has learned anything."""
    folder = study.out / "untrained"
    if not study.done("untrained"):
        start = time.monotonic()
        config, weights = read_teacher(teacher, {})
        seed_everything(study.options.seed)
        student = student_config(config, ModelConfig.bridge, None)
        build_student(student, weights, find_device()).save_pretrained(folder)
        study.finish("untrained", start)
    return folder


def measured(study: Study, name: str, words: str, source: Path, labels: int) -> Row:
    """One row of the table."""
    folder = study.out / "measured" / name
    if not (folder / "row.json").is_file():
        result = evaluate_checkpoint(
            source,
            data_dir=study.out / "labelled",
            split="test",
            output_dir=folder,
            batch_size=study.options.batch_size,
            num_workers=study.options.num_workers,
        )
        interval = result.summary["estimates"]["mIoU"]
        found = {**result.metrics, "low": interval["low"], "high": interval["high"]}
        write_json(folder / "row.json", {"name": name, "model": words, "labelled scenes": labels, **found})
    row: Row = json.loads((folder / "row.json").read_text(encoding="utf-8"))
    return row


def table(rows: list[Row]) -> str:
    """The rows as Markdown; the last column is the share of the teacher's mIoU."""
    lines = [
        "| model | labelled scenes | mIoU | 95 % interval | cIoU | gIoU | of the teacher's mIoU |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        interval = "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}"
        numbers = f"{row['mIoU']:.3f} | {interval} | {row['cIoU']:.3f} | {row['gIoU']:.3f}"
        share = f"{row['mIoU'] / rows[0]['mIoU']:.1%}" if rows[0]["mIoU"] else ""
        lines.append(f"| {row['model']} | {row['labelled scenes']} | {numbers} | {share} |")
    return "\n".join(lines) + "\n"


def run(study: Study) -> None:
    """All parts, in order."""
    options = study.options
    make_scenes(study)
    teacher = trained(study, "teacher", "dual", options.epochs)
    labels = options.train
    rows = [measured(study, "teacher", "`dual`, the teacher", teacher, labels)]
    start = untrained(study, teacher)
    rows.append(measured(study, "untrained", "its student, bridge untrained", start, 0))
    student = distilled(study, teacher)
    rows.append(measured(study, "distilled", "its student, distilled", student, 0))
    scratch = trained(study, "scratch", "vlm", options.epochs)
    rows.append(measured(study, "scratch", "`vlm`, trained with labels alone", scratch, labels))
    tuned = trained(
        study, "tuned", "vlm", options.tune_epochs, init_from=str(student), lr=options.lr * options.tune_share
    )
    rows.append(measured(study, "tuned", "the distilled student, trained on with labels", tuned, labels))
    parts = ("labelled", "unlabelled", "teacher", "student", "scratch", "tuned")
    seconds = {part: json.loads((study.out / part / "seconds.json").read_text()) for part in parts}
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    plain = dict(vars(options))
    write_json(
        study.out / "table.json", {"rows": rows, "seconds": seconds, "device": device, "options": plain}
    )
    write_text(study.out / "table.md", table(rows))
    print(table(rows))
    print(f"seconds on {device}: {seconds}")


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", default="runs/distillation")
    parser.add_argument("--vlm_name", default="tiny")
    parser.add_argument("--sam_name", default="tiny")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--frozen_decoder", action="store_true", help="do not train the mask decoder")
    for name, value in (
        ("train", 1500),
        ("val", 150),
        ("test", 500),
        ("unlabelled", 2500),
        ("epochs", 6),
        ("tune_epochs", 3),
        ("embedding_epochs", 8),
        ("mask_epochs", 4),
        ("batch_size", 16),
        ("num_workers", 6),
        ("seed", 1),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"(default: {value})")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--tune_share", type=float, default=0.3, help="of --lr, for the distilled student")
    options = parser.parse_args()
    try:
        run(Study(options, Path(options.out)))
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
