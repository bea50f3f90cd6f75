"""The two stages of a distillation: start reading at `Distiller.run`.

Only the bridge trains. Stage ``embedding``: the bridge's output is to be the teacher's SAM embedding. Stage
``masks``: the frozen mask decoder, prompted alike, is to draw the same masks from both; the embedding's loss
stays in the sum, so that masks nobody asked for are not lost. What does not train comes from stores.
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from modified_lisa.errors import CheckpointError, TrainingError
from modified_lisa.files import write_json
from modified_lisa.model.checkpoint import load_checkpoint, save_checkpoint
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.training.batches import Layout, plan_epoch
from modified_lisa.training.distillation import masks, targets
from modified_lisa.training.distillation.pictures import comparison, distillation_curves
from modified_lisa.training.distillation.preparing import Picture
from modified_lisa.training.distillation.settings import DistillConfig
from modified_lisa.training.distillation.stages import Stages
from modified_lisa.training.distillation.targets import Stores, Targets
from modified_lisa.training.resume import seed_everything
from modified_lisa.training.step import BETAS, learning_rate

__all__ = ["Distiller"]

KEY = "distillation"
"""Where a checkpoint keeps what is needed to go on."""


class Distiller:
    """One run. ``identity``: all that decides its outcome, in plain values; ``facts`` go into the history."""

    def __init__(
        self,
        config: DistillConfig,
        model: ModifiedLISA,
        train: Sequence[Picture],
        val: Sequence[Picture],
        stores: Stores,
        identity: dict[str, Any],
        facts: dict[str, Any],
    ) -> None:
        self.config, self.model, self.stores, self.identity = config, model, stores, identity
        self.train, self.val = train, val
        self.out = Path(config.out)
        self.checkpoint = self.out / "checkpoint_last.pt"
        self.parameters = list(model.get_submodule("vision.bridge").parameters())
        self.layout = Layout(config.batch_size, 1)
        self.epoch_steps = self.layout.steps(len(train))
        self.optimizer = self._new_optimizer()
        self.history: dict[str, Any] = {**facts, "identity": identity, "best": None, "epochs": []}

    def _new_optimizer(self) -> torch.optim.Optimizer:
        matrices = [p for p in self.parameters if p.ndim > 1]
        vectors = [p for p in self.parameters if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        return torch.optim.AdamW(groups, lr=self.config.lr, betas=BETAS)

    def run(self, stages: Stages) -> dict[str, Any]:
        """Both stages to the end; OUT then holds the student that agreed best. Returns the history."""
        first = self._resume() if self.config.resume else 1
        if first == 1:
            self._write()
        steps = self.epoch_steps * (self.config.epochs - first + 1)
        with tqdm(total=steps, unit="step", dynamic_ncols=True) as self.bar:
            turn = self.config.embedding_epochs + 1
            for name, start, end in (
                ("embedding_training", first, turn),
                ("mask_training", max(first, turn), self.config.epochs + 1),
            ):
                if start < end:
                    with stages(name):
                        for epoch in range(start, end):
                            self._epoch(epoch)
        return self.history

    # -------------------------------------------------------------------------------------------- epochs

    def _epoch(self, epoch: int) -> None:
        config, start = self.config, time.perf_counter()
        with_masks = epoch > config.embedding_epochs
        begun = config.embedding_epochs if with_masks else 0  # epochs before this stage
        if epoch == begun + 1:
            self.optimizer = self._new_optimizer()
        total = self.epoch_steps * (config.mask_epochs if with_masks else config.embedding_epochs)
        seed_everything(config.seed, epoch)
        sums = {"loss": 0.0, "embedding_error": 0.0, "cosine_error": 0.0}
        plan = plan_epoch(len(self.train), self.layout, rank=0, seed=config.seed, epoch=epoch)
        batches = [[self.train[index] for index in step.batches[0]] for step in plan]
        self.model.train()
        loaded = self._load(batches, prompts=with_masks)
        for number, (step, batch) in enumerate(zip(plan, loaded, strict=True)):
            rate = learning_rate(
                config.lr,
                (epoch - begun - 1) * self.epoch_steps + number,
                warmup=min(config.warmup_steps, total - 1),
                total=total,
            )
            values = self._step(batch.to(self.model.device), rate)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value * step.samples
            self.bar.set_postfix({"epoch": epoch, "loss": f"{values['loss']:.4g}"}, refresh=False)
            self.bar.update()
        record = {
            "epoch": epoch,
            "stage": "masks" if with_masks else "embedding",
            "train": {name: value / len(self.train) for name, value in sums.items()},
            "val": self.measure(),
            "seconds": round(time.perf_counter() - start, 3),
        }
        self._finish(record)

    def _step(self, batch: Targets, rate: float) -> dict[str, float]:
        ours = self._embedding(batch)
        error, cosine = (each.mean() for each in targets.embedding_errors(ours, batch.embedding))
        values = {"embedding_error": error, "cosine_error": cosine}
        loss = error + cosine
        roots: list[torch.Tensor] = [loss]
        gradients: list[torch.Tensor | None] = [None]
        if batch.prompts is not None:
            values["mask_loss"], gradient = masks.loss_and_gradient(self.model.mask_head, ours, batch)
            loss = loss + values["mask_loss"]
            roots, gradients = [*roots, ours], [*gradients, gradient]
        if not bool(loss.isfinite()):
            raise TrainingError("the loss is not finite; lower --lr, or try --dtype fp32")
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(roots, gradients, inputs=self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.config.grad_clip or math.inf)
        if not bool(norm.isfinite()):
            raise TrainingError("the gradient is not finite; lower --lr, or try --dtype fp32")
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        return {"loss": float(loss.detach()), **{name: float(x.detach()) for name, x in values.items()}}

    def _embedding(self, batch: Targets) -> torch.Tensor:
        vision: Any = self.model.vision
        found: torch.Tensor = vision.embedding(batch.features)
        return found

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """On the images kept back: both errors of the embedding, the loss of the masks, and how far masks agree."""
        self.model.eval()
        size = self.config.batch_size
        batches = [self.val[first : first + size] for first in range(0, len(self.val), size)]
        rows: dict[str, list[torch.Tensor]] = {}
        for loaded in self._load(batches, prompts=True):
            batch = loaded.to(self.model.device)
            ours = self._embedding(batch)
            error, cosine = targets.embedding_errors(ours, batch.embedding)
            loss, agreement = masks.measures(self.model.mask_head, ours, batch)
            for name, value in (
                ("embedding_error", error),
                ("cosine_error", cosine),
                ("mask_loss", loss),
                ("agreement", agreement),
            ):
                rows.setdefault(name, []).append(value.cpu())
        return {name: float(torch.cat(values).double().mean()) for name, values in rows.items()}

    def _load(self, batches: Sequence[Sequence[Picture]], *, prompts: bool) -> Any:
        return targets.load_targets(
            self.stores,
            batches,
            self.model.processor.mask_side,
            prompts=prompts,
            workers=self.config.num_workers,
        )

    # ------------------------------------------------------------------------------ before, between, after

    def _finish(self, record: dict[str, Any]) -> None:
        val, best = record["val"], self.history["best"]
        self.history["epochs"].append(record)
        improved = best is None or val["agreement"] > best["agreement"]
        if improved:
            self.history["best"] = {"epoch": record["epoch"], "agreement": val["agreement"]}
            self.model.save_pretrained(self.out)
        tqdm.write(
            f"epoch {record['epoch']}/{self.config.epochs}  {record['stage']}  train: loss "
            f"{record['train']['loss']:.4f}  val: embedding error {val['embedding_error']:.4f}, agreement with the "
            f"teacher's masks {val['agreement']:.3f}{' (best)' if improved else ''}  {record['seconds']:.0f} s"
        )
        self._write()
        title = f"student and teacher, after epoch {record['epoch']}"
        path = self.out / f"comparison_epoch_{record['epoch']}.png"
        comparison(path, self.model, self.val, self.stores, title)
        distillation_curves(self.out / "curves.png", self.history["epochs"])
        extra = {
            "identity": self.identity,
            "history": {key: self.history[key] for key in ("epochs", "best")},
            "optimizer": self.optimizer.state_dict(),
        }
        # Last, so that what a resumed run does not repeat has left all its files.
        save_checkpoint(
            self.checkpoint, self.model, epoch=record["epoch"], metrics=record, extra={KEY: extra}
        )

    def _resume(self) -> int:
        """Take up the last checkpoint, if there is one; the epoch to begin with."""
        if not self.checkpoint.is_file():
            tqdm.write(f"--resume: no {self.checkpoint} yet, so this run starts from scratch")
            return 1
        content = load_checkpoint(self.checkpoint)
        state = content.get(KEY)
        if not isinstance(state, dict):
            raise CheckpointError(f"{self.checkpoint} is not of a distillation; give another OUT")
        before = state["identity"]
        changed = [
            f"  {name}: {before.get(name)} then, {self.identity.get(name)} now"
            for name in dict.fromkeys((*before, *self.identity))
            if before.get(name) != self.identity.get(name)
        ]
        if changed:
            raise CheckpointError(
                f"{self.checkpoint} is of another run:\n"
                + "\n".join(changed)
                + "\nGive the options of that run, or another OUT."
            )
        self.model.load_state_dict(content["model_state_dict"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history.update(state["history"])
        tqdm.write(f"Going on after epoch {content['epoch']}, from {self.checkpoint}")
        return int(content["epoch"]) + 1

    def _write(self) -> None:
        write_json(self.out / "distillation_history.json", self.history)
