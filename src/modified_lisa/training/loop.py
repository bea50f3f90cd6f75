"""The training loop: start reading at `Trainer.run`."""

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast, gather_object

from modified_lisa.benchmark.measure import (
    describe_device,
    memory_source,
    peak_memory_gb,
    time_calls,
)
from modified_lisa.config import TrainingConfig
from modified_lisa.data.answers import AnswerWriter
from modified_lisa.data.collate import Batch, Collator, SampleSource, load_batches
from modified_lisa.errors import DataError
from modified_lisa.evaluation import EvaluationResult, evaluate
from modified_lisa.inference.segmenter import Segmenter
from modified_lisa.metrics import SegmentationMetrics
from modified_lisa.model.checkpoint import save_checkpoint
from modified_lisa.model.feature_cache import FeatureCache
from modified_lisa.model.sharding import is_sharded
from modified_lisa.pictures import curves, fixed_choice, overlay_sheet
from modified_lisa.training import resume
from modified_lisa.training.batches import Layout, plan_epoch
from modified_lisa.training.report import Report
from modified_lisa.training.step import Stepper, balance_strength, learning_rate

__all__ = ["Trainer"]

SPECIFIED = ("loss", "bce", "dice", "iou_loss", "mIoU", "cIoU")
TIMED_SAMPLES = 10


