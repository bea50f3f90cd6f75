"""--cache_dir: the frozen encoders run once for each image; nothing else changes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from factory import picture, tiny_model
from modified_lisa.config import LossWeights, ModelConfig, TrainingConfig
from modified_lisa.data.collate import Collator
from modified_lisa.data.sample import Sample
from modified_lisa.errors import ConfigError
from modified_lisa.evaluation import evaluate
from modified_lisa.geometry import Frame
from modified_lisa.model.feature_cache import FeatureCache, frozen_identity
from modified_lisa.model.feature_store import FeatureStore, image_key
from modified_lisa.training.loop import Trainer

SOURCES = ("vlm", "sam", "dual")


class Pictures:
    """``images`` random pictures of several sizes, with two texts each."""

    def __init__(self, images: int, split: str = "train") -> None:
        self.images, self.split = images, split

    def __len__(self) -> int:
        return 2 * self.images

    def __getitem__(self, index: int) -> Sample:
        number, text = divmod(index, 2)
        image = picture(60 + 7 * number, 80, seed=number + 100 * (self.split == "val"))
        target = (image[..., 0] > 128).astype(np.uint8)
        return Sample(self.names[index], image, ("round", "all that is not round")[text], target)

    @property
    def names(self) -> list[str]:
        return [f"{self.split}/image_{index // 2}#{index % 2}" for index in range(len(self))]


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("overlay_sheet", "curves"):
        monkeypatch.setattr(f"modified_lisa.training.loop.{name}", lambda *args, **options: None)
    monkeypatch.setattr(Trainer, "_benchmark", lambda self: None)


def count_encodings(model: Any) -> list[int]:
    """Gets the number of images of each pass of a frozen encoder from now on."""
    calls: list[int] = []
    frozen = model.vision.frozen

    def counted(vlm: Any, sam: Any) -> Any:
        calls.append(len(vlm if vlm is not None else sam))
        return frozen(vlm, sam)

    model.vision.frozen = counted
    return calls


def run(folder: Path, source: str = "vlm", cache_dir: Path | None = None, **options: Any) -> Any:
    model = tiny_model(vision_source=source, **options.pop("model_options", {}))
    cache = None
    if cache_dir is not None:
        cache = FeatureCache(model, cache_dir, limit_gb=options.pop("limit_gb", None))
        cache.announce(6)
    calls = count_encodings(model)
    config = TrainingConfig(
        epochs=2,
        lr=1e-2,
        warmup_steps=1,
        output_dir=str(folder / "outputs"),
        checkpoint_dir=str(folder / "checkpoints"),
        **options,
    )
    trainer = Trainer(config, Accelerator(cpu=True), model, Pictures(3), Pictures(1, "val"), cache=cache)
    history = trainer.run()
    for record in history["epochs"]:
        del record["seconds"], record["train_seconds"]
    return history["epochs"], model.trainable_state_dict(), calls


@pytest.mark.parametrize("source", SOURCES)
def test_the_same_bits_with_and_without_and_no_encoding_on_hits(tmp_path: Path, source: str) -> None:
    plain, weights, calls = run(tmp_path / "plain", source)
    assert sum(calls) == 2 * 8
    cold, cold_weights, calls = run(tmp_path / "cold", source, tmp_path / "cache")
    assert sum(calls) == 4, "each of four images once"
    warm, warm_weights, calls = run(tmp_path / "warm", source, tmp_path / "cache")
    assert calls == []
    assert plain == cold == warm
    for name, value in weights.items():
        assert torch.equal(value, cold_weights[name])
        assert torch.equal(value, warm_weights[name])


@pytest.mark.parametrize("source", ["vlm", "sam"])
def test_the_same_bits_in_answer_mode(tmp_path: Path, source: str) -> None:
    options: dict[str, Any] = {"loss": LossWeights(ce=1.0), "model_options": {"answers": True}}
    plain, weights, _ = run(tmp_path / "plain", source, **options)
    cold, _, calls = run(tmp_path / "cold", source, tmp_path / "cache", **options)
    assert sum(calls) == 4, "each of four images once"
    warm, warm_weights, calls = run(tmp_path / "warm", source, tmp_path / "cache", **options)
    assert calls == []
    assert plain == cold == warm
    assert "ce" in plain[0]["train"]
    assert all(torch.equal(value, warm_weights[name]) for name, value in weights.items())


def test_questions_are_answered_from_kept_features(tmp_path: Path) -> None:
    model = tiny_model(answers=True)
    cache = FeatureCache(model, tmp_path / "cache")
    cache.announce(1)
    made = Collator(model.processor, asks=True)([Pictures(1)[0]])
    cache.complete(Collator(model.processor, asks=True, store=cache.store)([Pictures(1)[0]]))
    kept = Collator(model.processor, asks=True, store=cache.store)([Pictures(1)[0]])
    assert kept.inputs.vlm_pixels is None
    calls = count_encodings(model)
    found = model.generate(kept.inputs, max_new_tokens=4)
    assert calls == []
    assert torch.equal(found.sequences, model.generate(made.inputs, max_new_tokens=4).sequences)


def test_larger_batches_and_workers_do_not_depend_on_what_was_there(tmp_path: Path) -> None:
    cold, weights, calls = run(tmp_path / "cold", cache_dir=tmp_path / "cache", batch_size=3)
    assert set(calls) == {1}, "one image at a time, so that the batch leaves no trace"
    warm, others, calls = run(tmp_path / "warm", cache_dir=tmp_path / "cache", batch_size=3, num_workers=1)
    assert calls == []
    assert cold == warm
    assert all(torch.equal(value, others[name]) for name, value in weights.items())


def test_no_image_is_resized_on_hits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path / "cold", cache_dir=tmp_path / "cache")

    to_square = Frame.to_square

    def refuse(frame: Frame, image: np.ndarray, *given: Any, **named: Any) -> Any:
        assert len(image) < 60, "resized"  # the sample that tells the shapes of features is smaller
        return to_square(frame, image, *given, **named)

    monkeypatch.setattr(Frame, "to_square", refuse)
    run(tmp_path / "warm", cache_dir=tmp_path / "cache")


def _tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 64
    path.write_bytes(content)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _foreign(path: Path) -> None:
    save_file({"0": torch.zeros(3)}, path)


def _renamed(path: Path) -> None:
    """The features of another image under this one's name."""
    others = [other for other in path.parents[1].rglob("*.safetensors") if other != path]
    path.write_bytes(others[0].read_bytes())


