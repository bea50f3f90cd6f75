"""Pickles: plain values come through whatever wrote them, anything that could run code does not."""

import datetime
import os
import pickle
import pickletools
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modified_lisa.data.plain_pickle import read_plain_pickle
from modified_lisa.errors import DataError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(PLAIN, st.integers(3, pickle.HIGHEST_PROTOCOL))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_plain_values_come_through(tmp_path: Path, value: Any, protocol: int) -> None:
    file = tmp_path / "x.p"
    file.write_bytes(pickle.dumps(value, protocol))
    assert read_plain_pickle(file) == value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_sets_and_old_protocols(tmp_path: Path, protocol: int) -> None:
    value = [{"sent": "größer", "ids": {1, 2}, "box": (1, 2.5)}, frozenset({3}), None, True]
    (tmp_path / "x.p").write_bytes(pickle.dumps(value, protocol))
    assert read_plain_pickle(tmp_path / "x.p") == value


def test_strings_of_python_2(tmp_path: Path) -> None:
    # What cPickle of Python 2 writes for [{'sent': 'caf\xc3\xa9'}, u'caf\xe9'] in protocol 2 and in protocol 0.
    (tmp_path / "two.p").write_bytes(
        b"\x80\x02]q\x01(}q\x02U\x04sentq\x03U\x05caf\xc3\xa9q\x04sX\x05\x00\x00\x00caf\xc3\xa9q\x05e."
    )
    (tmp_path / "zero.p").write_bytes(b"(lp1\n(dp2\nS'sent'\np3\nS'caf\\xc3\\xa9'\np4\nsaVcaf\xe9\np5\na.")
    for name in ("two.p", "zero.p"):
        assert read_plain_pickle(tmp_path / name) == [{"sent": "café"}, "café"]


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    "value",
    [
        Evil(),
        [{"deep": (Evil(),)}],
        OrderedDict(a=1),
        np.float64(1.0),
        datetime.date(2026, 1, 1),
        Path("x"),
        len,
        getattr,
        1j,
        bytearray(b"x"),
        {"class": dict},
    ],
)
def test_anything_else_is_refused(tmp_path: Path, monkeypatch, value: Any) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        if isinstance(value, bytearray) and protocol == 5:
            continue  # an opcode of its own there, and as plain as bytes
        Path("x.p").write_bytes(pickle.dumps(value, protocol))
        with pytest.raises(DataError, match=r"x\.p.*only plain values"):
            read_plain_pickle("x.p")
    assert not Path("ran").exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cbuiltins\nset\n}(Vpop\nI1\nub.",  # sets an attribute of the class
        b"cbuiltins\nset.__init__\n.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.",
        b"\x80\x02\x82\x01.",  # an extension code
        b"Pmoon\n.",
        b"ios\nsystem\n.",
        b"(S'ls'\nios\nsystem\n.",
    ],
)
def test_hand_made_programs(tmp_path: Path, program: bytes) -> None:
    file = tmp_path / "x.p"
    file.write_bytes(program)
    with pytest.raises(DataError, match=r"x\.p"):
        read_plain_pickle(file)
    assert {1}.pop() == 1


@given(st.binary(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
def test_noise_is_refused_or_plain(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "x.p"
    file.write_bytes(data)
    try:
        value = read_plain_pickle(file)
    except DataError:
        return
    names = {opcode.name for opcode, _, _ in pickletools.genops(data)}
    assert not names & {"REDUCE", "INST", "OBJ", "NEWOBJ"} or isinstance(
        value, set | frozenset | list | dict | tuple
    )


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        read_plain_pickle(tmp_path / "none.p")
    with pytest.raises(DataError, match="cannot be read"):
        read_plain_pickle(tmp_path)
    (tmp_path / "x.p").write_bytes(pickle.dumps([1, 2, 3])[:-4])
    with pytest.raises(DataError, match="damaged"):
        read_plain_pickle(tmp_path / "x.p")
