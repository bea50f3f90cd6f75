"""The book-keeping of `Graphs`, with a stand-in for CUDA whose graphs run their function again on the CPU; who may use them."""

import contextlib
import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from factory import tiny_model
from modified_lisa import devices
from modified_lisa.model import availability, graphs
from modified_lisa.model.graphs import Graphs, Pool


class Graph:
    """What was captured on it is computed anew, from the inputs and into the outputs of the capture, once it knows them."""

    run = None

    def replay(self) -> None:
        if self.run is not None:
            with torch.no_grad():
                self.outputs.copy_(self.run())


@pytest.fixture
def cuda(monkeypatch):
    """What is the current stream, and how many pools were asked for."""
    said = SimpleNamespace(stream="default", pools=0, fails=False)

    def pool():
        said.pools += 1
        return said.pools

    @contextlib.contextmanager
    def graph(made, *, pool, stream, capture_error_mode):
        said.stream = stream
        yield
        if said.fails:  # as torch does where the capture cannot be ended: it leaves its stream behind
            raise RuntimeError("the capture was invalidated")
        said.stream = "default"

    fakes = {
        "CUDAGraph": Graph,
        "graph": graph,
        "graph_pool_handle": pool,
        "device": lambda _: contextlib.nullcontext(),
        "stream": lambda _: contextlib.nullcontext(),
        "current_stream": lambda *_: SimpleNamespace(wait_stream=lambda _: None),
        "set_stream": lambda _: setattr(said, "stream", "default"),
        "synchronize": lambda *_: None,
    }
    for name, value in fakes.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(graphs, "_side_stream", lambda _: SimpleNamespace(wait_stream=lambda _: None))
    monkeypatch.setattr(graphs, "DecodeAhead", lambda _: SimpleNamespace(learning=contextlib.nullcontext))
    return said


class Owner:
    """Owns a model and the graphs of a method of its own."""

    def __init__(self) -> None:
        self.model = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.model.weight)
        self.captured = 0
        self.graphs = Graphs(self.double, self.model, fuse=False)

    def double(self, x: torch.Tensor) -> torch.Tensor:
        self.captured += 1
        return 2 * self.model(x.to(self.model.weight.dtype))

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        self.graphs(x)
        for graph, (static,), kept in self.graphs._graphs.values():  # what a real one has recorded
            graph.outputs, graph.run = kept, lambda static=static: self.double(static)
        return self.graphs(x).clone()


@pytest.mark.usefixtures("cuda")
def test_a_shape_is_captured_once_and_its_input_is_shared():
    owner = Owner()
    for value in (1.0, 2.0, 3.0):
        assert torch.equal(owner(torch.full((2, 3), value)), torch.full((2, 3), 2 * value))
    assert len(owner.graphs) == 1
    owner(torch.ones(4, 3))
    assert len(owner.graphs) == 2
    assert len(owner.graphs._static) == 2
    (first, _), (second, _) = ((static[0], kept) for _, static, kept in owner.graphs._graphs.values())
    assert first.shape == (2, 3)
    assert second.shape == (4, 3)


@pytest.mark.usefixtures("cuda")
def test_graphs_of_one_shape_read_the_same_place():
    model = nn.Linear(3, 3)
    several = Graphs(lambda x, y: x.sum() + y.sum(), model, fuse=False)
    for length in (1, 2, 3):
        several._place(0, torch.ones(5, 3), torch.device("cpu"))
        several._place(1, torch.ones(length), torch.device("cpu"))
    assert sorted(key[:2] for key in several._static) == [(0, (5, 3)), (1, (1,)), (1, (2,)), (1, (3,))]


def test_a_model_that_was_moved_or_cast_is_captured_anew(cuda):
    owner = Owner()
    owner(torch.ones(2, 3))
    captures, pools = owner.captured, cuda.pools
    owner.model.double()
    assert owner(torch.ones(2, 3)).dtype == torch.float64
    assert owner.captured > captures
    assert cuda.pools == pools + 1, "the pool is gone with the last graph in it"
    assert len(owner.graphs) == 1


def test_a_pool_is_asked_for_anew_once_nothing_is_in_it(cuda):
    pool, model = Pool(), nn.Linear(3, 3)
    one, other = (Graphs(lambda x: x + 1, model, pool, keep=1, fuse=False) for _ in range(2))
    one(torch.ones(1))
    other(torch.ones(1))
    assert (pool.graphs, cuda.pools) == (2, 1)
    one(torch.ones(2))  # the first is dropped for it, and the other is still there
    one.clear()
    assert (pool.graphs, cuda.pools) == (1, 1)
    other(torch.ones(2))  # nothing is in the pool at that moment
    assert (pool.graphs, cuda.pools) == (1, 2)


@pytest.mark.usefixtures("cuda")
def test_an_owner_is_freed_with_its_last_reference():
    owner = Owner()
    owner(torch.ones(2, 3))
    owner.graphs._graphs.clear()  # whose stand-ins hold the owner, as real ones do not
    seen = weakref.ref(owner)
    gc.collect()
    gc.disable()
    try:
        del owner
        assert seen() is None
    finally:
        gc.enable()


def test_a_capture_that_fails_leaves_torchs_stream_and_can_be_tried_again(cuda):
    owner = Owner()
    cuda.fails = True
    with pytest.raises(RuntimeError, match="invalidated"):
        owner.graphs(torch.ones(2, 3))
    assert cuda.stream == "default"
    assert owner.graphs.pool.graphs == 0, "another pool is asked for the next time"
    assert len(owner.graphs) == 0
    cuda.fails = False
    assert torch.equal(owner(torch.ones(2, 3)), torch.full((2, 3), 2.0))


@pytest.mark.parametrize(
    ("capability", "dtype", "says"),
    [
        ((6, 1), "fp32", "6.1, and Triton compiles from 7.0 on"),
        ((7, 5), "bf16", "7.5, and kernels multiply in bf16 from 8.0 on"),
        ((7, 5), "fp16", None),
        ((8, 0), "bf16", None),
    ],
)
def test_gpus_that_are_too_old_for_graphs_are_named(monkeypatch, capability, dtype, says):
    model = tiny_model(dtype=dtype)
    old = SimpleNamespace(type="cuda")
    monkeypatch.setattr(type(model), "device", property(lambda _: old))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(devices.importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(devices.shutil, "which", lambda _: "cc")
    monkeypatch.setattr(devices.Path, "is_file", lambda _: True)
    for cached in (devices.why_not, devices.why_not_bf16):
        monkeypatch.setattr(devices, cached.__name__, cached.__wrapped__)
        monkeypatch.setattr(availability, cached.__name__, cached.__wrapped__)
    found = availability.why_not_captured(model)
    assert found is None if says is None else says in found


def test_positions_that_wait_for_the_gpu_are_named(monkeypatch):
    model = tiny_model()
    for name in ("why_not", "why_not_bf16"):
        monkeypatch.setattr(availability, name, lambda _: None)
    assert availability.why_not_captured(model) is None
    model.language_model.config.rope_parameters = {"rope_type": "longrope", "rope_theta": 1e4}
    assert "'longrope' wait for the GPU" in availability.why_not_captured(model)
