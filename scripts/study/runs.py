"""One run of the study: a model built, trained for the study's steps, and measured on the test scenes."""

import contextlib
import gc
import json
import time
import traceback
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from captured import Captured
from data import Words, normalised
from optimizers import make_optimizer, rate_at
from packed import Texts, decode, losses_of, targets_of
from pool import Split
from quiet import Quiet
from ring import Ahead, on_device
from rows import JUDGE, PRETRAINED, Row
from torch import nn

from modified_lisa.config import ModelConfig
from modified_lisa.errors import ConfigError
from modified_lisa.files import write_json
from modified_lisa.metrics import SegmentationMetrics
from modified_lisa.model.building import build_processor
from modified_lisa.model.fused import kept_positions
from modified_lisa.model.image_spec import ImageSpec
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.model.loading import DTYPES, load_sam
from modified_lisa.scoring.boundary import boundary_score
from modified_lisa.training.distillation.targets import embedding_errors

TIMED, CROWDED = -1, -2
"""In the place of a seed: see `work`."""
ALL_QUERIES = 64
"""More than a scene has."""


@dataclass(frozen=True)
class Settings:
    """What all runs share. Plain values, so that it can be sent to a worker."""

    out: Path
    pool: Path
    vlm_name: str
    sam_name: str
    dtype: str
    batch: int
    queries: int
    lr: float
    pretrained_rate: float
    """What `rows.PRETRAINED` learns at, as a share of ``lr``: at the same rate it forgets what it knew (docs/study.md)."""
    timed_steps: int


