"""Ways of running one model give the same masks; graphs are played by the functions that they would capture."""

import pytest
import torch
from torch import nn

from factory import picture, tiny_model
from modified_lisa.benchmark import pipelines
from modified_lisa.benchmark.original import ANSWER, GivenAnswer, OriginalPipeline
from modified_lisa.benchmark.pipelines import Pipeline, RunnerPipeline, StagedPipeline
from modified_lisa.model.fused import fused

TEXT = "the one that could roll away"


class PlayedGraphs:
    """As `Graphs` without a GPU: copies of the inputs, and the model as it is while a graph is captured."""

    def __init__(self, function, model, pool=None, keep=1, *, fuse=True):
        self.function, self.model = function, model

    def __call__(self, *inputs):
        with fused(self.model):
            return self.function(*(None if x is None else x.clone() for x in inputs))

    def clear(self):
        pass


@pytest.fixture(name="played")
def _played(monkeypatch, uncompiled):
    monkeypatch.setattr(pipelines, "Graphs", PlayedGraphs)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)


def masks(pipeline: Pipeline, rows: int = 1) -> torch.Tensor:
    inputs = pipeline.prepare([picture(seed=row) for row in range(rows)], [TEXT] * rows)
    with torch.inference_mode():
        logits = pipeline.masks(inputs)[0].clone()
    pipeline.close()
    return logits


@pytest.mark.parametrize("source", ["vlm", "sam", "dual"])
def test_stages_give_what_the_model_gives(source):
    model = tiny_model(vision_source=source)
    expected = masks(RunnerPipeline(model, fast=False), rows=2)
    assert torch.allclose(masks(StagedPipeline(model, fast=False), rows=2), expected, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 3])
def test_static_buffers_of_the_original_give_what_its_cache_gives(played, rows):
    model = tiny_model(vision_source="dual")
    torch.manual_seed(1)
    head = nn.Linear(64, 400, bias=False)
    plain = masks(OriginalPipeline(model, head, fast=False), rows)
    fast = masks(OriginalPipeline(model, head, fast=True), rows)
    assert plain.shape == (rows, *plain.shape[1:])
    assert torch.allclose(fast, plain, atol=1e-4)
    assert "forward" not in model.vision.sam_encoder.layers[0].__dict__  # the compiled layers are undone


def test_generating_reads_the_state_that_predicts_seg():
    """The same state as that of one pass over the prompt and the answer, read before <SEG>."""
    model = tiny_model(vision_source="dual", seg_state="before")
    generated = masks(OriginalPipeline(model, nn.Linear(64, 400, bias=False), fast=False))
    assert torch.allclose(masks(GivenAnswer(model, fast=False)), generated, atol=1e-4)


def test_the_given_answer_makes_the_prompt_longer():
    model = tiny_model(vision_source="dual")
    plain = StagedPipeline(model, fast=False).prepare([picture()], [TEXT])
    given = GivenAnswer(model, fast=False).prepare([picture()], [TEXT])
    assert given.length == plain.length + ANSWER - 1
    assert given.is_seg[0].nonzero().tolist() == [[given.length - 1]]
    assert given.segs[1].tolist() == [given.length - 1]


def test_answers_are_masks_of_the_images_size():
    model = tiny_model(vision_source="dual")
    pipeline = OriginalPipeline(model, nn.Linear(64, 400, bias=False), fast=False)
    (answer,) = pipeline.answer([picture()], [TEXT])
    assert answer.masks.shape == (1, *picture().shape[:2])