def _nested(path: Path) -> None:
    """A header that is deeper than the JSON reader goes."""
    path.write_bytes((20_000).to_bytes(8, "little") + b"[" * 20_000)


@pytest.mark.parametrize("damage", [_tear, _flip, _empty, _foreign, _renamed, _nested])
def test_a_bad_file_is_noticed_and_made_again(tmp_path: Path, damage: Any) -> None:
    plain, *_ = run(tmp_path / "cold", cache_dir=tmp_path / "cache")
    paths = sorted((tmp_path / "cache").rglob("*.safetensors"))
    assert len(paths) == 4
    before = {
        name: value.clone() for name, value in load_file(paths[1]).items()
    }  # a file is mapped, not read
    damage(paths[1])
    again, _, calls = run(tmp_path / "again", cache_dir=tmp_path / "cache")
    assert calls == [1]
    assert again == plain
    after = load_file(paths[1])
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_another_model_or_preprocessing_has_another_store() -> None:
    model = tiny_model()
    layout = (((2,), torch.float32),)
    digests = {FeatureStore("x", frozen_identity(model), layout).digest}
    changed = [tiny_model(vision_source="dual"), tiny_model(bridge="linear"), tiny_model(dtype="bf16")]
    other = tiny_model()
    with torch.no_grad():
        next(other.vision.encoder.parameters()).add_(1e-3)
    changed.append(other)
    other = tiny_model()
    other.processor.vlm_image = type(other.processor.vlm_image)(56, (0.0,) * 3, (1.0,) * 3, "bilinear")
    changed.append(other)
    dual = tiny_model(vision_source="dual")
    dual.vision.encoder.feature_layers = (1,)
    changed.append(dual)
    digests |= {FeatureStore("x", frozen_identity(one), layout).digest for one in changed}
    assert len(digests) == 1 + len(changed)
    trained = tiny_model()
    with torch.no_grad():
        for parameter in trained.vision.bridge.parameters():
            parameter.add_(1.0)
    assert frozen_identity(trained) == frozen_identity(model), "what trains does not count"


