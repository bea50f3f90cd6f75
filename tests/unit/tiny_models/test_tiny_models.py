"""The scripts that pretrain the bundled models: what they teach is what `ModifiedLISA` will read."""

import dataclasses

import numpy as np
import pytest
import torch

from factory import SAM, tiny_model
from modified_lisa import ModifiedLISA
from modified_lisa.model.tiny import VlmSizes, build_sam, build_vlm, save_sam, save_vlm

SIZES = VlmSizes(vision_width=16, vision_layers=4, vision_heads=2, width=32, layers=2, heads=2, mlp=32)


def example(tokenizer, seed=0, split="train"):
    from data import Maker
    from vlm import MEAN

    def encode(text):
        return list(tokenizer.encode(text, add_special_tokens=False))

    maker = Maker(336, "bicubic", MEAN, answer=encode, query=lambda text: encode(f"\n{text}"))
    return maker(np.random.default_rng(seed), split)


def test_an_example_says_what_is_where(tokenizer):
    from data import NAMES, PADDING

    made = example(tokenizer)
    assert made.square.shape == (3, 336, 336)
    found = set(np.unique(made.labels).tolist()) - {0, PADDING}
    assert found == {number + 1 for number in range(len(found))}
    kinds = made.words.names[0]
    assert (kinds[list(found)] > 0).all()
    assert kinds.max() <= len(NAMES["kind"])
    assert all(set(targets) <= {label - 1 for label in found} for _, targets, _ in made.words.queries)


def test_the_state_that_learns_to_point_is_the_one_that_becomes_a_mask(tokenizer, tmp_path):
    """Packed among others and behind one image, a query has the state that ModifiedLISA sees at <SEG>."""
    from data import normalised
    from packer import SEG, Packer
    from vlm import MEAN, STD, Learner

    torch.manual_seed(0)
    vlm = build_vlm(tokenizer, SIZES).eval()
    save_vlm(tmp_path / "vlm", vlm, tokenizer)
    save_sam(tmp_path / "sam", build_sam(SAM))
    model = ModifiedLISA(
        str(tmp_path / "vlm"), str(tmp_path / "sam"), dtype="fp32", quantize=False, device="cpu"
    )
    made = example(tokenizer)
    learner = Learner(vlm, tokenizer).eval()
    packed = Packer(tokenizer, 376).pack([made.words], np.random.default_rng(0))
    pixels = normalised(torch.from_numpy(made.square)[None], MEAN, STD)
    states = []
    learner.heads.projection.register_forward_hook(lambda _module, given, _out: states.append(given[0]))
    with torch.no_grad():
        learner(pixels, packed)
        place = int(packed["at"][0, 3])
        segment = packed["segment"][0] == packed["segment"][0, place]
        ids = packed["ids"][0][segment]
        assert int(ids[-1]) == SEG
        inputs = model.processor(
            [np.zeros((336, 336, 3), np.uint8)], [tokenizer.decode(ids[:-1]).removeprefix("\n")]
        )
        encoding = model.vision(pixels, None)
        theirs = model.seg_states(encoding.tokens, inputs)[0]
    torch.testing.assert_close(states[0][0, 3], theirs, atol=2e-5, rtol=1e-4)


def test_both_trainings_take_steps(tokenizer):
    import sam as sam_script
    import vlm as vlm_script
    from optimizers import make_optimizer
    from packer import Packer

    torch.manual_seed(0)
    made = [example(tokenizer, seed) for seed in range(2)]
    squares = torch.stack([torch.from_numpy(one.square) for one in made])
    labels = torch.stack([torch.from_numpy(one.labels).long() for one in made])
    words = [one.words for one in made]
    learner = vlm_script.Learner(build_vlm(tokenizer, SIZES), tokenizer)
    optimizer = make_optimizer([learner], 3e-3, torch.device("cpu"))
    packed = Packer(tokenizer, 120).pack(words, np.random.default_rng(0))
    seen = []
    for _ in range(6):
        losses, iou = learner.losses(squares, labels, packed)
        assert set(losses) == set(vlm_script.WEIGHTS)
        assert iou.shape == packed["at"].shape
        total = sum(vlm_script.WEIGHTS[name] * loss for name, loss in losses.items())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        seen.append(total.item())
    assert seen[-1] < seen[0]

    from torch.nn import functional

    small = torch.from_numpy(np.stack([one.square for one in made])).float()
    small = functional.interpolate(small, (512, 512)).to(torch.uint8)
    of_sam = sam_script.Learner(build_sam(sam_script_sizes()))
    chosen = sam_script.choose(words, np.random.default_rng(1))
    loss, ious = of_sam(small, labels, chosen)
    loss.backward()
    assert torch.isfinite(loss)
    assert set(ious) == set(sam_script.WAYS)
    assert of_sam.sam.vision_encoder.patch_embed.projection.weight.grad is not None


