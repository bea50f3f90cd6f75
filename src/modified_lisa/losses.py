"""The training losses: pure functions from logits and a target to one number per mask.

Shapes: ``logits`` (N, ...) with at least one axis of pixels, any floating dtype; half precision is
computed in fp32, fp64 stays fp64. ``target`` has the same shape and is one of

- labels, any integer dtype or bool: 0 background, 1 the object, 255 ignored;
- coverage, floating in [0, 1] (area averages, from `geometry.Frame.target_to_grid`), usually with
  ``valid`` (N, ...), weights >= 0: 0 takes the pixel out, a fraction scales its part in every sum.

Every loss returns (N,). An ignored pixel takes no part: neither its logit (even if it is not finite) nor
its label changes a value or a gradient. A mask without any valid pixel has loss 0 and zero gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from modified_lisa.config import LossWeights
from modified_lisa.errors import DataError
from modified_lisa.geometry import IGNORE

__all__ = [
    "balanced_weights",
    "bce_loss",
    "dice_loss",
    "iou_loss",
    "iou_prediction_loss",
    "segmentation_loss",
]

# LISA divides by 1000 inside the sums and adds 1e-6: the same ratio as adding 1e-3 to sums of whole pixels.
SMOOTHING = 1000 * 1e-6
EMPTY_SHARE = 0.01
"""Where nothing is expected: the share of the valid pixels that, if predicted, costs half of the loss."""
LARGEST_BALANCE = 50.0
"""What a pixel of a target counts for at most, in pixels around it."""
_DEFAULT_WEIGHTS = LossWeights()


def bce_loss(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of each mask, (N,): the mean over its valid pixels, in nats per pixel.

    Computed from the logits in the stable form, so it is finite for any finite logit. With ``valid`` it is
    the weighted mean, sum(valid * bce) / sum(valid).
    """
    return _bce(*_prepare(logits, target, valid))