def test_keys_are_of_the_content() -> None:
    image = picture(4, 6)
    assert image_key(image) == image_key(image.copy())
    assert image_key(image) != image_key(image.reshape(6, 4, 3))
    assert image_key(image) != image_key(image, "word")
    assert image_key(image, "a", "b") != image_key(image, "ab")
    assert image_key(image[:, ::2]) == image_key(image[:, ::2].copy())


def test_writers_and_readers_at_once_see_whole_entries_or_none(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, {"what": "test"}, (((64, 64), torch.float32), ((3,), torch.bfloat16)))
    entry = (torch.randn(64, 64), torch.ones(3, dtype=torch.bfloat16))

    def write(_: int) -> None:
        store.save("ab" * 16, entry)

    def read(_: int) -> bool:
        found = store.load("ab" * 16)
        return found is None or all(map(torch.equal, found, entry))

    with ThreadPoolExecutor(6) as pool:
        writing = [pool.submit(write, number) for number in range(30)]
        assert all(pool.map(read, range(60)))
    assert all(future.exception() is None for future in writing)
    assert store.load("ab" * 16) is not None
    assert len(list(tmp_path.rglob("*"))) == 3, "no temporary file is left"


def test_the_limit_holds_and_what_is_beyond_is_encoded_each_time(tmp_path: Path) -> None:
    cache = FeatureCache(tiny_model(), tmp_path / "cache")
    limit = 2.5 * cache.store.entry_bytes / 1e9
    plain, *_ = run(tmp_path / "plain")
    limited, _, calls = run(tmp_path / "limited", cache_dir=tmp_path / "cache", limit_gb=limit)
    assert plain == limited
    assert len(cache.store) == 2
    assert sum(calls) > 4
    assert "keeps 2 of them" in FeatureCache(tiny_model(), tmp_path / "cache", limit_gb=limit).announce(4)


def test_a_full_disk_is_refused_before_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FeatureCache(tiny_model(), tmp_path / "cache")
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    with pytest.raises(ConfigError, match=r"--cache_dir: features of 4 images: .* the disk has 1e-06 GB"):
        cache.announce(4)


def test_a_disk_that_fills_up_stops_the_keeping_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("modified_lisa.model.feature_store.write_atomically", full)
    run(tmp_path, cache_dir=tmp_path / "cache")
    assert "nothing more is kept" in capsys.readouterr().out


def test_evaluation_takes_a_cache_too(tmp_path: Path) -> None:
    model = tiny_model()
    cache = FeatureCache(model, tmp_path / "cache")
    cache.announce(2)
    before = evaluate(model, Pictures(2)).records
    assert evaluate(model, Pictures(2), cache=cache).records == before
    calls = count_encodings(model)
    assert evaluate(model, Pictures(2), cache=cache).records == before
    assert calls == []


def test_flags_that_do_not_go_together() -> None:
    with pytest.raises(ConfigError, match="goes with --cache_dir"):
        TrainingConfig(cache_limit_gb=3)
    with pytest.raises(ConfigError, match="--cache_limit_gb is 0"):
        TrainingConfig(cache_dir="x", cache_limit_gb=0)
    with pytest.raises(ConfigError, match="--train_vision trains one"):
        TrainingConfig(cache_dir="x", model=ModelConfig(train_vision=True))


def test_features_of_an_encoder_that_trains_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="train without a cache"):
        run(tmp_path, cache_dir=tmp_path / "cache", model_options={"train_vision": True})
