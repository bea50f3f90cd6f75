"""How far the gradients of a training step are from those of float32: the ordinary backward pass, and the short one.

    python scripts/check_gradients.py --out gradients.json          full size, random weights, a GPU of 80 GB
    python scripts/check_gradients.py --tiny --out gradients.json   the bundled models, anywhere

Nothing before the first <SEG> depends on a trained weight, so a training step reads that part without a gradient (`split`)
and, on a GPU, as captured graphs (`captured`). In exact arithmetic that changes nothing; here is what it changes in
rounding. The reference is the ordinary backward pass of the same weights in float32. Prints and writes, for each way, the
norm of the difference over that of the reference, over all trained weights and by group.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from modified_lisa.benchmark.training import one_sample, run_as
from modified_lisa.config import LossWeights
from modified_lisa.errors import ModifiedLISAError
from modified_lisa.files import write_json
from modified_lisa.model.lisa import ModifiedLISA
from modified_lisa.model.loading import find_device
from modified_lisa.model.random_init import seeded
from modified_lisa.protocols.teacher_forced import score_batch

Gradients = dict[str, torch.Tensor]


def gradients(model: ModifiedLISA, way: str) -> Gradients:
    """The gradient of one sample's loss for each trained weight, in float64 on the CPU."""
    batch = one_sample(model).to(model.device)
    model.zero_grad(set_to_none=True)
    with run_as(model, way):
        scores = score_batch(model, batch, LossWeights())
        (scores.losses["loss"] + scores.losses["iou_prediction"]).sum().backward()
        found = {
            name: weight.grad.detach().double().cpu()
            for name, weight in model.named_parameters()
            if weight.requires_grad and weight.grad is not None
        }
    model.zero_grad(set_to_none=True)
    return found


def distances(given: Gradients, reference: Gradients) -> dict[str, float]:
    """||given - reference|| / ||reference||, over all weights and by their first name."""
    groups: dict[str, list[str]] = {"all": list(reference)}
    for name in reference:
        groups.setdefault(name.partition(".")[0], []).append(name)
    found = {}
    for group, names in groups.items():
        off = sum(float((given[name] - reference[name]).square().sum()) for name in names)
        size = sum(float(reference[name].square().sum()) for name in names)
        found[group] = (off / size) ** 0.5
    return found


def in_float32(model: ModifiedLISA) -> None:
    """All of the model, in place."""
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.float()


def main(argv: list[str] | None = None) -> int:
    """Compare; write; print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tiny", action="store_true", help="the bundled tiny models")
    parser.add_argument("--vlm_name", default="llava-hf/llava-1.5-7b-hf")
    parser.add_argument("--sam_name", default="facebook/sam-vit-base")
    parser.add_argument("--dtype", default="bf16", help="of the frozen parts (default: bf16)")
    parser.add_argument("--out", type=Path, default=Path("gradients.json"))
    parser.add_argument("--device", help="cpu or cuda (default: a GPU if there is one)")
    options = parser.parse_args(argv)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    how: dict[str, Any] = {"vision_source": "vlm", "dtype": options.dtype, "quantize": False}
    try:
        device = find_device(options.device)
        if options.tiny:
            with seeded(0):
                model = ModifiedLISA("tiny", "tiny", device=device, **how)
        else:
            model = ModifiedLISA.from_random(options.vlm_name, options.sam_name, device=device, **how)
    except ModifiedLISAError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    ways = ["full", "split", *(["captured"] if device.type == "cuda" else [])]
    found = {way: gradients(model, way) for way in ways}
    in_float32(model)
    reference = gradients(model, "full")
    exact = {"split in float32": distances(gradients(model, "split"), reference)}
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "dtype": options.dtype,
        "models": "tiny" if options.tiny else [options.vlm_name, options.sam_name],
        "distance_from_float32": {way: distances(given, reference) for way, given in found.items()} | exact,
    }
    write_json(options.out, result)
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
