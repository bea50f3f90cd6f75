"""NF4's values looked up in registers: the inner loop of the kernels, in PTX.

A table in memory would cost a load for every weight. The instruction ``prmt`` takes four bytes out of eight by
four selectors of 4 bits, whose three lower bits say which; so a table of 16 values is, for each byte of a
value, two such instructions and a third that picks by the fourth bit. Four codes that lie side by side in a
word are four selectors as they are.
"""

import struct

import torch

from modified_lisa.model.nf4.packing import NF4_VALUES

__all__ = ["BF16_ASM", "FP16_ASM", "table_of"]


def _planes(values: list[bytes]) -> list[list[int]]:
    """For each byte of a value, that byte of all 16 values, as four words."""
    width = len(values[0])
    return [list(struct.unpack("<4I", bytes(value[byte] for value in values))) for byte in range(width)]


def _look_up(planes: list[list[int]], out: str) -> list[str]:
    """Four values, by the selectors ``s`` and the fourth bits in ``t``; byte plane p of them in ``{out}{p}``."""
    lines = []
    for number, (a, b, c, d) in enumerate(planes):
        lines += [
            f"prmt.b32 u, {a:#010x}, {b:#010x}, s;",
            f"prmt.b32 v, {c:#010x}, {d:#010x}, s;",
            f"prmt.b32 {out}{number}, u, v, t;",
        ]
    return lines


def _halves(source: str) -> list[list[str]]:
    """What makes ``s`` and ``t`` of the lower and of the upper four codes of a word."""
    select = ["and.b32 s, w, 0x7777;", "and.b32 t, w, 0x8888;", "shr.u32 t, t, 1;", "or.b32 t, t, 0x3210;"]
    return [[f"mov.b32 w, {source};", *select], [f"shr.u32 w, {source}, 16;", *select]]


def _block(registers: str, lines: list[str]) -> str:
    return "{ .reg .b32 w, s, t, u, v, " + registers + "; " + " ".join(lines) + " }"


def _asm16(values: list[bytes]) -> str:
    """A word in $8 -> eight values of 16 bits, $0 to $7."""
    planes = _planes(values)
    lines = []
    for half, select in enumerate(_halves("$8")):
        lines += [*select, *_look_up(planes, "p")]
        for low, pairs in enumerate(("0x5140", "0x7362")):
            first = 4 * half + 2 * low
            lines += [f"prmt.b32 u, p0, p1, {pairs};", f"mov.b32 {{${first}, ${first + 1}}}, u;"]
    return _block("p0, p1", lines)


def _bf16(value: float) -> bytes:
    """Rounded to nearest, ties to even."""
    bits = struct.unpack("<I", struct.pack("<f", value))[0]
    return struct.pack("<H", (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16)


_SIXTEEN = {
    torch.bfloat16: [_bf16(value) for value in NF4_VALUES],
    torch.float16: [struct.pack("<e", value) for value in NF4_VALUES],
}
BF16_ASM = _asm16(_SIXTEEN[torch.bfloat16])
FP16_ASM = _asm16(_SIXTEEN[torch.float16])


def table_of(dtype: torch.dtype) -> dict[str, str]:
    """The values in 16 bits, as the macros of `few_tokens.cu`: their lower bytes in four words, their higher ones."""
    planes = _planes(_SIXTEEN[dtype])
    return {
        f"{name}{number}": f"{word:#010x}u"
        for name, words in zip(("LOW", "HIGH"), planes, strict=True)
        for number, word in enumerate(words)
    }
