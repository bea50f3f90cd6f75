"""What each subcommand of ``modified-lisa`` does. Heavy libraries are imported where they are needed."""

import argparse
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

__all__ = [
    "benchmark",
    "calibrate",
    "chat",
    "distill",
    "evaluate",
    "import_lisa",
    "merge_results",
    "scenes",
    "segment",
    "train",
]


def segment(arguments: argparse.Namespace) -> None:
    """Segment one image; print what was written and what was found, or nothing but the JSON."""
    from modified_lisa.images import read_image
    from modified_lisa.inference.segmentation import check_output, check_threshold
    from modified_lisa.prompts import with_seg

    outputs = [Path(path) for path in (arguments.out, arguments.json) if path not in (None, "-")]
    if not outputs and arguments.json is None:
        outputs = [Path(f"{Path(arguments.image).stem}_overlay.png")]
    # All that can be wrong with the words typed is found before a model is loaded, which may take minutes.
    for path in outputs:
        check_output(path, arguments.image)
    check_threshold(arguments.threshold)
    with_seg(arguments.query)
    image = read_image(arguments.image)

    from modified_lisa.inference.segmenter import Segmenter

    to_stdout = arguments.json == "-"
    # Whatever a library prints while it loads must not get into the JSON.
    with contextlib.redirect_stdout(sys.stderr) if to_stdout else contextlib.nullcontext():
        segmenter = Segmenter.from_pretrained(
            arguments.checkpoint, device=arguments.device, fast=False, **_model_overrides(arguments)
        )
        result = segmenter.segment(image, arguments.query, threshold=arguments.threshold)
        for path in outputs:
            print(f"wrote {result.save(path)}")
        for index, mask in enumerate(result.to_dict()["masks"], start=1):
            print(f"mask {index}: score {mask['score']:.2f}, covers {mask['share']:.1%} of the image")
    if to_stdout:
        as_it_is = (getattr(sys.stdout, "encoding", None) or "").lower().replace("-", "") == "utf8"
        print(json.dumps(result.to_dict(), ensure_ascii=not as_it_is))


def chat(arguments: argparse.Namespace) -> None:
    """Talk about an image until the input ends."""
    from modified_lisa.apps.chat import run

    run(arguments, _model_overrides(arguments))


def evaluate(arguments: argparse.Namespace) -> None:
    """Measure a checkpoint; print a table of metrics with intervals, of losses, and of groups."""
    from modified_lisa.apps.results import evaluation_lines, side_by_side
    from modified_lisa.evaluation import PROTOCOLS, evaluate_protocols

    chosen = PROTOCOLS if arguments.protocol == "both" else (arguments.protocol,)
    results = evaluate_protocols(
        arguments.checkpoint,
        chosen,
        output_dir=arguments.output_dir,
        per_sample=arguments.per_sample,
        max_new_tokens=arguments.max_new_tokens,
        **_measuring_options(arguments),
    )
    for protocol, result in results.items():
        how = {"teacher_forced": "", "generated": ", answers generated"}[protocol]
        print(f"{arguments.split} of {arguments.data_dir}: {len(result.records)} samples{how}")
        for line in evaluation_lines(result.to_dict()):
            print(line)
        mark = "_generated" if protocol == "generated" else ""
        if arguments.per_sample is not None:
            path = Path(arguments.per_sample)
            print(f"each sample's results: {path.with_name(f'{path.stem}{mark}{path.suffix}')}")
        if arguments.output_dir is not None:
            print(f"a page to look at: {Path(arguments.output_dir) / f'report_{arguments.split}{mark}.html'}")
    if len(results) > 1:
        print("side by side:")
        for line in side_by_side({name: result.to_dict() for name, result in results.items()}):
            print(line)


