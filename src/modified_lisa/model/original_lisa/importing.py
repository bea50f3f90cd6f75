"""``import-lisa``: a checkpoint in the original's layout -> a folder that `ModifiedLISA.from_pretrained` reads.

OUT/config.json, model.safetensors   what `ModifiedLISA.save_pretrained` writes
OUT/vlm                              a LLaVA, with its head, in Hugging Face's layout
OUT/sam                              a SAM, with LISA's mask decoder, in Hugging Face's layout

Weights are copied file by file as they are; in memory is one buffer, mapped is one file of the source.
"""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from modified_lisa.errors import ConfigError, ModelLoadError
from modified_lisa.files import check_folder, write_json
from modified_lisa.model import checkpoint
from modified_lisa.model.original_lisa.building import LISA, clip_settings, crop_spec, protocol_settings
from modified_lisa.model.original_lisa.layout import uses_start_end, vocabulary_rows
from modified_lisa.model.original_lisa.protocol import SAM_MEAN, SAM_STD
from modified_lisa.model.original_lisa.source import Origin, OriginalLisa, find_original
from modified_lisa.model.original_lisa.vocabulary import IMAGE, read_tokenizer
from modified_lisa.model.tiny import CHAT_TEMPLATE

__all__ = ["import_lisa"]

_BUFFER = 1 << 30
"""Bytes of one written file, or one tensor if that is larger."""


def import_lisa(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    dtype: str | None = None,
    quantize: bool = False,
    vision_tower: str | None = None,
    tokenizer: str | None = None,
    seg_token_id: int | None = None,
    progress: Callable[[int, int], Any] | None = None,
) -> Path:
    """Convert ``source`` (a folder or hub name) into the new folder ``out``, which is there in full or not at all.

    Args:
        dtype, quantize: of the model when it is loaded from ``out``; the files keep the source's precision.
            None: the source's.
        vision_tower: folder or hub name of the CLIP, if not the one that the configuration names.
        tokenizer: folder or hub name of the tokenizer, if not the source.
        seg_token_id: of ``[SEG]``, for a source without a tokenizer.
        progress: called with the bytes done and those in all.

    Raises:
        ConfigError: ``out`` is there already, or cannot be made.
        ModelLoadError: what is not found, cannot be read, or does not fit; all wrong keys at once.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already; name a new folder, or remove it first")
    check_folder("OUT", out)
    name = find_original(source)
    if name is None and not Path(source).is_dir():
        raise ModelLoadError(
            f"{os.fspath(source)}: there is no folder of that name, and no checkpoint of it in the Hugging Face cache. "
            f"With a network, run: hf download {os.fspath(source)}; without one, give the checkpoint's folder"
        )
    original = OriginalLisa(source, vision_tower)
    words = read_tokenizer(
        tokenizer or original.source,
        vocabulary_rows(original.values),
        start_end=uses_start_end(original.values),
    )
    if words is None and tokenizer is not None:
        raise ModelLoadError(
            f"--tokenizer {tokenizer}: there is neither a tokenizer.json nor a tokenizer.model"
        )
    settings = protocol_settings(original, words, seg_token_id)
    side = original.vlm_config.vision_config.image_size
    crop_spec(
        clip_settings(original.tower_source, side), side, original.tower_source
    )  # refused before anything is written
    changes: dict[str, Any] = {"quantize": quantize, "seg_token_id": settings["seg_token_id"]}
    config = original.model_config(**changes, **({"dtype": dtype} if dtype else {}))

    out.parent.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    try:
        _write_models(original, made, progress)
        _write_vlm_settings(original, words, settings, made / "vlm")
        _write_sam_settings(original, made / "sam")
        checkpoint.write_folder(
            made,
            {**config.to_dict(), "vlm_name": "./vlm", "sam_name": "./sam"},
            original.trained_weights(settings["seg_token_id"]),
        )
        original.close()
        _open_to_readers(made)
        if out.exists():
            out.rmdir()
        made.rename(out)
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise
    return out


def _open_to_readers(folder: Path) -> None:
    """Some writers make files that only their owner can read; give all of them the rights of an ordinary one."""
    mode = (folder / "config.json").stat().st_mode & 0o666
    for entry in (folder, *folder.rglob("*")):
        entry.chmod(mode | (mode & 0o444) >> 2 if entry.is_dir() else mode)


def _write_models(original: OriginalLisa, folder: Path, progress: Callable[[int, int], Any] | None) -> None:
    writers = {"vlm": _Writer(folder / "vlm"), "sam": _Writer(folder / "sam")}
    work = [
        (origin, part, name)
        for part, origins in (("vlm", original.vlm_origins), ("sam", original.sam_origins))
        for name, origin in origins.items()
    ]
    total, done = sum(origin.nbytes for origin, _, _ in work), 0
    for origin, part, name in sorted(work, key=_place):
        writers[part].add(name, origin)
        done += origin.nbytes
        if progress is not None:
            progress(done, total)
    for writer in writers.values():
        writer.finish()


def _place(item: tuple[Origin, str, str]) -> tuple[str, str, str]:
    """Tensors of one file together, so that each file of the source is opened once."""
    origin, part, name = item
    return origin.file, part, name


class _Writer:
    """Numbered safetensors files with an index, of bounded size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._held: dict[str, torch.Tensor] = {}
        self._files: list[list[str]] = []
        self._bytes = self._size = 0
        self._from = ""

    def add(self, name: str, origin: Origin) -> None:
        file, size = origin.file, origin.nbytes
        # What is held are views of the mapped file; do not keep two of them mapped.
        if self._held and (file != self._from or self._bytes + size > _BUFFER):
            self._flush()
        self._from = file
        tensor = origin.read().contiguous()
        if any(tensor.data_ptr() == held.data_ptr() for held in self._held.values()):
            tensor = tensor.clone()  # one weight under two names is written twice
        self._held[name] = tensor
        self._bytes += size
        self._size += size

    def _flush(self) -> None:
        from safetensors.torch import save_file

        self._files.append(list(self._held))
        save_file(self._held, self.folder / f"{len(self._files)}.safetensors", {"format": "pt"})
        self._held, self._bytes = {}, 0

    def finish(self) -> None:
        if self._held:
            self._flush()
        count, index = len(self._files), {}
        for number, names in enumerate(self._files, start=1):
            file = f"model-{number:05}-of-{count:05}.safetensors" if count > 1 else "model.safetensors"
            (self.folder / f"{number}.safetensors").rename(self.folder / file)
            index.update(dict.fromkeys(names, file))
        if count > 1:
            write_json(
                self.folder / "model.safetensors.index.json",
                {"metadata": {"total_size": self._size}, "weight_map": index},
            )


