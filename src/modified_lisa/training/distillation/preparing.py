"""Before the first step: what the frozen parts make of each image, computed once and kept.

Three stores (`FeatureStore`): SAM's embedding, by the teacher's second encoder, which is loaded for this alone
and dropped; the features of the encoder that stays (the same store that training's ``--cache_dir`` uses); and
the prompts that the language model gives the mask decoder for the image's queries. Teacher and student have one
language model, so it reads an image for both; their prompts differ only where their squares do (LISA's protocol).
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from modified_lisa.config import ModelConfig
from modified_lisa.errors import DataError, ImageError
from modified_lisa.images import read_image
from modified_lisa.model import loading
from modified_lisa.model.building import build_processor
from modified_lisa.model.feature_cache import FeatureCache
from modified_lisa.model.feature_store import FeatureStore, fingerprint, image_key
from modified_lisa.model.lisa import ModifiedLISA

__all__ = ["Picture", "list_images", "store_embeddings", "store_features", "store_prompts"]

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
_ELSEWHERE = {"vlm_name", "sam_name", "bridge", "bridge_layers"}
"""Fields that prompts do not depend on, or that the weights stand for."""
Say = Callable[[str], Any]
Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class Picture:
    """One unlabelled image, and what is asked about it."""

    path: Path
    key: str
    """Of its pixels; the embedding and the features are kept under it."""
    size: tuple[int, int]
    """Height and width."""
    queries: tuple[str, ...]

    @property
    def prompts_key(self) -> str:
        """Under which the prompts of its queries are kept."""
        digest = hashlib.blake2b("\0".join((self.key, *self.queries)).encode(), digest_size=16)
        return digest.hexdigest()


def list_images(folder: str, limit: int | None = None) -> list[Path]:
    """All pictures in ``folder`` and below, by name; DataError if there are fewer than two."""
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"--images {folder}: there is no such folder")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    if len(found) < 2:
        raise DataError(
            f"--images {folder}: {len(found)} picture(s) in it ({', '.join(ENDINGS)}); two are the least, one to learn "
            "from and one to measure on"
        )
    return found[:limit]


def store_embeddings(
    config: ModelConfig, folder: Path, paths: list[Path], device: torch.device, workers: int, say: Say
) -> tuple[FeatureStore, list[tuple[str, tuple[int, int]]]]:
    """SAM's embedding (C, h, w) of every image, in the encoder's precision.

    Only the teacher's SAM is on the device meanwhile. Returns the store, and key and size of each image.
    Raises DataError with all images that cannot be read.
    """
    processor = build_processor(config)
    sam = loading.load_sam(config, device)
    encoder = sam.vision_encoder.to(loading.DTYPES[config.dtype])

    def encode(image: np.ndarray) -> Tensors:
        squares = processor.sam_squares([image], [processor.frame(*image.shape[:2])])
        assert squares is not None
        with torch.no_grad():
            return (encoder(squares.to(device, encoder.dtype)).last_hidden_state[0],)

    (sample,) = encode(np.zeros((8, 8, 3), np.uint8))
    identity = {
        "what": "embeddings",
        "weights": fingerprint([*encoder.named_parameters(), *encoder.named_buffers()]),
        "dtype": config.dtype,
        "device": device.type,
        "images": processor.image_settings["sam_image"],
    }
    store = FeatureStore(folder, identity, ((tuple(sample.shape), sample.dtype),))
    say(store.prepare(len(paths)))
    known: list[tuple[str, tuple[int, int]]] = []
    for image, key, whole in _read(paths, store, workers, "teacher's embeddings"):
        known.append((key, image.shape[:2]))
        if not whole:
            store.save(key, encode(image))
    return store, known


def store_features(
    model: ModifiedLISA, folder: Path, pictures: list[Picture], workers: int, say: Say
) -> FeatureStore:
    """What the student's frozen encoder makes of every image."""
    cache = FeatureCache(model, folder)
    say(cache.announce(len(pictures)))
    frames = model.processor
    missing = [
        picture
        for picture in tqdm(pictures, "features kept", leave=False)
        if not cache.store.load(picture.key)
    ]
    for image, key, _ in _read(
        [picture.path for picture in missing], cache.store, workers, "student's features"
    ):
        squares = frames.vlm_squares([image], [frames.frame(*image.shape[:2])])
        cache.store.save(key, tuple(x[0] for x in cache.encode(squares, None)))
    return cache.store