def calibrate(arguments: argparse.Namespace) -> None:
    """Correct the IoU that a checkpoint predicts; print how far off it was, and is."""
    from modified_lisa.calibrating import calibrate_checkpoint

    found = calibrate_checkpoint(arguments.checkpoint, arguments.out, **_measuring_options(arguments))
    print(f"{arguments.split} of {arguments.data_dir}: {found.samples} samples")
    for when, measured in (("before", found.before), ("after", found.after)):
        print(
            f"{when:8}expected calibration error {measured['ECE']:.4f}  predicted - measured {measured['bias']:+.4f}"
        )
    scale, shift = found.correction
    print(
        f"predicted IoU is now {scale:.4f} x what it was {shift:+.4f} (after: by five-fold cross-validation)"
    )
    print(f"wrote {found.folder}")


def benchmark(arguments: argparse.Namespace) -> None:
    """Measure; print the tables. Exit status 1 if a measurement failed."""
    from modified_lisa.benchmark.arguments import to_config
    from modified_lisa.model.loading import find_device

    on_gpu = find_device(arguments.device).type == "cuda"
    config = to_config(arguments, dtype="bf16" if on_gpu else "fp32")
    from modified_lisa.benchmark.command import run_benchmark

    errors = run_benchmark(config)["errors"]
    if errors:
        print(f"{len(errors)} measurement(s) failed; see errors in {config.out}", file=sys.stderr)
        sys.exit(1)


def merge_results(arguments: argparse.Namespace) -> None:
    """Merge the results of several seeds; print mean, deviation and interval, and a difference if asked for."""
    from modified_lisa.apps.results import merged_lines
    from modified_lisa.files import write_json
    from modified_lisa.scoring.merging import merge_results, read_results

    merged = merge_results(
        [read_results(path) for path in arguments.results],
        [read_results(path) for path in arguments.against],
    )
    for line in merged_lines(merged):
        print(line)
    if arguments.out is not None:
        print(f"wrote {write_json(arguments.out, merged)}")


def scenes(arguments: argparse.Namespace) -> None:
    """Generate a folder of scenes; print how many there are and what is asked about them."""
    from modified_lisa.data.scenes import generate

    made = generate(
        arguments.out,
        train=arguments.train,
        val=arguments.val,
        test=arguments.test,
        seed=arguments.seed,
        overwrite=arguments.overwrite,
        workers=arguments.workers,
        no_target_share=arguments.no_target_share,
    )
    for split, number in made["samples"].items():
        held_out = made["held_out"][split]
        print(
            f"{split}: {number} scenes with {len(made['kinds'][split])} kinds of query; not seen in training:"
            f" the wording of {held_out['wording']}, the combination of {held_out['combination']}, a kind of object of"
            f" {held_out['kind']}"
        )
    print(f"wrote {made['folder']}")


def train(arguments: argparse.Namespace) -> None:
    """Train; the run says itself what it writes."""
    from modified_lisa.training.arguments import to_config

    config = to_config(arguments)
    from modified_lisa.training import run  # torch comes in here, after the arguments have been checked

    run.train(config)


def import_lisa(arguments: argparse.Namespace) -> None:
    """Convert a checkpoint of the original LISA; print where it is and what to do with it."""
    from modified_lisa.apps.importing import run

    run(arguments)


def distill(arguments: argparse.Namespace) -> None:
    """Distil; the run says itself what it writes."""
    from modified_lisa.training.distillation.settings import to_config

    config = to_config(arguments, _model_overrides(arguments))
    from modified_lisa.training.distillation import run  # torch, as above

    run.distill(config)


def _measuring_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """What ``evaluate`` and ``calibrate`` have in common."""
    names = (
        "data_dir",
        "split",
        "dataset",
        "split_by",
        "images_dir",
        "batch_size",
        "max_samples",
        "num_workers",
    )
    given = {name: getattr(arguments, name) for name in (*names, "skip_bad_samples", "device")}
    return given | _model_overrides(arguments)


def _model_overrides(arguments: argparse.Namespace) -> dict[str, Any]:
    """The fields of ModelConfig that were given on the command line."""
    given = {name: getattr(arguments, name) for name in ("vlm_name", "sam_name", "dtype")}
    overrides = {name: value for name, value in given.items() if value is not None}
    if arguments.no_quantization:
        overrides["quantize"] = False
    if arguments.quantization is not None:
        overrides["quantization"] = arguments.quantization
    return overrides
