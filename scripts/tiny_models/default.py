"""Train the ModifiedLISA that `modified-lisa segment` uses when no checkpoint is given: tiny-lisa.

    python scripts/tiny_models/default.py --models OUT

Takes the tiny VLM and SAM of a folder (the bundled ones without ``--models``), trains the shared model on scenes that are
rendered meanwhile, puts its predicted IoU right on scenes of the val split, measures it on a test split by kind of query and
by what was held out, and saves weights (fp16) and a model card. ``--seconds`` is the time of the whole command.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from build import ASSETS, machine
from card import write_card
from data import Maker
from heads import PLACES
from optimizers import make_optimizer, rate_at
from packed import Texts, losses_of
from ring import Ahead, Ring, default_workers, on_device

from modified_lisa.config import ModelConfig
from modified_lisa.data import ReasonSegDataset
from modified_lisa.data.scenes import QUERY_KINDS, generate
from modified_lisa.evaluation import evaluate
from modified_lisa.files import write_json
from modified_lisa.model.building import build_processor
from modified_lisa.model.checkpoint import save_folder
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.scoring.calibration import fit_correction

BEGAN = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, default=ASSETS, help="folder of tiny-vlm and tiny-sam")
    parser.add_argument("--out", type=Path, help="folder to write (default: tiny-lisa in that of --models)")
    parser.add_argument(
        "--heads", type=Path, help="tiny-vlm-heads.safetensors of the pretraining, to start from"
    )
    parser.add_argument(
        "--start",
        type=Path,
        help="folder of a tiny-lisa to go on from, trained on an earlier VLM, for instance",
    )
    parser.add_argument("--seconds", type=float, default=290, help="time of the whole command (default: 290)")
    parser.add_argument("--batch", type=int, default=48, help="scenes in a step")
    parser.add_argument("--queries", type=int, default=6, help="queries of each scene in a step")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--no_target_share", type=float, default=0.12)
    parser.add_argument("--vision_source", choices=("vlm", "sam", "dual"), default="vlm")
    parser.add_argument(
        "--frozen_decoder", action="store_true", help="train what the specification names, no more"
    )
    parser.add_argument("--train_projector", action="store_true")
    parser.add_argument("--lora_r", type=int, default=0)
    parser.add_argument("--bridge", default="pyramid")
    parser.add_argument("--workers", type=int, default=2 * default_workers(), help="processes that render")
    parser.add_argument("--capacity", type=int, default=16_000, help="scenes kept on the device")
    parser.add_argument("--first", type=int, default=1500, help="scenes made before the first step")
    parser.add_argument("--val", type=int, default=288)
    parser.add_argument("--test", type=int, default=600, help="test scenes")
    parser.add_argument(
        "--calibrate", type=int, default=300, help="val scenes that the predicted IoU is put right on"
    )
    parser.add_argument("--reserve", type=float, default=60, help="seconds kept for calibration and test")
    parser.add_argument("--seed", type=int, default=100)
    options = parser.parse_args()
    out = options.out or options.models / "tiny-lisa"
    with tempfile.TemporaryDirectory(prefix="tiny-lisa-") as work:
        run(options, out, Path(work) / "scenes")


def run(options: argparse.Namespace, out: Path, scenes: Path) -> None:
    """Generate the test scenes, train, save, measure, write the card."""
    config = ModelConfig(
        vlm_name=str(options.models / "tiny-vlm"),
        sam_name=str(options.models / "tiny-sam"),
        dtype="fp32",
        quantize=False,
        vision_source=options.vision_source,
        bridge=options.bridge,
        train_mask_decoder=not options.frozen_decoder,
        train_projector=options.train_projector,
        lora_r=options.lora_r,
    )
    processor = build_processor(config)
    texts = Texts(processor)
    image = processor.vlm_image or processor.sam_image
    if image is None or options.vision_source == "dual":
        raise SystemExit("--vision_source dual needs two squares of each scene, which the ring does not hold")
    maker = Maker(
        image.side,
        image.interpolation,
        image.mean,
        query=texts.encode,
        no_target_share=options.no_target_share,
    )
    ring = Ring(
        maker,
        image.side,
        seed=options.seed,
        workers=options.workers,
        capacity=options.capacity,
        val=options.val,
    )
    # After the fork of the ring, before the GPU is used.
    generate(
        scenes,
        train=0,
        val=options.calibrate,
        test=options.test,
        seed=options.seed,
        workers=min(8, options.workers),
        progress=False,
    )
    torch.manual_seed(options.seed)
    torch.set_float32_matmul_precision("high")
    model = ModifiedLISA.from_config(config)
    for path, begin in ((options.start, go_on_from), (options.heads, start_from)):
        if path:
            print(f"starting from {path.name}: {begin(model, path)} weights", flush=True)
    print(f"trained: {model.describe_parameters()}", flush=True)
    ring.start(model.device, options.first)
    until = BEGAN + options.seconds - options.reserve
    if until <= time.monotonic():
        raise SystemExit("--seconds is over before the training starts; give more, or a smaller --first")
    print(
        f"{time.monotonic() - BEGAN:.0f} s: {ring.made} scenes to begin with, {ring.rate:.0f}/s; {machine()}",
        flush=True,
    )
    save(out, model)
    result = train(model, texts, ring, options, until=until, save=lambda: save(out, model))
    save(out, model)
    ring.close()
    kept = ModifiedLISA.from_pretrained(out, vlm_name=config.vlm_name, sam_name=config.sam_name)
    how: dict[str, Any] = {"batch_size": 16, "num_workers": min(8, options.workers)}
    judged = evaluate(kept, ReasonSegDataset(scenes, "val"), **how)
    kept.mask_head.correct_scores(*fit_correction(judged.records))
    save(out, kept)
    measured = evaluate(kept, ReasonSegDataset(scenes, "test"), **how)
    write_card(options, out, scenes, model, measured, result)
    print((out / "README.md").read_text(encoding="utf-8"))


def go_on_from(model: ModifiedLISA, folder: Path) -> int:
    """Copy what a tiny-lisa has trained, but for the <SEG> row, which is the VLM's; how many weights."""
    from safetensors.torch import load_file

    saved = load_file(folder / "model.safetensors")
    given = {name: value for name, value in saved.items() if not name.startswith("seg_embedding.")}
    if unknown := set(given) - set(model.state_dict()):
        raise SystemExit(f"--start has weights that this model does not: {sorted(unknown)[:5]}")
    model.load_state_dict(given, strict=False)
    return sum(value.numel() for value in given.values())


