"""One optimizer step: forward, backward, exchange, check, update.

Gradients are exchanged between processes by one sum at the end of the step instead of by
DistributedDataParallel: what trains is small (a few per cent of the model at most), a process with nothing
to do in a last, smaller step can sit it out, and no frozen or 4-bit weight is ever sent around.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator

from modified_lisa.company import in_company, raise_together, together
from modified_lisa.config import TrainingConfig
from modified_lisa.data.collate import Batch
from modified_lisa.errors import ModifiedLISAError, TrainingError
from modified_lisa.evaluation import score_batch, terms_of
from modified_lisa.metrics import SegmentationMetrics

__all__ = ["StepResult", "Stepper", "balance_strength", "learning_rate"]

BETAS = (0.9, 0.95)
"""AdamW's, as in LISA's training script (Lai et al. 2023)."""
LOWEST_SCALE = 1.0
"""Gradients that overflow even when the loss is not scaled up will never fit into fp16."""


def learning_rate(peak: float, step: int, *, warmup: int, total: int) -> float:
    """The rate of step ``step`` (from 0) of ``total``: a linear warm-up to ``peak``, then a cosine to 0.

    Step ``warmup - 1`` is the first at the peak; the value that would be 0 comes right after the last step.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def balance_strength(share: float, done: float) -> float:
    """Of `losses.balanced_weights` when ``done`` of the run is over: from 1 in a line to 0 at ``share`` of it."""
    return max(0.0, 1 - done / share) if share else 0.0


@dataclass(frozen=True)
class StepResult:
    """What one step did, over all processes."""

    sums: dict[str, float]
    """The sum over the step's samples of each of `terms_of` the loss weights."""
    iou: float
    """The sum of their IoU."""
    norm: float
    """Norm of the gradient, before clipping."""
    skipped: bool
    """fp16 only: the gradient overflowed, the weights are unchanged and the loss scale was lowered."""


class Stepper:
    """Owns the trained parameters, their optimizer, and fp16's loss scale."""

    def __init__(self, model: Any, config: TrainingConfig, accelerator: Accelerator) -> None:
        self.model, self.config, self.accelerator = model, config, accelerator
        self.terms = terms_of(config.loss)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not self.parameters:
            raise TrainingError("no weight of this model is set to train")
        # Biases, norms and the <SEG> row, (1, width), have one axis; pulling them to 0 would serve nothing.
        vectors = [p for p in self.parameters if p.numel() == max(p.shape, default=1)]
        matrices = [p for p in self.parameters if p.numel() > max(p.shape, default=1)]
        groups = [
            {"params": matrices, "weight_decay": config.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=BETAS)
        # Small gradients would vanish on their way back through frozen fp16 layers.
        self.scaler = torch.amp.GradScaler(accelerator.device.type, enabled=config.model.dtype == "fp16")

    def step(
        self,
        batches: Iterable[Batch],
        samples: int,
        rate: float,
        metrics: SegmentationMetrics,
        *,
        counted: int | None = None,
        balance: float = 0.0,
    ) -> StepResult:
        """Learn from one step's batches.

        Args:
            batches: this process's, may be none.
            samples: of all processes; the gradient is that of the sum of losses divided by this number, so
                that every mask weighs the same however the step is cut into batches.
            rate: the learning rate.
            metrics: gets this process's masks.
            counted: how many of the batches count; the others are only computed, because other processes compute.
            balance: how much small targets count for more, see `losses.balanced_weights`.

        Raises TrainingError in all processes, with the weights unchanged, if a loss of any sample or the
        gradient is not finite; DataError if a sample cannot be used.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sums = dict.fromkeys((*self.terms, "iou"), 0.0)
        names: list[str] = []
        problem: ModifiedLISAError | None = None
        try:
            for number, batch in in_company(batches, self.model, self.accelerator):
                names += batch.names
                counts = counted is None or number < counted
                with together(self.model, self.accelerator):
                    self._learn(batch, samples, sums if counts else None, metrics, balance)
        except ModifiedLISAError as error:
            problem = error
        except torch.OutOfMemoryError as error:
            problem = TrainingError(
                f"out of memory at {', '.join(names[-self.config.batch_size :])}: lower --batch_size (and raise "
                "--gradient_accumulation_steps as much), or leave --no_quantization out; with --lora_r, "
                f"--train_projector or SAM's encoder also add --gradient_checkpointing. {str(error).splitlines()[0]}"
            )
        failed, *totals = self._total([float(problem is not None), *sums.values()])
        if failed:
            raise_together(problem, self.accelerator)
        self._share_gradients()
        norm, skipped = self._update(rate, names)
        sums = dict(zip(sums, totals, strict=True))
        return StepResult(sums, sums.pop("iou"), norm, skipped)

    def _learn(
        self,
        batch: Batch,
        samples: int,
        sums: dict[str, float] | None,
        metrics: SegmentationMetrics,
        balance: float,
    ) -> None:
        """``sums`` None: compute, and count nothing."""
        ready = batch.to(self.accelerator.device)
        scores = score_batch(self.model, ready, self.config.loss, balance=balance)
        total = (scores.losses["loss"] + scores.losses["iou_prediction"]).sum() / samples
        self.scaler.scale(total if sums is not None else total * 0).backward()
        scores.check_finite(batch.names)  # after the way back, in which other processes may need this one
        if sums is None:
            return
        # One transfer for all terms; in double precision on the CPU, because not every device has it.
        values = torch.stack([scores.losses[term].detach() for term in self.terms]).cpu().double().sum(dim=1)
        for term, value in zip(self.terms, values.tolist(), strict=True):
            sums[term] += value
        sums["iou"] += sum(mask.iou for mask in scores.metrics.scores)
        metrics.merge(scores.metrics)

    def _total(self, values: list[float]) -> list[float]:
        if self.accelerator.num_processes == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return self.accelerator.reduce(tensor, reduction="sum").tolist()

    def _share_gradients(self) -> None:
        """Sum each gradient over the processes; one that no process has stays absent."""
        if self.accelerator.num_processes == 1:
            return
        grads = [parameter.grad for parameter in self.parameters]
        flat = [
            torch.zeros_like(parameter).flatten() if grad is None else grad.flatten()
            for parameter, grad in zip(self.parameters, grads, strict=True)
        ]
        present = torch.tensor([grad is not None for grad in grads]).to(flat[0])
        total = self.accelerator.reduce(torch.cat([*flat, present]), reduction="sum")
        parts = total.split([parameter.numel() for parameter in self.parameters] + [len(grads)])
        for parameter, part, count in zip(self.parameters, parts[:-1], parts[-1].tolist(), strict=True):
            parameter.grad = part.view_as(parameter) if count else None

    def _update(self, rate: float, names: list[str]) -> tuple[float, bool]:
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.scaler.unscale_(self.optimizer)
        limit = self.config.grad_clip or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, limit))
        finite = math.isfinite(norm)
        if not finite and not self.scaler.is_enabled():
            self._refuse_gradient(names, "use --dtype fp32, or a smaller --lr")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if not finite and self.scaler.get_scale() < LOWEST_SCALE:
            self._refuse_gradient(
                names, "it does not fit into fp16 at any loss scale: use --dtype bf16 or fp32"
            )
        return norm, not finite

    def _refuse_gradient(self, names: list[str], advice: str) -> None:
        here = TrainingError(f"the gradient of this step is not finite ({', '.join(names)}); {advice}")
        raise_together(here, self.accelerator)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors, for a checkpoint."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