def sam_script_sizes():
    from modified_lisa.model.tiny import SamSizes

    return SamSizes(width=16, layers=1, heads=2, channels=16, decoder_mlp=16, decoder_heads=2)


def test_packed_rows_hold_whole_queries_only(tokenizer):
    from vlm import SEG, Packer

    words = [example(tokenizer, seed).words for seed in range(3)]
    packed = Packer(tokenizer, 200).pack(words, np.random.default_rng(0))
    assert packed["ids"].shape == (3, 832)
    for row in range(3):
        ends = packed["at"][row][packed["at"][row] >= 0]
        assert (packed["ids"][row][ends] == SEG).all()
        assert int((packed["ids"][row] == SEG).sum()) == len(ends)
        assert len(set(packed["segment"][row][ends].tolist())) == len(ends)


def test_muon_is_that_of_torch_for_matrices_of_any_shape():
    from optimizers import Muon

    def trained(make):
        torch.manual_seed(0)
        matrices = [torch.nn.Parameter(torch.randn(shape)) for shape in ((8, 4), (4, 8), (8, 4), (6, 6))]
        unused = torch.nn.Parameter(torch.ones(8, 4))
        optimizer = make([*matrices, unused])
        for _ in range(4):
            optimizer.zero_grad()
            sum((matrix**2).sum() + matrix.sin().sum() for matrix in matrices).backward()
            optimizer.step()
        assert (unused == 1).all()
        return matrices

    ours = trained(lambda matrices: Muon(matrices, lr=0.02, weight_decay=0.1))
    theirs = trained(
        lambda matrices: torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    )
    # Both iterate in bf16, in another order of operations.
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=2e-3, rtol=0)


def test_a_patch_knows_where_its_object_ends():
    from data import PADDING, patch_boxes

    labels = torch.zeros(1, 48, 48, dtype=torch.long)
    labels[0, 12:36, 6:42] = 2
    labels[0, :, 46:] = PADDING
    centres = labels[:, 1::2, 1::2].flatten(1)
    boxes, visible = patch_boxes(labels, centres)
    assert visible.sum() == (centres == 2).sum()
    place = 8 * 24 + 9  # the patch of rows 16 and 17, columns 18 and 19
    x, y = 9.5 / 24, 8.5 / 24
    wanted = [4 * (x - 6 / 48), 4 * (y - 12 / 48), 4 * (42 / 48 - x), 4 * (36 / 48 - y)]
    torch.testing.assert_close(boxes[0, place, :4], torch.tensor(wanted))
    torch.testing.assert_close(boxes[0, place, 4], torch.tensor(24 * 36 / 48**2).log())


def test_a_learning_rate_rises_stays_and_falls():
    from optimizers import rate_at

    assert rate_at(0.015, 1.0) < 0.6
    assert rate_at(0.3, 1.0, hold=0.4) == rate_at(0.4, 1.0, hold=0.4)
    assert rate_at(0.7, 1.0, hold=0.4) < rate_at(0.5, 1.0, hold=0.4)
    assert rate_at(1.0, 1.0, hold=0.4) < 0.01
    assert rate_at(1.0, 1.0, hold=1.0) > 0.99