def _write_vlm_settings(
    original: OriginalLisa, tokenizer: Any | None, settings: Mapping[str, Any], folder: Path
) -> None:
    clip = clip_settings(original.tower_source, original.vlm_config.vision_config.image_size)
    config = original.vlm_config
    if tokenizer is not None:
        config.image_token_id = int(tokenizer.convert_tokens_to_ids(IMAGE))
    values = {**config.to_dict(), "architectures": ["LlavaForConditionalGeneration"], LISA: dict(settings)}
    write_json(folder / "config.json", values)
    write_json(folder / "preprocessor_config.json", {**clip, "image_processor_type": "CLIPImageProcessor"})
    if tokenizer is not None:
        from transformers import CLIPImageProcessor, LlavaProcessor

        # For whoever builds another model on this LLaVA: its own protocol needs none of this.
        keys = ("size", "crop_size", "image_mean", "image_std")
        LlavaProcessor(
            CLIPImageProcessor(**{key: clip[key] for key in keys}),
            tokenizer,
            patch_size=config.vision_config.patch_size,
            vision_feature_select_strategy=config.vision_feature_select_strategy,
            num_additional_image_tokens=1,
            chat_template=CHAT_TEMPLATE,
        ).save_pretrained(folder)


def _write_sam_settings(original: OriginalLisa, folder: Path) -> None:
    config = original.sam_config
    side = config.vision_config.image_size
    write_json(folder / "config.json", {**config.to_dict(), "architectures": ["SamModel"]})
    images = {
        "image_processor_type": "SamImageProcessor",
        "size": {"longest_edge": side},
        "pad_size": {"height": side, "width": side},
        "image_mean": list(SAM_MEAN),
        "image_std": list(SAM_STD),
    }
    write_json(folder / "preprocessor_config.json", images)
