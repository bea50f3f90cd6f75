"""Train the ModifiedLISA that `modified-lisa segment` uses when no checkpoint is given: tiny-lisa.

    python scripts/tiny_models/default.py

Takes the bundled tiny VLM and SAM, trains the shared model on generated scenes with the training of the package,
measures it on a test split of its own, and saves weights and a model card.
"""

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from modified_lisa.config import ModelConfig, TrainingConfig
from modified_lisa.data import ReasonSegDataset
from modified_lisa.data.scenes import generate
from modified_lisa.evaluation import evaluate
from modified_lisa.files import write_text
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.training.run import train

ASSETS = Path(__file__).resolve().parents[2] / "src" / "modified_lisa" / "assets"
CARD = """---
license: apache-2.0
---
# A tiny ModifiedLISA

The bundled tiny VLM and SAM with a trained bridge, seg projection, `<SEG>` row and mask decoder
(`vision_source: vlm`). `modified-lisa segment IMAGE QUERY` uses it when no checkpoint is given.

- Data: {train} training scenes of `modified_lisa.data.scenes`, seed {seed}, every wording of every query.
- Made by: `{command}`
- Measured on {test} other scenes (test split, whose wordings and combinations are partly unseen):
  mIoU {mIoU:.3f}, cIoU {cIoU:.3f}, gIoU {gIoU:.3f}; for comparison, answering "everything": mIoU {everything:.3f}.
- mIoU by kind of query: {kinds}
- Limits: it knows drawn scenes only. On photographs its answers mean little.
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=int, default=2500, help="training scenes")
    parser.add_argument("--test", type=int, default=300, help="test scenes")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--work", type=Path, help="folder for scenes and logs (default: a temporary one)")
    parser.add_argument("--out", type=Path, default=ASSETS / "tiny-lisa")
    options = parser.parse_args()
    work = options.work or Path(tempfile.mkdtemp(prefix="tiny-lisa-"))
    scenes = work / "scenes"
    if not scenes.is_dir():
        generate(scenes, train=options.train, val=100, test=options.test, seed=options.seed)
    model = ModelConfig(
        vlm_name="tiny", sam_name="tiny", dtype="fp32", quantize=False, train_mask_decoder=True
    )
    history = train(
        TrainingConfig(
            model=model,
            data_dir=str(scenes),
            epochs=options.epochs,
            batch_size=options.batch_size,
            lr=options.lr,
            output_dir=str(work / "outputs"),
            checkpoint_dir=str(work / "checkpoints"),
        )
    )
    best = ModifiedLISA.from_pretrained(history["best"]["checkpoint"])
    best.save_pretrained(options.out)
    test = ReasonSegDataset(scenes, "test")
    result = evaluate(best, test, batch_size=8)
    kinds, everything = by_kind(scenes, result.records), []
    for index in range(len(test)):
        target = test[index].target
        everything.append(float((target == 1).sum() / (target != 255).sum()))
    write_text(
        options.out / "README.md",
        CARD.format(
            train=options.train,
            test=options.test,
            seed=options.seed,
            command=f"python scripts/tiny_models/default.py {' '.join(sys.argv[1:])}".strip(),
            kinds=", ".join(
                f"{kind} {value:.2f} ({count})" for kind, (value, count) in sorted(kinds.items())
            ),
            everything=sum(everything) / len(everything),
            **result.metrics,
        ),
    )
    print((options.out / "README.md").read_text(encoding="utf-8"))


def by_kind(scenes: Path, records: list[dict[str, Any]]) -> dict[str, tuple[float, int]]:
    """Mean IoU and number of samples of each kind of query."""
    found = defaultdict(list)
    for record in records:
        stem = record["name"].split("#")[0]
        facts = json.loads((scenes / f"{stem}.json").read_text(encoding="utf-8"))["scene"]
        found[facts["query"]["kind"] if isinstance(facts.get("query"), dict) else facts["kind"]].append(
            record["iou"]
        )
    return {kind: (sum(values) / len(values), len(values)) for kind, values in found.items()}


if __name__ == "__main__":
    main()
