"""Our single pass against transformers' own forward passes, on tiny random weights."""

import pytest
import torch
from transformers import LlavaForConditionalGeneration, SamModel

from factory import folders, picture, tiny_model

IMAGES = [picture(60, 80, 1), picture(90, 40, 2)]


@pytest.mark.parametrize("source", ["vlm", "dual"])
def test_the_language_model_sees_what_llava_itself_shows_it(source: str) -> None:
    """Shared against two-pass: the <SEG> state equals that of LlavaForConditionalGeneration's own forward."""
    model = tiny_model(vision_source=source)
    llava = LlavaForConditionalGeneration.from_pretrained(folders()[0], dtype=torch.float32).eval()
    inputs = model.processor(IMAGES, ["the round one <SEG>", "what would keep me dry here, and <SEG> why?"])
    row = model.seg_embedding.row.detach()
    rows = llava.get_input_embeddings().num_embeddings
    assert model.processor.seg_token_id < rows, "LLaVA-1.5 has spare rows; so has the tiny one"
    with torch.no_grad():
        llava.get_input_embeddings().weight[model.processor.seg_token_id] = row[0]
        length = inputs.is_seg.int().argmax(dim=1).max() + 1
        theirs = llava.model(
            input_ids=inputs.input_ids[:, :length],
            pixel_values=inputs.vlm_pixels,
            attention_mask=(torch.arange(length)[None] <= inputs.is_seg.int().argmax(dim=1)[:, None]).long(),
        ).last_hidden_state
        tokens = model.vision(inputs.vlm_pixels, inputs.sam_pixels).tokens
        ours = model.seg_states(tokens, inputs)
    torch.testing.assert_close(ours, theirs[inputs.is_seg[:, :length]], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("source", ["sam", "dual"])
def test_sams_embedding_and_the_masks_of_it_are_sams_own(source: str) -> None:
    """For the same embeddings and the same prompt, the mask decoder's logits equal those of SamModel."""
    model = tiny_model(vision_source=source)
    sam = SamModel.from_pretrained(folders()[1], dtype=torch.float32).eval()
    inputs = model.processor(IMAGES, ["round", "square"])
    points = torch.tensor([[[[100.0, 40.0]]], [[[30.0, 200.0]]]])
    with torch.no_grad():
        embedding = model.vision(inputs.vlm_pixels, inputs.sam_pixels).embedding
        torch.testing.assert_close(
            embedding, sam.get_image_embeddings(inputs.sam_pixels), rtol=1e-4, atol=1e-5
        )
        theirs = sam(image_embeddings=embedding, input_points=points, multimask_output=False)
        # SamModel's prompt for a point is two tokens (the point and a padding point); ours is one. Give the
        # decoder the same two through the same parts.
        sparse = sam.prompt_encoder(points, torch.ones(2, 1, 1, dtype=torch.int), None, None)[0]
        head = model.mask_head
        ours = head.mask_decoder(
            image_embeddings=embedding,
            image_positional_embeddings=head.positions.expand(2, -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=head.prompt_encoder(None, None, None, None)[1].expand(2, -1, -1, -1),
            multimask_output=False,
        )
    torch.testing.assert_close(ours[0], theirs.pred_masks, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1], theirs.iou_scores, rtol=1e-4, atol=1e-5)


def test_one_mask_is_what_sam_makes_of_the_seg_embedding() -> None:
    """The whole mask head against SamModel with its prompt encoder replaced by the <SEG> embedding."""
    model = tiny_model(vision_source="vlm")
    sam = SamModel.from_pretrained(folders()[1], dtype=torch.float32).eval()
    prompts = torch.randn(3, 32, generator=torch.Generator().manual_seed(0))
    embedding = torch.randn(3, 32, 64, 64, generator=torch.Generator().manual_seed(1))
    dense = sam.prompt_encoder(None, None, None, None)[1].expand(3, -1, -1, -1)
    sam.prompt_encoder.forward = lambda **_: (prompts[:, None, None], dense)
    with torch.no_grad():
        theirs = sam(image_embeddings=embedding, multimask_output=False)
        ours, iou = model.mask_head(embedding, prompts)
    torch.testing.assert_close(ours, theirs.pred_masks[:, 0, 0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(iou, theirs.iou_scores[:, 0, 0], rtol=1e-4, atol=1e-5)


def test_post_processing_is_sams_own() -> None:
    from transformers.models.sam.image_processing_pil_sam import SamImageProcessorPil

    from modified_lisa.geometry import Frame

    logits = torch.randn(2, 256, 256, generator=torch.Generator().manual_seed(0))
    for height, width in ((480, 640), (1200, 300), (77, 77)):
        frame = Frame(height, width)
        theirs = SamImageProcessorPil().post_process_masks(
            [logits[:, None]], [[height, width]], [list(frame.content(1024))], binarize=False
        )[0][:, 0]
        torch.testing.assert_close(frame.mask_to_image(logits), theirs, rtol=1e-4, atol=1e-5)
