"""NF4 matrices in this package's order stand for bitsandbytes' weights, bit by bit."""

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Params4bit
from hypothesis import given
from hypothesis import strategies as st

from modified_lisa.model.nf4 import decoding, few_tokens, linear, lookup
from modified_lisa.model.nf4.ahead import DecodeAhead, current
from modified_lisa.model.nf4.compact import compact
from modified_lisa.model.nf4.linear import NF4Linear, merge_nf4, suits
from modified_lisa.model.nf4.packing import GROUP, NF4_VALUES, decode, pack


def linear4bit(rows: int, columns: int, seed: int = 0, **changes) -> Linear4bit:
    options = {"quant_type": "nf4", "compress_statistics": True, "blocksize": 64} | changes
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02
    layer = Linear4bit(
        columns, rows, bias=False, compute_dtype=torch.bfloat16, quant_type=options["quant_type"]
    )
    layer.weight = Params4bit(weight, requires_grad=False, **options)
    return layer.to("cpu")


def decoded(layer: Linear4bit) -> torch.Tensor:
    return dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(torch.bfloat16)


@pytest.mark.parametrize(("rows", "columns"), [(1, 128), (200, 384), (96, 1408)])
def test_the_same_weights_in_as_many_bytes(rows, columns):
    layer = linear4bit(rows, columns)
    ours = NF4Linear.from_bitsandbytes(layer)
    assert torch.equal(decode(ours.packed, torch.bfloat16), decoded(layer))
    assert ours.codes.nbytes == layer.weight.data.nbytes
    assert (ours.out_features, ours.in_features) == (rows, columns)


def test_a_cast_leaves_the_scales():
    layer = linear4bit(96, 128)
    ours = NF4Linear.from_bitsandbytes(layer).half()
    assert {part.dtype for part in ours.packed} == {torch.int32, torch.uint8, torch.float32}
    assert torch.equal(decode(ours.packed, torch.bfloat16), decoded(layer))
    assert ours.to("meta").codes.is_meta
    assert ours.offset.is_meta


def test_rows_must_hold_whole_pairs_of_blocks():
    with pytest.raises(ValueError, match="192 weights; it must be a multiple of 128"):
        pack(torch.zeros(96, dtype=torch.uint8), 192)
    assert not suits(linear4bit(4, 192))


@pytest.mark.parametrize(
    "changes", [{"quant_type": "fp4"}, {"compress_statistics": False}, {"blocksize": 128}]
)
def test_other_kinds_of_quantisation_stay_with_bitsandbytes(changes):
    assert suits(linear4bit(8, 256))
    assert not suits(linear4bit(8, 256, **changes))


def test_merged_layers_are_views_of_one():
    layers = [linear4bit(rows, 256, seed) for seed, rows in enumerate((128, 64, 256))]
    ours = [NF4Linear.from_bitsandbytes(layer) for layer in layers]
    merged = merge_nf4(ours)
    assert merged is not None
    whole = torch.cat([decoded(layer) for layer in layers])
    assert torch.equal(decode(merged.packed, torch.bfloat16), whole)
    for part, layer in zip(ours, layers, strict=True):
        assert part.codes.untyped_storage().data_ptr() == merged.codes.untyped_storage().data_ptr()
        assert torch.equal(decode(part.packed, torch.bfloat16), decoded(layer))


@pytest.mark.parametrize("chunk", [1, 20_000, 10**9])
def test_moved_together_they_are_the_same_weights_and_share_what_they_shared(chunk):
    parts = [
        NF4Linear.from_bitsandbytes(linear4bit(rows, 256, seed)) for seed, rows in enumerate((64, 128, 64))
    ]
    merged, alone = merge_nf4(parts), NF4Linear.from_bitsandbytes(linear4bit(48, 384, 9))
    layers = [*parts, merged, alone]
    before = [decode(layer.packed, torch.bfloat16) for layer in layers]
    old = {layer.codes.untyped_storage().data_ptr() for layer in layers}
    compact(layers, chunk)
    for layer, wanted in zip(layers, before, strict=True):
        assert torch.equal(decode(layer.packed, torch.bfloat16), wanted)
        assert layer.scale_codes.stride(1) == 1
        assert all(tensor.data_ptr() % 16 == 0 for tensor in (layer.codes, layer.scale_codes))
        assert layer.locks.data_ptr() % 4 == 0
    new = {layer.codes.untyped_storage().data_ptr() for layer in layers}
    assert not new & old
    assert len(new) in {1: [2], 20_000: [1, 2], 10**9: [1]}[chunk]
    parts[1].codes.zero_()
    assert (merged.codes[64:192] == 0).all(), "still views of the merged layer"


def test_what_was_merged_is_moved_without_what_it_was_merged_from():
    layers = [NF4Linear.from_bitsandbytes(linear4bit(256, 512, seed)) for seed in range(3)]
    compact(layers)
    together = layers[0].codes.untyped_storage()
    merged = merge_nf4(layers[:2])
    compact([*layers, merged])
    again = layers[2].codes.untyped_storage()
    assert merged.codes.untyped_storage().data_ptr() == again.data_ptr() != together.data_ptr()
    assert again.nbytes() <= together.nbytes() + 10 * 256


def test_layers_that_share_a_scale_of_scales_cannot_be_merged():
    ours = [NF4Linear.from_bitsandbytes(linear4bit(rows, 128)) for rows in (3, 128)]
    assert merge_nf4(ours) is None