def dice_loss(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """Dice loss of each mask, (N,) in [0, 1]: 1 - (2 sum(p t) + e) / (sum(p) + sum(t) + e).

    p = sigmoid(logits), t the target, the sums run over valid pixels, e = 1e-3 pixels. From Milletari et
    al. 2016 (V-Net) with the plain denominator and the smoothing of LISA (Lai et al. 2023), whose code has
    e = 1e-6 after dividing every sum by 1000. Nothing expected and nothing predicted gives 0.

    Where nothing is expected (sum(t) = 0), e is a hundredth of the valid pixels instead: sum(p) / (sum(p) + e).
    With the small e the loss would be 1 and its gradient 0 for all that a sigmoid can say, however little it is.
    """
    return _dice(*_prepare(logits, target, valid))


def iou_loss(logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """1 - soft IoU of each mask, (N,) in [0, 1]: 1 - (sum(p t) + e) / (sum(p) + sum(t) - sum(p t) + e).

    From Rahman & Wang 2016, with p, t, the sums and e as in `dice_loss`.
    """
    return _iou(*_prepare(logits, target, valid))


def iou_prediction_loss(predicted: Tensor, measured: Tensor) -> Tensor:
    """Squared error of the decoder's IoU predictions, (N,), as SAM trains them (Kirillov et al. 2023).

    ``predicted`` (N,) is what the decoder says; ``measured`` (N,) in [0, 1] is the IoU its mask has. No
    gradient flows into ``measured``.
    """
    if predicted.ndim != 1 or predicted.shape != measured.shape:
        raise DataError(
            f"IoU predictions have shape {_shape(predicted)} and measured IoUs {_shape(measured)}; "
            "both must be (N,)"
        )
    if not predicted.is_floating_point():
        raise DataError(f"IoU predictions are {predicted.dtype}; they must be floating point")
    predicted = predicted if predicted.dtype == torch.float64 else predicted.float()
    measured = measured.detach().to(predicted)
    if _readable(measured) and not bool(((measured >= 0) & (measured <= 1)).all()):
        raise DataError("a measured IoU is outside [0, 1]; pass the IoU of the masks, not logits or percent")
    return (predicted - measured) ** 2


def segmentation_loss(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    weights: LossWeights = _DEFAULT_WEIGHTS,
) -> dict[str, Tensor]:
    """All of them at once: {"bce", "dice", "iou_loss", "loss"}, each (N,).

    ``loss`` = weights.bce * bce + weights.dice * dice + weights.iou * iou_loss, exactly.
    """
    prepared = _prepare(logits, target, valid)
    bce, dice, iou = _bce(*prepared), _dice(*prepared), _iou(*prepared)
    total = weights.bce * bce + weights.dice * dice + weights.iou * iou
    return {"bce": bce, "dice": dice, "iou_loss": iou, "loss": total}


def balanced_weights(target: Tensor, valid: Tensor, strength: float) -> Tensor:
    """``valid`` (N, H, W) with each target's pixels weighed up, for any of the losses.

    At ``strength`` 1 a target, coverage (N, H, W), weighs as much in all as what is around it (up to
    `LARGEST_BALANCE` a pixel), at 0 as much as it covers. A small target is a hundredth of its image: without this the
    first thing that is learned is to answer nothing.
    """
    inside = (target * valid).sum((1, 2)).clamp(min=1.0)
    around = ((1 - target) * valid).sum((1, 2)).clamp(min=1.0)
    ratio = (around / inside).clamp(1.0, LARGEST_BALANCE) ** strength
    return valid * (1 + (ratio - 1)[:, None, None] * target)


def _bce(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    count = weight.sum(1, keepdim=True)
    # Dividing before the sum keeps a sum of huge terms from overflowing.
    share = weight / torch.where(count > 0, count, 1)
    return (share * F.binary_cross_entropy_with_logits(logits, target, reduction="none")).sum(1)


def _dice(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    both, predicted, expected = _soft_sums(logits, target, weight)
    smoothing = _smoothing(expected, weight)
    ratio = (2 * both + smoothing) / (predicted + expected + smoothing)
    return (1 - ratio).clamp(min=0)  # rounding may put the ratio a little above 1


def _iou(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    both, predicted, expected = _soft_sums(logits, target, weight)
    smoothing = _smoothing(expected, weight)
    ratio = (both + smoothing) / (predicted + expected - both + smoothing)
    return (1 - ratio).clamp(min=0)


def _smoothing(expected: Tensor, weight: Tensor) -> Tensor:
    """e of each mask, (N,): see `dice_loss`. Never below `SMOOTHING`, so that no valid pixel is no 0 / 0."""
    of_nothing = (EMPTY_SHARE * weight.sum(1)).clamp(min=SMOOTHING)
    return torch.where(expected > 0, SMOOTHING, of_nothing)


def _soft_sums(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sum(p t), sum(p), sum(t) over the valid pixels, each (N,)."""
    probability = logits.sigmoid() * weight
    return (probability * target).sum(1), probability.sum(1), (target * weight).sum(1)


def _prepare(logits: Tensor, target: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Checked logits, target in [0, 1] and weights, each (N, pixels) in fp32 or fp64; zeros where ignored."""
    for name, tensor in (("logits", logits), ("target", target), ("valid", valid)):
        if tensor is not None and not isinstance(tensor, Tensor):
            raise DataError(f"{name} is a {type(tensor).__name__}; a torch tensor is expected")
    if not logits.is_floating_point():
        raise DataError(f"logits are {logits.dtype}; they must be floating point, before any threshold")
    if logits.ndim < 2 or logits[:1].numel() == 0 < len(logits):
        raise DataError(f"logits have shape {_shape(logits)}; (N, H, W) or another (N, ...) is expected")
    for name, tensor in (("target", target), ("valid", valid)):
        if tensor is not None and tensor.shape != logits.shape:
            raise DataError(
                f"{name} has shape {_shape(tensor)}, the logits have {_shape(logits)}; they must agree"
            )
    if target.is_complex() or (valid is not None and valid.is_complex()):
        raise DataError("target and valid must be real numbers")
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    flat = logits.to(dtype).flatten(1)
    labels = target.detach().flatten(1)
    weight = torch.ones_like(flat) if valid is None else valid.detach().flatten(1).to(flat)
    readable = _readable(logits)
    if readable and not bool(((weight >= 0) & weight.isfinite()).all()):
        raise DataError("valid holds a negative or non-finite weight; weights are 0 (ignored) to 1")
    if not target.is_floating_point():
        weight = weight * (labels != IGNORE)
    seen = weight > 0
    # where(), not a product: 0 * inf would be NaN, in the value or in the gradient.
    flat = torch.where(seen, flat, 0)
    expected = torch.where(seen, labels.to(flat), 0)
    if target.is_floating_point():
        if readable and not bool(((expected >= 0) & (expected <= 1)).all()):
            raise DataError(
                "a floating point target has a valid value outside [0, 1]; pass labels 0/1/255 as integers"
            )
    elif readable and not bool(((expected == 0) | (expected == 1)).all()):
        raise DataError("an integer target holds a label other than 0, 1 and 255 (ignored)")
    return flat, expected, weight


def _readable(tensor: Tensor) -> bool:
    """Not while a CUDA graph is being captured: then no value can be looked at. The calls before it, which every
    capture needs, have been checked; what is replayed is not."""
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
