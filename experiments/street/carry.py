"""Take the experiment's inputs to a machine without a network, in files of a few dozen MB.

    python experiments/street/carry.py pack --wheels FOLDER --data_dir DATA --out local/carry --parts 3
    python experiments/street/carry.py unpack --parts_dir local/carry --out runs/street/inputs

``pack`` writes part-0, part-1, ...: pieces of one tar of what is needed of the wheels (the GGUF file as it is, the encoder's
convolutions in fp16 without the classifier) and of the data (each photo once, in its own bytes, as several samples
share one). ``unpack`` joins them and makes ``OUT/wheels`` and ``OUT/data`` for ``run.py``. With ``--only data`` or
``--only wheels`` it is half of that; the halves unpack into the same folder.
"""

import argparse
import hashlib
import io
import json
import os
import tarfile
import tempfile
from pathlib import Path

import torch
from assemble import ENCODER, GGUF, find_parts

LINKS = "links.json"


def pack(
    wheels: Path | None, data: Path | None, out: Path, parts: int, only: str | None = None
) -> list[Path]:
    """The files written; ``only``: "data", "wheels", or None for both."""
    stream = io.BytesIO()
    with (
        tempfile.TemporaryDirectory() as work,
        tarfile.open(fileobj=stream, mode="w:xz", preset=6) as archive,
    ):
        if only != "data":
            _add_wheels(archive, Path(work), wheels)
        if only != "wheels":
            assert data is not None
            _add_data(archive, Path(work), data)
    content = stream.getvalue()
    size = -(-len(content) // parts)
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for number in range(parts):
        # Each in a folder of its own, so that each can be sent alone.
        path = out / f"part-{number}"
        path.write_bytes(content[number * size : (number + 1) * size])
        written.append(path)
    return written


def _add_wheels(archive: tarfile.TarFile, work: Path, wheels: Path | None) -> None:
    found = find_parts(work, wheels)
    archive.add(found[GGUF], f"wheels/{GGUF}")
    # With the package's metadata: transformers asks for its version.
    for folder in (found["gguf"], *found["gguf"].parent.glob("gguf-*.dist-info")):
        archive.add(
            folder,
            f"wheels/{folder.name}",
            filter=lambda entry: None if "__pycache__" in entry.name else entry,
        )
    lean = work / ENCODER
    torch.save(_lean(torch.load(found[ENCODER], map_location="cpu", weights_only=True)), lean)
    archive.add(lean, f"wheels/{ENCODER}")


def _add_data(archive: tarfile.TarFile, work: Path, data: Path) -> None:
    links: dict[str, str] = {}
    kept: dict[str, str] = {}
    for file in sorted(data.rglob("*")):
        name = str(file.relative_to(data))
        if file.suffix == ".json":
            archive.add(file, f"data/{name}")
        elif file.is_file():
            links[name] = kept.setdefault(hashlib.sha256(file.read_bytes()).hexdigest(), name)
            if links[name] == name:
                archive.add(file, f"data/{name}")
    (work / LINKS).write_text(json.dumps(links), encoding="utf-8")
    archive.add(work / LINKS, LINKS)


def unpack(parts_dir: Path, out: Path) -> None:
    """Join the parts; a photo of several samples becomes one file with several names."""
    paths = sorted(parts_dir.glob("part-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    stream = io.BytesIO(b"".join(path.read_bytes() for path in paths))
    with tarfile.open(fileobj=stream, mode="r:xz") as archive:
        archive.extractall(out, filter="data")
    if not (out / LINKS).is_file():
        return
    for name, source in json.loads((out / LINKS).read_text(encoding="utf-8")).items():
        if name != source and not (out / "data" / name).exists():
            os.link(out / "data" / source, out / "data" / name)


def _lean(encoder: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    head = ("_conv_head.", "_bn1.", "_fc.")
    return {
        name: tensor.half() if tensor.ndim == 4 else tensor
        for name, tensor in encoder.items()
        if not name.startswith(head)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack")
    packing.add_argument("--wheels", type=Path)
    packing.add_argument("--data_dir", type=Path)
    packing.add_argument("--only", choices=("data", "wheels"), help="half of the inputs")
    packing.add_argument("--out", type=Path, default=Path("local/carry"))
    packing.add_argument("--parts", type=int, default=3)
    unpacking = commands.add_parser("unpack")
    unpacking.add_argument("--parts_dir", type=Path, default=Path("local/carry"))
    unpacking.add_argument("--out", type=Path, default=Path("runs/street/inputs"))
    options = parser.parse_args()
    if options.command == "pack":
        if options.data_dir is None and options.only != "wheels":
            parser.error("--data_dir is needed, unless --only wheels")
        for path in pack(options.wheels, options.data_dir, options.out, options.parts, options.only):
            print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    else:
        unpack(options.parts_dir, options.out)


if __name__ == "__main__":
    main()