def prmt(low: int, high: int, selectors: int) -> int:
    """PTX's byte permutation, mode without sign."""
    pool, out = (high << 32) | low, 0
    for place in range(4):
        chosen = (selectors >> (4 * place)) & 15
        assert chosen < 8, "the fourth bit would ask for a sign"
        out |= ((pool >> (8 * chosen)) & 255) << (8 * place)
    return out


def run(assembly: str, word: int) -> list[int]:
    """The eight results of one of `lookup`'s programs."""
    registers = {"$8": word}

    def value(name: str) -> int:
        return int(name, 16) if name.startswith("0x") else registers[name]

    body = assembly[assembly.index(";") + 1 : assembly.rindex("}")]
    for line in filter(None, (part.strip() for part in body.split(";"))):
        operation, rest = line.split(" ", 1)
        if pair := re.match(r"\{(\$\d), (\$\d)\}, (\w+)", rest):
            registers[pair[1]], registers[pair[2]] = registers[pair[3]] & 0xFFFF, registers[pair[3]] >> 16
            continue
        target, *given_ = (part.strip() for part in rest.split(","))
        if operation == "prmt.b32":
            *pool, selectors = map(value, given_)
            registers[target] = prmt(*pool, selectors & 0xFFFF)
        elif operation == "and.b32":
            registers[target] = value(given_[0]) & value(given_[1])
        elif operation == "or.b32":
            registers[target] = value(given_[0]) | value(given_[1])
        elif operation == "shr.u32":
            registers[target] = value(given_[0]) >> int(given_[1])
        else:
            assert operation == "mov.b32", line
            registers[target] = value(given_[0])
    return [registers[f"${place}"] for place in range(8)]


@given(st.integers(0, 2**32 - 1))
def test_the_look_up_in_registers_is_the_table(word):
    values = torch.tensor(NF4_VALUES)[[(word >> (4 * place)) & 15 for place in range(8)]]
    for assembly, dtype in ((lookup.BF16_ASM, torch.bfloat16), (lookup.FP16_ASM, torch.float16)):
        halves = torch.tensor(run(assembly, word), dtype=torch.int32).to(torch.int16).view(dtype)
        assert torch.equal(halves, values.to(dtype))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_table_in_macros_is_that_of_the_values(dtype):
    table = {name: bytes.fromhex(text[2:-1])[::-1] for name, text in lookup.table_of(dtype).items()}
    low, high = (b"".join(table[f"{name}{number}"] for number in range(4)) for name in ("LOW", "HIGH"))
    values = torch.frombuffer(
        bytearray(byte for both in zip(low, high, strict=True) for byte in both), dtype=dtype
    )
    assert torch.equal(values, torch.tensor(NF4_VALUES).to(dtype))


@given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 200), st.integers(1, 3))
def test_columns_are_cut_into_parts_that_are_there(tiles, groups, processors, blocks):
    parts = few_tokens.parts_of(few_tokens.ROWS * tiles, GROUP * groups, processors, blocks)
    assert parts in few_tokens.PARTS
    assert parts <= groups


def test_where_decoding_cannot_be_compiled_bitsandbytes_multiplies(monkeypatch, caplog):
    def missing(*_):
        raise OSError("libnvrtc.so.13 is not installed")

    monkeypatch.setattr(decoding, "compile_cubin", missing)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(linear, "why_not_bf16", lambda device: None)
    for cached in (decoding.why_not_decoded, decoding._kernel):
        cached.cache_clear()
    model = torch.nn.Sequential(linear4bit(128, 128), linear4bit(64, 128))
    with caplog.at_level("INFO"):
        assert linear.use_fast_nf4(model) == (0, 2)
    assert (
        "2 by bitsandbytes (a kernel could not be compiled: libnvrtc.so.13 is not installed)" in caplog.text
    )
    decoding.why_not_decoded.cache_clear()


def test_a_narrow_matrix_is_cut_and_a_wide_one_is_not():
    assert few_tokens.parts_of(4096, 4096, 132, blocks=2) == 6  # 32 tiles of rows for 132 processors
    assert few_tokens.parts_of(few_tokens.ROWS * 132, 1024, 132, blocks=2) == 1


def test_shared_memory_is_what_a_block_may_have():
    for tiles, shape in few_tokens.SHAPES.items():
        assert few_tokens.fitted(tiles, 227 * 1024, 228 * 1024) == shape, "Hopper has room for all of it"
        small = few_tokens.fitted(tiles, 99 * 1024, 100 * 1024)  # compute capability 12
        assert small is not None
        assert small.stages >= 2
        assert few_tokens.shared_bytes(tiles, small.stages) <= 99 * 1024
        assert few_tokens.fitted(tiles, 40 * 1024, 40 * 1024) is None
        room = few_tokens.shared_bytes(tiles, small.stages)
        assert 8 * tiles * (few_tokens.ROWS + 4) * 4 <= room - 33 * 1024, "the sums take the stages' place"
    assert 8 * max(few_tokens.SHAPES) == few_tokens.MOST_TOKENS


def test_another_order_than_the_one_learned_is_an_error():
    ahead = DecodeAhead(torch.device("cpu"))
    layer = object()
    with ahead.following():
        assert current() is ahead
        with pytest.raises(RuntimeError, match="another order"):
            ahead.weight(layer)
    assert current() is None


def test_what_another_thread_multiplies_is_none_of_it():
    ahead = DecodeAhead(torch.device("cpu"))
    with ahead.learning(), ThreadPoolExecutor(1) as pool:
        assert current() is ahead
        assert pool.submit(current).result() is None