class Run:
    """A model of ``row`` and how it trains. The seed decides its first weights and the order of the scenes."""

    def __init__(self, settings: Settings, row: Row, seed: int) -> None:
        self.settings, self.row = settings, row
        torch.manual_seed(seed)
        config = row.config(settings.vlm_name, settings.sam_name, settings.dtype)
        self.model = ModifiedLISA.from_config(config)
        self.device = self.model.device
        self.texts = Texts(self.model.processor)
        self.finer = row.options.get("image_side")
        both = row.source == "dual" or row.distilled
        self.names = ("vlm", "sam") if both else ("sam",) if self.finer else (row.source,)
        self.teacher = self._teacher(config) if row.distilled else None
        self.kept = contextlib.ExitStack()
        for encoder in [self.model, *(self.teacher or ())[:1]]:
            self.kept.enter_context(kept_positions(encoder))
        trained = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
        knowing = {name for name, _ in trained if name.startswith(PRETRAINED) and not name.startswith(JUDGE)}
        self.parameters = [weight for _, weight in trained]
        self.optimizers = [
            (make_optimizer([nn.ParameterList(weights)], settings.lr, self.device), settings.lr * rate)
            for weights, rate in (
                ([weight for name, weight in trained if name not in knowing], 1.0),
                ([weight for name, weight in trained if name in knowing], settings.pretrained_rate),
            )
            if weights
        ]
        self.train = Split(settings.pool, "train")
        # All batches have the same shapes, so that a step can be captured.
        asked = [
            place for place, words in enumerate(self.train.words) if len(words.queries) >= settings.queries
        ]
        if len(asked) < settings.batch:
            raise ConfigError(
                f"{len(asked)} of the {len(self.train)} training scenes have {settings.queries} queries or more, and a step "
                f"wants {settings.batch} of them; lower --queries or --batch, or raise --train"
            )
        length = max(_longest(self.train.words[place], settings.queries) for place in asked)
        rng = np.random.default_rng([seed, 5])

        def prepare() -> dict[str, Any]:
            places = np.sort(rng.choice(asked, settings.batch, replace=False))
            words = [self.train.words[place] for place in places]
            return {
                **self.train.pixels(places, self.names),
                **self.texts.pack(words, rng, settings.queries, length),
            }

        self.ahead = Ahead(prepare, self.device)
        self.gradients: dict[bool, Any] = {}
        self.model.train()

    def _teacher(self, config: ModelConfig) -> tuple[Any, ImageSpec]:
        """SAM's encoder, and how it wants its image."""
        both = config.replaced(vision_source="dual")
        spec = build_processor(both).sam_image
        assert spec is not None
        return load_sam(both, self.device).vision_encoder.to(DTYPES[config.dtype]), spec

    def step(self, share: float, *, distils: bool = False) -> torch.Tensor:
        """One step, when ``share`` of all are done; its loss."""
        for optimizer, peak in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate_at(share, peak)
        batch = self.ahead.next()
        if distils not in self.gradients:
            self.gradients = {}  # the graph of the phase before
            find = partial(self._gradients, distils)
            self.gradients[distils] = Captured(find, batch) if self.device.type == "cuda" else find
        loss = self.gradients[distils](batch)
        for optimizer, _ in self.optimizers:
            optimizer.step()
        return loss.clone()

    def _gradients(self, distils: bool, batch: dict[str, Any]) -> torch.Tensor:
        """Leave the gradients of the batch's loss, clipped; returns it."""
        loss = self._distillation(batch) if distils else self._loss(batch)
        self.model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        return loss.detach()

    def _squares(self, batch: dict[str, Any]) -> dict[str, Any]:
        """As `packed.decode` takes them."""
        if self.row.source == "dual":
            return {"squares": batch["vlm"], "sam_squares": batch["sam"]}
        if self.finer is not None:  # the pool's square of the VLM's encoder is of its own side
            fine = F.interpolate(batch["sam"].float(), (self.finer,) * 2, mode="bicubic", antialias=True)
            return {"squares": fine.clamp(0, 255).round().to(torch.uint8)}
        return {"squares": batch[self.row.source]}

    def _loss(self, batch: dict[str, Any]) -> torch.Tensor:
        labels = batch["labels"].long()
        how = {**self._squares(batch), "learns_words": True, "half": True}
        losses, _, _ = losses_of(self.model, self.texts, labels=labels, batch=batch, **how)
        return losses.mean()

    def _distillation(self, batch: dict[str, Any]) -> torch.Tensor:
        """The bridge against SAM's embedding; no label is read."""
        assert self.teacher is not None
        encoder, spec = self.teacher
        image = self.model.processor.vlm_image
        assert image is not None
        with torch.no_grad():
            theirs = encoder(
                normalised(batch["sam"], spec.mean, spec.std).to(encoder.dtype)
            ).last_hidden_state
        features = self.model.vision.frozen(normalised(batch["vlm"], image.mean, image.std), None)
        ours: Any = self.model.vision
        error, angle = embedding_errors(ours.embedding(features), theirs.float())
        return (error + angle).mean()

    def measure(self) -> dict[str, list[float]]:
        """What each query of the test scenes scored, in the order of `Split.samples`, as columns."""
        test = Split(self.settings.pool, "test")
        self.model.eval()
        rng = np.random.default_rng(0)
        found: dict[tuple[int, int], dict[str, float]] = {}
        for first in range(0, len(test), self.settings.batch):
            places = np.arange(first, min(len(test), first + self.settings.batch))
            packed = self.texts.pack([test.words[place] for place in places], rng, ALL_QUERIES)
            batch = on_device({**test.pixels(places, self.names), **packed}, self.device)
            with torch.no_grad():
                logits, _ = decode(self.model, self.texts, batch=batch, half=True, **self._squares(batch))
                masks = (logits > 0).cpu().numpy()
                wanted = targets_of(batch["labels"].long(), batch)[0].cpu().numpy()
            for mask, target, row, number in zip(
                masks, wanted, packed["rows"].tolist(), packed["numbers"].tolist(), strict=True
            ):
                place = int(places[row])
                rows, columns = test.words[place].content
                found[place, number] = _score(mask[:rows, :columns], target[:rows, :columns])
        self.model.train()
        ordered = [found[key] for key in sorted(found)]
        return {name: [score[name] for score in ordered] for name in ordered[0]}


def _longest(words: Words, queries: int) -> int:
    """Tokens of the longest choice of so many of a scene's queries."""
    lengths = sorted((max(map(len, wordings)) for wordings, _, _ in words.queries), reverse=True)
    return sum(lengths[:queries])


