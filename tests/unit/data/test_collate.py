"""Batches: what is in them, and that errors come out of workers as they were raised."""

import pickle
import random

import numpy as np
import pytest
import torch

from fake_lisa import FakeProcessor, FakeSet
from modified_lisa.data.collate import Collator, load_batches
from modified_lisa.data.sample import Sample
from modified_lisa.errors import ConfigError, DataError


def test_shapes_types_and_frames() -> None:
    samples = [FakeSet(4)[index] for index in (0, 3, 1)]
    batch = Collator(FakeProcessor())(samples)
    assert len(batch) == 3
    assert batch.names == [sample.name for sample in samples]
    assert batch.texts == [sample.text for sample in samples]
    assert batch.grid_target.shape == batch.grid_valid.shape == (3, 256, 256)
    assert batch.grid_target.dtype == batch.grid_valid.dtype == torch.float32
    for row, sample in enumerate(samples):
        assert np.array_equal(batch.targets[row].numpy(), sample.target)
        target, valid = batch.inputs.frames[row].target_to_grid(batch.targets[row], 256)
        assert torch.equal(batch.grid_target[row], target)
        assert torch.equal(batch.grid_valid[row], valid)


def test_grid_of_a_half_covered_image() -> None:
    target = np.zeros((40, 20), np.uint8)
    target[:, :10] = 1
    sample = Sample("train/x#0", np.zeros((40, 20, 3), np.uint8), "left", target)
    batch = Collator(FakeProcessor())([sample])
    assert torch.equal(batch.grid_target[0, :, :64], torch.ones(256, 64))
    assert batch.grid_target[0, :, 64:].sum() == 0
    assert batch.grid_valid[0, :, :128].min() == 1
    assert batch.grid_valid[0, :, 128:].max() == 0  # padding


@pytest.mark.filterwarnings("error")
def test_mirrored_and_read_only_targets() -> None:
    sample = FakeSet(1)[0]
    target = sample.target[:, ::-1]
    frozen = target.copy()
    frozen.setflags(write=False)
    for given in (target, frozen):
        batch = Collator(FakeProcessor())([Sample("train/x#0", sample.image, "left", given)])
        assert np.array_equal(batch.targets[0].numpy(), target)


def test_collator_pickles() -> None:
    pickle.loads(pickle.dumps(Collator(FakeProcessor())))([FakeSet(1)[0]])


@pytest.mark.parametrize("workers", [0, 2])
def test_order_is_the_plan(workers: int) -> None:
    plan = [[3, 1], [0], [2, 2]]
    batches = list(load_batches(FakeSet(4), plan, Collator(FakeProcessor()), num_workers=workers))
    assert [batch.names for batch in batches] == [[f"train/image_{i}#0" for i in row] for row in plan]


def test_loading_leaves_the_random_state_alone() -> None:
    torch.manual_seed(3)
    states = torch.get_rng_state(), random.getstate()
    list(load_batches(FakeSet(2), [[0], [1]], Collator(FakeProcessor())))
    assert torch.equal(states[0], torch.get_rng_state())
    assert states[1] == random.getstate()


class _Refusing(FakeProcessor):
    def __call__(self, images: list[np.ndarray], texts: list[str]) -> None:  # type: ignore[override]
        raise ConfigError("the query is empty")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_refused_text_names_its_sample(workers: int) -> None:
    loaded = load_batches(FakeSet(2), [[1]], Collator(_Refusing()), num_workers=workers)
    with pytest.raises(DataError) as caught:
        next(loaded)
    assert str(caught.value) == "train/image_1#0: the query is empty"


def test_label_maps_stay_on_the_cpu_where_they_are_compared() -> None:
    batch = Collator(FakeProcessor())([FakeSet(1)[0]]).to("meta")
    assert batch.grid_target.device.type == batch.grid_valid.device.type == "meta"
    assert batch.inputs.pixels.device.type == "meta"
    assert [target.device.type for target in batch.targets] == ["cpu"]