class Trainer:
    """One run over a train and a val set. ``model`` is a `ModifiedLISA` on ``accelerator``'s device.

    ``explanations``: of images of the train set, for a training in answer mode; see `AnswerWriter`.
    ``cache``: the model's features of images.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: Any,
        model: Any,
        train_set: SampleSource,
        val_set: SampleSource,
        explanations: dict[str, str] | None = None,
        cache: FeatureCache | None = None,
    ) -> None:
        for split, samples in (("train", train_set), ("val", val_set)):
            if not len(samples):
                raise DataError(f"{split} holds no sample; training needs at least one in train/ and in val/")
        self.config, self.accelerator, self.model = config, accelerator, model
        self.train_set, self.val_set = train_set, val_set
        self.rank, self.processes = accelerator.process_index, accelerator.num_processes
        self.layout = Layout(config.batch_size, config.gradient_accumulation_steps, self.processes)
        self.epoch_steps = self.layout.steps(len(train_set))
        self.total_steps = self.epoch_steps * config.epochs
        self.in_step = is_sharded(model)  # then all processes call the model, or none
        self.stepper = Stepper(model, config, accelerator)
        self.explanations = explanations or {}
        self.cache = cache
        self.checkpoints = Path(config.checkpoint_dir)
        self.identity = resume.identity(config, self.layout, {"train": train_set.names, "val": val_set.names})
        parameters = model.describe_parameters()
        self.report = Report(
            config,
            accelerator,
            {
                "samples": {"train": len(train_set), "val": len(val_set)},
                "processes": self.processes,
                "global_batch": self.layout.global_batch,
                "parameters": parameters,
            },
        )
        self.first_epoch = 1

    # ------------------------------------------------------------------------------------------- the run

    def run(self) -> dict[str, Any]:
        """Train to the last epoch; returns the history."""
        self._begin()
        samples = len(self.train_set) + len(self.val_set)
        self.report.start(samples * self.config.epochs, samples * (self.first_epoch - 1))
        try:
            for epoch in range(self.first_epoch, self.config.epochs + 1):
                self._epoch(epoch)
        except KeyboardInterrupt:
            newest = resume.find_checkpoint("latest", self.checkpoints)
            self.report.say(
                f"Interrupted. Go on with --resume {newest}"
                if newest
                else "Interrupted before the first checkpoint."
            )
            raise
        finally:
            self.report.close()
        if self.first_epoch > self.config.epochs:
            self.report.say(f"All {self.config.epochs} epochs had been done before; nothing was trained.")
            if self.accelerator.is_main_process:  # the folder may be a new one
                curves(self.report.folder / "curves.png", self.report.epochs)
        best = self.report.history["best"]
        self.report.say(
            f"Done. Best: epoch {best['epoch']}, val mIoU {best['val_mIoU']:.3f}, {best['checkpoint']}\n"
            f"Metrics, curves and overlays: {self.report.folder}"
        )
        return self.report.history

    def _epoch(self, epoch: int) -> None:
        start = time.perf_counter()
        resume.seed_everything(self.config.seed, epoch, self.rank)
        record: dict[str, Any] = {"epoch": epoch, "train": self._train(epoch)}
        trained = time.perf_counter() - start
        record["val"] = self._validate()
        self._say_cached()
        record["lr"] = self._rate(epoch * self.epoch_steps - 1)
        record["train_seconds"] = round(trained, 3)
        record["seconds"] = round(time.perf_counter() - start, 3)
        best = self.report.history["best"]
        improved = best is None or record["val"]["val_mIoU"] > best["val_mIoU"]
        if improved:
            path = self.checkpoints / f"best_model_epoch_{epoch}.pt"
            self.report.history["best"] = {
                "epoch": epoch,
                "val_mIoU": record["val"]["val_mIoU"],
                "checkpoint": str(path),
            }
            self._save(path, record)
        self.report.history["benchmarks"] = self._benchmark()
        self.report.epoch(record, best=improved, step=epoch * self.epoch_steps)
        self._draw(epoch)
        # Last, so that an epoch that a resumed run does not repeat has left all its files.
        if epoch % self.config.save_every == 0 or epoch == self.config.epochs:
            extra = {
                "identity": self.identity,
                "epochs": self.report.epochs,
                "best": self.report.history["best"],
                "benchmarks": self.report.history["benchmarks"],
                **self.stepper.state_dict(),
            }
            self._save(self.checkpoints / f"checkpoint_epoch_{epoch}.pt", record, {resume.KEY: extra})
        self.accelerator.wait_for_everyone()

    def _train(self, epoch: int) -> dict[str, float]:
        """One pass over the train set; the epoch's mean losses and metrics."""
        self.model.train()
        plan = plan_epoch(
            len(self.train_set),
            self.layout,
            rank=self.rank,
            seed=self.config.seed,
            epoch=epoch,
            in_step=self.in_step,
        )
        flat = [batch for step in plan for batch in step.batches]
        loaded = load_batches(
            self.train_set,
            flat,
            self._collator(epoch),
            num_workers=self.config.num_workers,
            complete=None if self.cache is None else self.cache.complete,
        )
        metrics = SegmentationMetrics()
        sums = dict.fromkeys(self.stepper.terms, 0.0)
        iou, seen = 0.0, 0
        for number, planned in enumerate(plan, start=(epoch - 1) * self.epoch_steps):
            rate = self._rate(number)
            taken = _take(loaded, len(planned.batches))
            result = self.stepper.step(
                taken,
                planned.samples,
                rate,
                metrics,
                counted=planned.counted,
                balance=balance_strength(self.config.balance, number / self.total_steps),
            )
            for term in self.stepper.terms:
                sums[term] += result.sums[term]
            iou, seen = iou + result.iou, seen + planned.samples
            shown = {"loss": sums["loss"] / seen, "mIoU": iou / seen, "lr": rate, "grad_norm": result.norm}
            self.report.step(planned.samples, number + 1, {"epoch": epoch, **shown})
            if result.skipped:
                self.report.say(
                    f"step {number + 1}: the gradient overflowed in fp16; step skipped, loss scale lowered to "
                    f"{self.stepper.scaler.get_scale():g}"
                )
        means = {term: total / seen for term, total in sums.items()}
        return _ordered({**means, **self._gathered(metrics).compute()})

    def _collator(self, epoch: int) -> Collator:
        """In answer mode, every epoch words its questions and answers anew."""
        config, writer = self.config, None
        if config.loss.ce > 0:
            writer = AnswerWriter(config.seed, epoch, config.no_target_answer, self.explanations)
        return Collator(self.model.processor, writer, store=None if self.cache is None else self.cache.store)

    def _validate(self) -> dict[str, float]:
        result: EvaluationResult = evaluate(
            self.model,
            self.val_set,
            accelerator=self.accelerator,
            batch_size=self.config.batch_size,
            num_workers=self.config.num_workers,
            loss_weights=self.config.loss,
            progress=lambda samples: self.report.bar.update(samples * self.processes),
            cache=self.cache,
        )
        values = _ordered({**result.losses, **result.metrics}, first=("loss", "mIoU", "cIoU"))
        return {f"val_{key}": value for key, value in values.items()}

    def _say_cached(self) -> None:
        """After an epoch in which images were encoded: how many; nothing where all features were there."""
        if self.cache is None:
            return
        encoded, self.cache.encoded = sum(gather_object([self.cache.encoded])), 0
        if encoded:
            stopped = f"; nothing more is kept: {self.cache.stopped}" if self.cache.stopped else ""
            self.report.say(f"{encoded} images were encoded, {len(self.cache.store)} are kept{stopped}")

    def _rate(self, step: int) -> float:
        return learning_rate(self.config.lr, step, warmup=self.config.warmup_steps, total=self.total_steps)

    # -------------------------------------------------------------------------- before, between and after

    def _begin(self) -> None:
        """Go on from a checkpoint, or start a new run with equal weights in all processes."""
        say = self.report.say
        path = resume.find_checkpoint(self.config.resume, self.checkpoints) if self.config.resume else None
        if path is not None:
            content = resume.load_resumable(path, self.identity)
            state = content[resume.KEY]
            self.model.load_state_dict(content["model_state_dict"])
            self.stepper.load_state_dict(state)
            self.report.history.update({key: state[key] for key in ("epochs", "best", "benchmarks")})
            self.first_epoch = content["epoch"] + 1
            say(f"Going on after epoch {content['epoch']}, from {path}")
        else:
            if self.config.resume:
                say(
                    f"--resume: no checkpoint_epoch_N.pt in {self.checkpoints} yet, so this run starts from scratch"
                )
            if self.accelerator.is_main_process:
                for folder in resume.set_aside(self.config.output_dir, self.checkpoints):
                    say(f"Files of an earlier run were moved to {folder}")
            for parameter in self.stepper.parameters:
                parameter.data.copy_(broadcast(parameter.data))
        # A folder that cannot be written to is found here, not after the first epoch.
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=self.checkpoints):
            pass
        self.report.write_history()
        self.accelerator.wait_for_everyone()
        facts, config = self.report.history, self.config
        say(
            f"{facts['samples']['train']} train and {facts['samples']['val']} val samples; "
            f"{config.epochs} epochs of {self.epoch_steps} optimizer steps of {self.layout.global_batch} samples; "
            f"{facts['parameters']['trainable']:,} of {facts['parameters']['total']:,} weights train; "
            f"{self.processes} process(es) on {describe_device(self.accelerator.device)}"
        )
        if config.warmup_steps >= self.total_steps:
            say(
                f"Warning: --warmup_steps {config.warmup_steps} is not below the {self.total_steps} optimizer "
                f"steps of this run, so the learning rate rises to {self._rate(self.total_steps - 1):.2e} at its "
                f"end and never reaches --lr {config.lr:g}. For a short run, lower --warmup_steps."
            )

    def _benchmark(self) -> dict[str, Any] | None:
        """Peak memory over all processes, and seconds for one image and query on the main process."""
        device = self.accelerator.device
        peak = max(gather_object([peak_memory_gb(device)]))
        if not (self.accelerator.is_main_process or self.in_step):
            return None
        samples = [self.val_set[index] for index in fixed_choice(len(self.val_set), TIMED_SAMPLES)]
        segmenter = Segmenter(self.model, fast=False)
        calls = [partial(segmenter.segment, sample.image, sample.text) for sample in samples]
        timing = time_calls(calls, device=device)
        return {
            "peak_memory_gb": round(peak, 4),
            "avg_inference_time_s": round(timing.mean, 6),
            "device": describe_device(device),
            "memory_measured": memory_source(device)
            + "; training and validation, the highest of all processes",
            "time_measured": f"mean of {len(samples)} val samples after one warm-up; one image and query at a "
            "time, from the decoded image to the mask at its full resolution",
        }

    def _draw(self, epoch: int) -> None:
        if self.accelerator.is_main_process or self.in_step:
            samples = [self.val_set[index] for index in fixed_choice(len(self.val_set))]
            segmenter = Segmenter(self.model, fast=False)
            if not self.accelerator.is_main_process:  # the same calls, for nothing
                for sample in samples:
                    segmenter.segment(sample.image, sample.text)
                return
            path = self.report.folder / f"overlays_epoch_{epoch}.png"
            overlay_sheet(path, segmenter, samples, title=f"val, after epoch {epoch}")
            curves(self.report.folder / "curves.png", self.report.epochs)

    def _save(self, path: Path, record: dict[str, Any], extra: dict[str, Any] | None = None) -> None:
        if self.accelerator.is_main_process:
            save_checkpoint(path, self.model, epoch=record["epoch"], metrics=record, extra=extra)

    def _gathered(self, metrics: SegmentationMetrics) -> SegmentationMetrics:
        total = SegmentationMetrics()
        for state in gather_object([metrics.state()]):
            total.merge(SegmentationMetrics.from_state(state))
        return total


def _take(loaded: Iterator[Batch], number: int) -> Iterator[Batch]:
    """The next ``number`` batches; unlike islice, it asks for no more than that."""
    for _ in range(number):
        yield next(loaded)


def _ordered(values: dict[str, float], first: tuple[str, ...] = SPECIFIED) -> dict[str, float]:
    """The specification's keys first, in its order; then those that are ours."""
    return {key: values[key] for key in first} | values