def start_from(model: ModifiedLISA, path: Path) -> int:
    """Copy bridge and projection of the pretraining into the parts of the model that have their shapes; how many
    weights."""
    from safetensors.torch import load_file

    heads = load_file(path)
    given = {
        place + name.removeprefix(head): value
        for name, value in heads.items()
        for head, place in PLACES.items()
        if name.startswith(head)
    }
    own = model.state_dict()
    wrong = [name for name, value in given.items() if name not in own or own[name].shape != value.shape]
    if wrong or not given:
        raise SystemExit(f"--heads do not fit this model: {wrong[:5] or 'no bridge and no projection in it'}")
    model.load_state_dict(given, strict=False)
    return sum(value.numel() for value in given.values())


def save(out: Path, model: ModifiedLISA) -> None:
    """fp16 weights, and a configuration that names the bundled models."""
    save_folder(out, model, torch.float16)
    settings = json.loads((out / "config.json").read_text(encoding="utf-8"))
    write_json(out / "config.json", settings | {"vlm_name": "tiny", "sam_name": "tiny"})


def train(
    model: ModifiedLISA,
    texts: Texts,
    ring: Ring,
    options: argparse.Namespace,
    *,
    until: float,
    save: Callable[[], None],
) -> dict[str, Any]:
    """Train until the clock says ``until``; returns steps, rates and the scores on the val scenes."""
    rng = np.random.default_rng([options.seed, 3])
    optimizer = make_optimizer([model], options.lr, model.device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def prepare() -> dict[str, Any]:
        places, words = ring.draw(rng, options.batch)
        return {"scenes": torch.from_numpy(places), **texts.pack(words, rng, options.queries)}

    ahead = Ahead(prepare, model.device)
    model.train()
    began = told = saved = time.monotonic()
    step = 0
    while (now := time.monotonic()) < until:
        for group in optimizer.param_groups:
            group["lr"] = rate_at((now - began) / (until - began), options.lr)
        batch = ahead.next()
        loss, measured, predicted = losses_of(model, texts, *ring.pixels(batch.pop("scenes")), batch)
        optimizer.zero_grad(set_to_none=True)
        loss.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        if now - told > 10 or step == 1:
            ring.check()
            nothing = batch["kinds"] == QUERY_KINDS.index("no-target")
            print(
                f"lisa {now - began:5.0f} s  step {step}  {step / (time.monotonic() - began):.2f} steps/s x {len(loss)}"
                f"  rendered {ring.made} ({ring.rate:.0f}/s)  loss {loss.mean().item():.3f}  IoU {measured.mean().item():.3f}"
                f" (no target {measured[nothing].mean().item():.2f}), predicted {predicted.mean().item():.3f}",
                flush=True,
            )
            told = time.monotonic()
        if now - saved > 60:
            print(f"lisa {now - began:5.0f} s  val {validate(model, texts, ring, options.batch)}", flush=True)
            save()
            saved = time.monotonic()
    spent = time.monotonic() - began
    result = {
        "steps": step,
        "rate": round(step / spent, 2),
        "scenes": ring.made,
        "rendered": round(ring.rate),
    }
    scores = validate(model, texts, ring, options.batch)
    print(f"lisa {spent:5.0f} s  val {scores}", flush=True)
    return {**result, **scores}


@torch.no_grad()
def validate(model: ModifiedLISA, texts: Texts, ring: Ring, batch: int) -> dict[str, Any]:
    """IoU on the grid of two queries of each val scene, by kind."""
    model.eval()
    ious, kinds = [], []
    rng = np.random.default_rng(0)
    for first in range(0, len(ring.val_words), batch):
        words = ring.val_words[first : first + batch]
        packed = on_device(texts.pack(words, rng, 2), model.device)
        _, measured, _ = losses_of(model, texts, *ring.val_pixels(first, first + len(words)), packed)
        ious.append(measured.cpu())
        kinds.append(packed["kinds"].cpu())
    model.train()
    iou, kind = torch.cat(ious), torch.cat(kinds)
    by_kind = {
        name: round(float(iou[kind == row].mean()), 3)
        for row, name in enumerate(QUERY_KINDS)
        if (kind == row).any()
    }
    return {"val_mIoU_on_the_grid": round(float(iou.mean()), 4), "by_kind": by_kind}


if __name__ == "__main__":
    main()