def _score(mask: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Of one query, within the image (its padding is cut off): bool (H, W) each."""
    (score,) = SegmentationMetrics().update(mask, target)
    return {
        "intersection": score.intersection,
        "union": score.union,
        "giou": round(score.giou, 5),
        "boundary_iou": round(boundary_score(mask, target.astype(np.uint8)).iou, 5),
        "predicted_empty": int(not mask.any()),
    }


def timed(settings: Settings, row: Row, quiet: Quiet) -> dict[str, Any]:
    """Step time (median, seconds) of a row while no other run is at work, its peak memory and parameters."""
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    with quiet.building():
        run = Run(settings, row, seed=0)
        for _ in range(4 if cuda else 1):
            run.step(0.5).item()
    times = []
    with quiet.alone():
        for _ in range(settings.timed_steps):
            began = time.perf_counter()
            run.step(0.5).item()
            times.append(time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 1e9 if cuda else None
    parameters = run.model.describe_parameters()
    run.ahead.close()
    return {
        "step_seconds": float(np.median(times)),
        "steps_timed": len(times),
        "peak_gb": peak,
        "trainable": parameters["trainable"],
        "groups": parameters["groups"],
    }


def crowded(settings: Settings, row: Row, together: Any, seconds: float = 4.0) -> float:
    """Train beside other workers that do the same (``together``, their barrier): the time that the steps would have
    taken alone, as a share of the time that they took. The sum over the workers is what sharing the device gains."""
    alone = json.loads(timing_path(settings.out, row).read_text(encoding="utf-8"))["step_seconds"]
    run = Run(settings, row, seed=0)
    run.step(0.5)
    together.wait(timeout=60)
    began, steps = time.monotonic(), 0
    while steps == 0 or time.monotonic() - began < seconds:
        run.step(0.5).item()
        steps += 1
    spent = time.monotonic() - began
    run.ahead.close()
    return float(steps * alone / spent)


def trained(settings: Settings, row: Row, seed: int, steps: int) -> dict[str, Any]:
    """Train for ``steps`` and measure."""
    began = time.monotonic()
    run = Run(settings, row, seed)
    first = steps // 3 if row.distilled else 0
    losses = []
    built = time.monotonic()
    for number in range(steps):
        distils = number < first
        # The schedule starts anew with the labels.
        share = number / first if distils else (number - first) / (steps - first)
        losses.append(run.step(share, distils=distils))
    run.ahead.close()
    curve = torch.stack(losses).tolist()
    done = time.monotonic()
    scores = run.measure()
    return {
        "row": row.name,
        "seed": seed,
        "steps": steps,
        "seconds": {
            "build": round(built - began, 2),
            "train": round(done - built, 2),
            "measure": round(time.monotonic() - done, 2),
        },
        "losses": [round(float(np.mean(part)), 4) for part in np.array_split(curve, min(20, steps))],
        "scores": scores,
    }


def result_path(out: Path, row: Row, seed: int) -> Path:
    return out / "runs" / row.folder / f"seed_{seed}.json"


def timing_path(out: Path, row: Row) -> Path:
    return out / "runs" / row.folder / "timing.json"


def work(settings: Settings, connection: Any, quiet: Quiet, together: Any) -> None:
    """A worker: asks for jobs, until it is given None: (row, seed, steps), (row, TIMED, 0) or (row, CROWDED, 0)."""
    torch.set_float32_matmul_precision("high")
    if not torch.cuda.is_available():
        torch.set_num_threads(1)
    connection.send(None)
    while (job := connection.recv()) is not None:
        row, seed, steps = job
        began = time.monotonic()
        error, gain = "", 0.0
        try:
            if seed == TIMED:
                write_json(timing_path(settings.out, row), timed(settings, row, quiet))
            elif seed == CROWDED:
                gain = crowded(settings, row, together)
            else:
                write_json(result_path(settings.out, row, seed), trained(settings, row, seed, steps))
        except Exception:
            error = traceback.format_exc()
        if torch.cuda.is_available():
            gc.collect()  # a run and its graph refer to one another
            torch.cuda.empty_cache()
        connection.send({"seconds": time.monotonic() - began, "error": error, "gain": gain})
