"""Arguments of ``modified-lisa benchmark``. No torch here, so that ``--help`` answers at once."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from modified_lisa.config import DTYPES, QUANTIZATIONS, ModelConfig
from modified_lisa.errors import ConfigError

__all__ = ["BenchmarkConfig", "add_arguments", "to_config"]

WHAT = ("memory", "latency", "throughput", "session", "training", "flops")
PRECISIONS = ("nf4", "none")
SOURCES = ("original", "vlm", "sam")
QUICK_REPEATS = 1


@dataclass(frozen=True, kw_only=True)
class BenchmarkConfig:
    """What to measure, and on which models."""

    vlm_name: str = ModelConfig.vlm_name
    sam_name: str = ModelConfig.sam_name
    original_sam: str = "facebook/sam-vit-huge"
    """SAM of the original architecture."""
    random_init: bool = False
    dtype: str = "bf16"
    quantization: tuple[str, ...] = PRECISIONS
    """Precisions of the language model, one after another; with ``none``, the others' masks are held against its."""
    sources: tuple[str, ...] = SOURCES
    what: tuple[str, ...] = WHAT
    ablate: bool = False
    repeats: int = 10
    quick: bool = False
    """One run of each and small batches: to see that it works, not for figures."""
    device: str | None = None
    out: str = "benchmark.json"
    plot: str | None = None

    def __post_init__(self) -> None:
        for flag, values, known in (
            ("--quantization", self.quantization, QUANTIZATIONS),
            ("--sources", self.sources, SOURCES),
            ("--what", self.what, WHAT),
        ):
            unknown = [value for value in values if value not in known]
            if unknown or not values:
                raise ConfigError(
                    f"{flag} is {','.join(values)!r}; give one or more of {', '.join(known)}, separated by commas"
                )
        if self.dtype not in DTYPES:
            raise ConfigError(f"--dtype is {self.dtype!r}; it must be one of {', '.join(DTYPES)}")
        if self.ablate and not ({"original", "vlm"} <= set(self.sources) and "latency" in self.what):
            raise ConfigError(
                "--ablate goes from vlm to original: keep both in --sources, and latency in --what"
            )
        if self.repeats < 1:
            raise ConfigError(f"--repeats is {self.repeats}; it must be at least 1")
        if Path(self.out).suffix.lower() != ".json":
            raise ConfigError(f"--out is {self.out!r}; the results are JSON, so its ending must be .json")
        if self.plot is not None and Path(self.plot).suffix.lower() != ".png":
            raise ConfigError(f"--plot is {self.plot!r}; its ending must be .png")

    @property
    def plot_path(self) -> Path:
        return Path(self.plot) if self.plot else Path(self.out).with_suffix(".png")

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        return (1, 2) if self.quick else (1, 2, 4, 8, 16)

    @property
    def counted_repeats(self) -> int:
        return QUICK_REPEATS if self.quick else self.repeats


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments to ``parser``, in the groups models, measurements and output."""
    models = parser.add_argument_group("models")
    models.add_argument(
        "--vlm_name",
        default=BenchmarkConfig.vlm_name,
        metavar="NAME",
        help=f"hub name or folder of a LLaVA, or tiny (default: {BenchmarkConfig.vlm_name})",
    )
    models.add_argument(
        "--sam_name",
        default=BenchmarkConfig.sam_name,
        metavar="NAME",
        help=f"hub name or folder of a SAM, or tiny (default: {BenchmarkConfig.sam_name})",
    )
    models.add_argument(
        "--original_sam",
        metavar="NAME",
        help="SAM of the original architecture (default: facebook/sam-vit-huge, or tiny with --sam_name tiny)",
    )
    models.add_argument(
        "--random_init",
        action="store_true",
        help="random weights in the sizes of these names, drawn on the device; nothing is downloaded",
    )
    models.add_argument(
        "--dtype",
        choices=DTYPES,
        help="precision of the frozen parts (default: bf16 on a GPU, fp32 on a CPU)",
    )
    models.add_argument(
        "--quantization",
        type=_names,
        default=",".join(PRECISIONS),
        metavar="LIST",
        help="of the language model, one after another: nf4, none, fp8, int8 (default: nf4,none)",
    )
    models.add_argument(
        "--device", metavar="NAME", help="cpu, cuda or cuda:N (default: a GPU if there is one)"
    )
    measured = parser.add_argument_group("measurements")
    measured.add_argument(
        "--sources",
        type=_names,
        default=",".join(SOURCES),
        metavar="LIST",
        help="architectures; original is both encoders with a generated answer (default: original,vlm,sam)",
    )
    measured.add_argument(
        "--what",
        type=_names,
        default=",".join(WHAT),
        metavar="LIST",
        help="what to measure; peak memory is part of each, and memory is what the fast way takes on the card in a process "
        f"of its own (default: {','.join(WHAT)})",
    )
    measured.add_argument(
        "--ablate",
        action="store_true",
        help="also switch the gains off one after another, down to the original",
    )
    measured.add_argument(
        "--repeats", type=int, default=10, metavar="N", help="timed runs of each; medians count (default: 10)"
    )
    measured.add_argument(
        "--quick",
        action="store_true",
        help="one run of each, batches of 1 and 2: shows that it works, gives no figures",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--out", default="benchmark.json", metavar="PATH", help="results as JSON (default: benchmark.json)"
    )
    output.add_argument(
        "--plot", metavar="PATH", help="plot of the latencies (default: PATH of --out as .png)"
    )


def to_config(arguments: argparse.Namespace, dtype: str) -> BenchmarkConfig:
    """The configuration that was asked for; ``dtype``: for where none was. Raises ConfigError."""
    tiny = "tiny" if arguments.sam_name == "tiny" else BenchmarkConfig.original_sam
    return BenchmarkConfig(
        vlm_name=arguments.vlm_name,
        sam_name=arguments.sam_name,
        original_sam=arguments.original_sam or tiny,
        random_init=arguments.random_init,
        dtype=arguments.dtype or dtype,
        quantization=arguments.quantization,
        sources=arguments.sources,
        what=arguments.what,
        ablate=arguments.ablate,
        repeats=arguments.repeats,
        quick=arguments.quick,
        device=arguments.device,
        out=arguments.out,
        plot=arguments.plot,
    )


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