def store_prompts(
    model: ModifiedLISA, teacher: ModelConfig, folder: Path, pictures: list[Picture], workers: int, say: Say
) -> FeatureStore:
    """Prompts of each image's Q queries: the student's, (Q, C), and the teacher's, (Q, C); float32."""
    processors = [model.processor]
    if teacher.protocol != "native":  # elsewhere both see the same square
        processors.append(build_processor(teacher))
    named = [
        (name, value)
        for name, value in [*model.named_parameters(), *model.named_buffers()]
        if not name.startswith(("vision.bridge.", "mask_head."))
    ]
    identity = {
        "what": "prompts",
        "config": {name: value for name, value in model.config.to_dict().items() if name not in _ELSEWHERE},
        "sample": [
            processor.encode("segmentation mask") for processor in processors
        ],  # tokenizer and template
        "weights": fingerprint(named),
        "device": model.device.type,
        "images": [processor.image_settings for processor in processors],
    }
    count, width = len(pictures[0].queries), model.mask_head.channels
    store = FeatureStore(folder, identity, (((count, width), torch.float32),) * 2)
    say(store.prepare(len(pictures)))
    missing = [one for one in tqdm(pictures, "prompts kept", leave=False) if not store.load(one.prompts_key)]
    read = _read([picture.path for picture in missing], store, workers, "prompts")
    for picture, (image, _, _) in zip(missing, read, strict=True):
        prompts = [_prompts(model, processor, image, picture.queries) for processor in processors]
        store.save(picture.prompts_key, (prompts[0], prompts[-1]))
    return store


def _prompts(
    model: ModifiedLISA, processor: Any, image: np.ndarray, queries: tuple[str, ...]
) -> torch.Tensor:
    inputs = processor([image] * len(queries), list(queries), squares=False)
    squares = processor.vlm_squares([image], [processor.frame(*image.shape[:2])])
    tower: Any = model.vision.encoder
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        states = tower(squares.to(model.device), tower.feature_layers)
        tokens = tower.tokens(dict(zip(tower.feature_layers, states, strict=True)))
        tokens = tokens.expand(len(queries), -1, -1)
        prompts: torch.Tensor = model.seg_projection(
            model.seg_states(tokens, replace(inputs, vlm_pixels=None).to(model.device)).float()
        )
    return prompts


class _Reader(Dataset[Any]):
    """(image, key, whether the store has it), or the message of an image that cannot be read."""

    def __init__(self, paths: list[Path], store: FeatureStore) -> None:
        self.paths, self.store = paths, store

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, str, bool] | str:
        try:
            image = read_image(self.paths[index])
        except ImageError as error:
            return str(error)
        key = image_key(image)
        return image, key, self.store.load(key) is not None


def _read(
    paths: list[Path], store: FeatureStore, workers: int, label: str
) -> Iterator[tuple[np.ndarray, str, bool]]:
    """Images in order, with a bar; one DataError in the end for all that cannot be read."""
    bad = []
    loader = DataLoader(
        _Reader(paths, store),
        batch_size=None,
        num_workers=workers,
        collate_fn=_unchanged,
        generator=torch.Generator().manual_seed(0),
    )
    for item in tqdm(loader, label, total=len(paths), unit="image", disable=not paths):
        if isinstance(item, str):
            bad.append(item)
        else:
            yield item
    if bad:
        raise DataError("\n".join(["--images holds what cannot be read; take it out:", *bad]))


def _unchanged(item: Any) -> Any:
    return item
