"""The model card of tiny-lisa: what it was trained on, and what it scored."""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from build import machine

from modified_lisa.data import ReasonSegDataset
from modified_lisa.evaluation import EvaluationResult
from modified_lisa.files import write_json, write_text
from modified_lisa.model.lisa import ModifiedLISA

HELD_OUT = ("wording", "combination", "kind")
CARD = """---
license: apache-2.0
---
# A tiny ModifiedLISA

The bundled tiny VLM and SAM with what was trained on top of them: {trained}
(`vision_source: {source}`). `modified-lisa segment IMAGE QUERY` uses it when no checkpoint is given.

- Data: scenes of `modified_lisa.data.scenes`, training split (no held-out wording, combination or kind of object),
  seed {seed}, {no_target:.0%} of the queries about what is not there; no photograph.
- Made by: `{command}`
- Machine: {machine}
- Trained for {steps} steps of {batch} scenes with {queries} queries each, {scenes} different scenes rendered meanwhile ({rendered}/s), {rate} steps/s;
  {parameters:,} weights, fp32, stored as fp16.
- Measured on {test} other scenes (test split, whose wordings, combinations and kinds of object are partly unseen; {share:.0%}
  without a target, where the right mask is the empty one and has an IoU of 1):
  mIoU {mIoU:.3f}, cIoU {cIoU:.3f}, gIoU {gIoU:.3f}; for comparison, answering "everything": mIoU {everything:.3f}.
- Right about "no target" in {nothing:.1%} of such queries; an empty answer to {missed:.1%} of the others.
- The IoU that it predicts: expected calibration error {calibration:.3f} (10 bins), corrected on {calibrated} scenes of the val split.

| queries | mIoU | samples |
|---|---|---|
{table}

- Limits: it knows drawn scenes only. On photographs its answers mean little.
"""


def grouped(scenes: Path, records: list[dict[str, Any]]) -> dict[str, list[float]]:
    """The IoUs of the records by kind of query, and by what was held out from training."""
    found = defaultdict(list)
    for record in records:
        stem = record["name"].split("#")[0]
        facts = json.loads((scenes / f"{stem}.json").read_text(encoding="utf-8"))["scene"]
        found[facts["kind"]].append(record["iou"])
        held_out = [name for name in HELD_OUT if facts[f"{name}_held_out"]]
        for name in held_out:
            found[f"held-out {name}"].append(record["iou"])
        if not held_out:
            found["nothing held out"].append(record["iou"])
    return dict(sorted(found.items()))


def write_card(
    options: argparse.Namespace,
    out: Path,
    scenes: Path,
    model: ModifiedLISA,
    measured: EvaluationResult,
    result: dict[str, Any],
) -> None:
    """Write README.md into ``out``, and the numbers beside it as JSON."""
    groups = grouped(scenes, measured.records)
    everything = []
    test = ReasonSegDataset(scenes, "test")
    for index in range(len(test)):
        target = test[index].target
        everything.append(float((target == 1).sum() / (target != 255).sum()))
    empty = [share == 0 for share in everything]
    nothing = groups.get("no-target", [])
    answered = [record for record, blank in zip(measured.records, empty, strict=True) if not blank]
    missed = [record["intersection"] == 0 and record["giou"] == -1 for record in answered]
    parameters = model.describe_parameters()
    write_text(
        out / "README.md",
        CARD.format(
            trained=", ".join(parameters["groups"]),
            source=options.vision_source,
            seed=options.seed,
            no_target=options.no_target_share,
            command=f"python scripts/tiny_models/default.py {' '.join(sys.argv[1:])}".strip(),
            machine=machine(),
            batch=options.batch,
            queries=options.queries,
            parameters=parameters["trainable"],
            test=len(test),
            share=sum(empty) / len(empty),
            everything=sum(everything) / len(everything),
            nothing=sum(iou == 1 for iou in nothing) / max(1, len(nothing)),
            missed=sum(missed) / max(1, len(missed)),
            calibrated=options.calibrate,
            calibration=measured.summary["calibration"]["ECE"],
            table="\n".join(
                f"| {name} | {sum(ious) / len(ious):.3f} | {len(ious)} |" for name, ious in groups.items()
            ),
            **{name: result[name] for name in ("steps", "rate", "scenes", "rendered")},
            **measured.metrics,
        ),
    )
    write_json(out.parent / f"{out.name}.json", {**result, "test": measured.metrics, "groups": groups})