@pytest.mark.parametrize(
    "options",
    [{}, {"vision_source": "dual"}, {"vision_source": "sam"}, {"train_projector": True}, {"lora_r": 2}],
)
def test_packed_queries_train_as_the_model_trains_them(options):
    """The same masks, and the same gradients, as a batch of the queries one by one."""
    from data import MAX_OBJECTS, Words
    from packed import Texts, decode

    model = tiny_model(**options, lora_dropout=0.0).train()
    texts = Texts(model.processor)
    rng = np.random.default_rng(0)
    names = [name for name in ("vlm", "sam") if getattr(model.processor, f"{name}_image")]
    squares = {
        name: torch.from_numpy(
            rng.integers(0, 256, (2, 3, *[getattr(model.processor, f"{name}_image").side] * 2), np.uint8)
        )
        for name in names
    }
    asked = [
        ["the one that could roll", "all that is not round"],
        ["which of these would keep me dry?", "it"],
    ]
    words = [
        Words(np.zeros(0), queries=[([texts.encode(text)], (MAX_OBJECTS - 1,), 0) for text in queries])
        for queries in asked
    ]
    packed = texts.pack(words, rng, 2)
    given = {"squares": squares[names[0]], "sam_squares": squares["sam"] if len(names) > 1 else None}
    logits, _ = decode(model, texts, batch=packed, learns_words=True, **given)
    logits.square().mean().backward()
    ours = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}

    model.zero_grad()
    inputs = [
        dataclasses.replace(
            model.processor([np.zeros((8, 8, 3), np.uint8)], [asked[row][number]]),
            vlm_pixels=_normalised(squares, "vlm", row, model),
            sam_pixels=_normalised(squares, "sam", row, model),
        )
        for row, number in zip(packed["rows"].tolist(), packed["numbers"].tolist(), strict=True)
    ]
    with torch.autocast("cpu", enabled=False):
        theirs = torch.cat([model.compute(one)[1] for one in inputs])
    theirs.square().mean().backward()
    assert _distance(logits, theirs) < 0.05  # the packed head's products are bf16 here
    for name, weight in model.named_parameters():
        if weight.requires_grad and "iou_prediction_head" not in name:
            assert weight.grad is not None, name
            if weight.grad.norm() > 1e-4:
                assert _distance(ours[name], weight.grad) < 0.25, name


def _normalised(squares, name, row, model):
    from data import normalised

    spec = getattr(model.processor, f"{name}_image")
    return None if spec is None else normalised(squares[name][row : row + 1], spec.mean, spec.std)


def _distance(one, other):
    return ((one - other).norm() / other.norm()).item()


def test_words_that_training_never_saw_follow_those_that_it_saw(tokenizer):
    """What a word means goes through the projection; the VLM's table holds it afterwards."""
    from packer import Packer
    from vlm import MEAN, STD, Learner, normalised

    torch.manual_seed(0)
    vectors = torch.nn.functional.normalize(torch.randn(len(tokenizer), 24), dim=1)
    vectors[: len(tokenizer.all_special_ids)] = 0
    seen, unseen = 300, 301
    vectors[unseen] = vectors[seen]
    vlm = build_vlm(tokenizer, SIZES)
    learner = Learner(vlm, tokenizer, vectors)
    optimizer = torch.optim.SGD(learner.words.parameters(), lr=0.5)
    for _ in range(60):
        optimizer.zero_grad()
        (learner.words(torch.tensor([seen])) - 1).pow(2).mean().backward()
        optimizer.step()
    learner.settle()
    table = vlm.get_input_embeddings().weight
    assert (table[seen] - 1).abs().mean() < 0.1
    assert (table[unseen] - 1).abs().mean() < 0.4 < (table[unseen + 1] - 1).abs().mean()

    made = example(tokenizer)
    packed = Packer(tokenizer, 120).pack([made.words], np.random.default_rng(0))
    pixels = normalised(torch.from_numpy(made.square)[None], MEAN, STD)
    plain = Learner(vlm, tokenizer).eval()
    plain.heads.load_state_dict(learner.heads.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(plain(pixels, packed)[1], learner.eval()(pixels, packed)[1])
