"""What a distillation is made of: queries, stages, errors of embeddings and masks, settings."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from modified_lisa.config import ModelConfig
from modified_lisa.errors import DataError
from modified_lisa.training.distillation.settings import GENERIC_QUERIES, read_queries
from modified_lisa.training.distillation.stages import Stages
from modified_lisa.training.distillation.student import student_config
from modified_lisa.training.distillation.targets import agreement, embedding_errors, mask_loss


def test_queries(tmp_path: Path) -> None:
    assert read_queries(None) == list(GENERIC_QUERIES)
    path = tmp_path / "queries.txt"
    path.write_text("one <SEG>\n two \ntwo\n", encoding="utf-8")
    assert read_queries(str(path)) == ["one <SEG>", "two"]
    path.write_text("one\n", encoding="utf-8-sig")  # some editors put a byte order mark in front
    assert read_queries(str(path)) == ["one"]
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(DataError, match="no query in it"):
        read_queries(str(path))
    path.write_text("<SEG> and <SEG> too", encoding="utf-8")
    with pytest.raises(DataError, match="several masks"):
        read_queries(str(path))


def test_a_stage_that_fails_is_recorded_too() -> None:
    said: list[str] = []
    stages = Stages(torch.device("cpu"), said.append)
    with stages("first"):
        pass
    with pytest.raises(RuntimeError, match="stopped"), stages("second"):
        raise RuntimeError("stopped")
    assert list(stages.records) == ["first", "second"]
    assert stages.records["second"]["card_memory_gb"] is None
    assert said[1].startswith("second: 0.0 s, at most")


def test_errors_of_embeddings() -> None:
    theirs = torch.randn(3, 8, 4, 4) * torch.tensor([1.0, 10.0, 0.1])[:, None, None, None]
    error, cosine = embedding_errors(theirs.clone(), theirs)
    torch.testing.assert_close(error, torch.zeros(3))
    torch.testing.assert_close(cosine, torch.zeros(3), atol=1e-5, rtol=0)
    mean = theirs.mean((2, 3), keepdim=True).expand_as(theirs)
    torch.testing.assert_close(embedding_errors(mean, theirs)[0], torch.ones(3))


def test_masks_count_within_the_image_only() -> None:
    inside = torch.zeros(1, 8, 8)
    inside[:, :4] = 1
    theirs = torch.full((1, 8, 8), -9.0)
    theirs[:, :2] = 9.0
    ours = theirs.clone()
    ours[:, 4:] = 9.0
    assert agreement(ours, theirs, inside).item() == 1
    assert mask_loss(ours, theirs, inside) == mask_loss(theirs, theirs, inside)
    ours[:, 1] = -9.0
    assert agreement(ours, theirs, inside).item() == 0.5
    nothing = torch.full((1, 8, 8), -1.0)
    assert agreement(nothing, nothing, inside).item() == 1


def test_the_teachers_settings_are_copied() -> None:
    teacher = ModelConfig(
        vision_source="dual",
        seg_state="before",
        seg_projection="plain",
        protocol="lisa",
        seg_token_id=7,
        lora_r=4,
    )
    student = student_config(teacher, "linear", (2, -1))
    assert (student.vision_source, student.bridge, student.bridge_layers) == ("vlm", "linear", (2, -1))
    back = replace(student, vision_source="dual", bridge=teacher.bridge, bridge_layers=None)
    assert back == teacher
