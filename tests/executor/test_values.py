"""The encoding: every plain value survives it exactly, and no bytes make the decoder do anything but refuse."""

# ruff: noqa: SIM105  a program stays on one line
from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections import Counter, OrderedDict, defaultdict
from enum import IntEnum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.executor.boundary import read_frame
from azr_mlx.executor.jobs import Status
from azr_mlx.executor.values import DecodeError, EncodeError, canonical, decode, encode, equal, has_nan, text
from azr_mlx.executor.values import same as same_runs

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters())  # lone surrogates included
    | st.binary()
)
keys = st.recursive(
    st.none() | st.integers() | st.text() | st.binary(), lambda k: st.tuples(k, k) | st.frozensets(k), max_leaves=4
)
plain = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(keys, inner) | st.sets(keys),
    max_leaves=20,
)


def same(first: Any, second: Any) -> bool:
    """Equal in type, order and bits: nan is nan, 0.0 is not -0.0, {1: 0, 2: 0} is not {2: 0, 1: 0}."""
    if type(first) is not type(second):
        return False
    if isinstance(first, float):
        return (first == second and math.copysign(1, first) == math.copysign(1, second)) or first != first != second
    if isinstance(first, complex):
        return same(first.real, second.real) and same(first.imag, second.imag)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return len(first) == len(second) and all(map(same, first.items(), second.items()))
    return bool(first == second)


@given(plain)
def test_any_plain_value_survives_the_encoding_exactly(value: Any) -> None:
    assert same(decode(encode(value)), value)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value_or_a_decode_error(data: bytes) -> None:
    try:
        value = decode(data)
    except DecodeError:
        return
    assert same(decode(encode(value)), value)


@given(plain, st.integers(0), st.binary(max_size=4))
def test_damaged_encodings_are_a_value_or_a_decode_error(value: Any, place: int, piece: bytes) -> None:
    data = encode(value)
    at = place % len(data)
    try:
        decode(data[:at] + piece + data[at + len(piece) :])
    except DecodeError:
        pass


@given(st.binary(max_size=200))
def test_any_bytes_on_the_result_pipe_are_a_status(data: bytes) -> None:
    for frame in (data, b"o" + data, b"x" + data):
        status, detail, values = read_frame(frame, 1000, 1)
        assert isinstance(status, Status)
        assert isinstance(detail, str)
        assert isinstance(values, tuple)


@given(st.binary(max_size=200))
def test_no_bytes_pass_a_test_without_its_token(data: bytes) -> None:
    assert read_frame(b"o" + data, 1000, 0, os.urandom(16))[0] is not Status.OK


def test_a_pickle_is_never_unpickled(tmp_path: Any) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "pwn"),)

    with pytest.raises(DecodeError):
        decode(pickle.dumps(Bomb()))
    assert not list(tmp_path.iterdir())


def test_an_int_of_five_thousand_digits_needs_no_decimal_text() -> None:
    assert decode(encode(10**5000)) == 10**5000


def test_special_floats_keep_their_bits() -> None:
    value = [float("nan"), float("inf"), -float("inf"), -0.0, 1e400]
    assert same(decode(encode(value)), value)


class Colour(IntEnum):
    RED = 1


class AlwaysEqual(int):
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = int.__hash__


class Meta(type):
    def __eq__(cls, other: object) -> bool:
        return True

    __hash__ = type.__hash__


class Liar(metaclass=Meta):
    def __len__(self) -> int:
        return 0

    def items(self) -> list[Any]:
        return []


@pytest.mark.parametrize("value", [Colour.RED, AlwaysEqual(3), Liar(), object(), len, range(3), bytearray(b"x"), int])
def test_only_exact_plain_types_are_data(value: object) -> None:
    with pytest.raises(EncodeError, match="not plain data"):
        encode([value])


@pytest.mark.parametrize("value", [Counter("aab"), OrderedDict(a=1), defaultdict(int, a=1)])
def test_the_dicts_of_collections_become_the_dict_they_equal(value: dict[Any, Any]) -> None:
    assert decode(encode(value)) == value
    assert type(decode(encode(value))) is dict


def test_size_and_depth_are_capped() -> None:
    cycle: list[Any] = []
    cycle.append(cycle)
    wide: list[Any] = [1]
    for _ in range(60):
        wide = [wide, wide]
    for value, why in (
        (cycle, "too deep"),
        (wide, "too large"),
        ("a" * 2_000_000, "too large"),
        (1 << 10**8, "too large"),
    ):
        with pytest.raises(EncodeError, match=why):
            encode(value)
    with pytest.raises(DecodeError):
        decode(b"l\x01\0\0\0" * 100_000 + b"N")
    with pytest.raises(DecodeError):
        decode(b"l\xff\xff\xff\xff" + b"N" * 100)


@pytest.mark.parametrize(
    ("first", "second", "answer"),
    [
        (1, 1.0, True),
        (1, True, True),
        ({1, 2}, {2, 1}, True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1], (1,), False),
        ("1", 1, False),
        (float("nan"), float("nan"), False),
        (0.1 + 0.2, 0.3, False),
        (AlwaysEqual(3), 3, False),
        (Liar(), {}, False),
    ],
)
def test_equality_is_pythons_on_plain_data_and_false_on_anything_else(first: Any, second: Any, answer: bool) -> None:
    assert equal(first, second) is answer


def test_one_nan_object_is_not_equal_to_itself_even_in_a_list() -> None:
    nan = float("nan")
    assert [nan] == [nan]  # Python's shortcut for identical objects
    assert not equal([nan], [nan])
    assert has_nan({"a": [1, (2, nan)]})


def test_canonical_bytes_ignore_the_order_of_sets_and_dicts_but_not_types() -> None:
    assert canonical({"a": 1, "b": 2}) == canonical({"b": 2, "a": 1})
    assert canonical([float("nan")]) == canonical([-float("nan")])
    assert len({canonical(value) for value in (1, 1.0, True, "1", [1], (1,), {1}, frozenset({1}))}) == 8


def reference(first: Any, second: Any) -> bool:
    """What `equal` means, without its bounds."""
    return not contains_nan(first) and not contains_nan(second) and bool(first == second)


def contains_nan(value: Any) -> bool:
    if isinstance(value, dict):
        return any(contains_nan(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(contains_nan, value))
    return bool(value != value)


near = st.sampled_from(
    [0, False, 0.0, -0.0, 0j, 1, True, 1.0, 1 + 0j, "", b"", (), [], float("nan"), float("inf"), 10**400]
)
alike = st.recursive(
    near,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(near.filter(lambda key: type(key) is not list), inner, max_size=3),
        st.sets(near.filter(lambda key: type(key) is not list), max_size=3),
        st.frozensets(near.filter(lambda key: type(key) is not list), max_size=3),
    ),
    max_leaves=6,
)


@given(alike, alike)
def test_equality_within_the_bounds_is_pythons(first: Any, second: Any) -> None:
    assert equal(first, second) is reference(first, second)
    assert equal(first, first) is reference(first, first)
    assert equal(second, first) is equal(first, second)


@given(alike | plain, alike | plain)
def test_two_runs_are_the_same_exactly_when_their_canonical_bytes_are(first: Any, second: Any) -> None:
    assert same_runs(first, second) is (canonical(first) == canonical(second))
    assert same_runs(first, decode(encode(first)))


@given(plain)
def test_the_text_of_a_value_is_its_repr_but_for_the_order_of_sets(value: Any) -> None:
    assert sorted(text(value)) == sorted(repr(value))
    if "{" not in repr(value):
        assert text(value) == repr(value)


def test_every_process_writes_a_set_in_the_same_order(root: Path) -> None:
    code = (
        "from azr_mlx.executor.values import text, steady_repr\n"
        "value = [{'b', 'a', 'c', 'd', 'e'}, {3, 1, 9, 17}, {1: frozenset({None, b'x', ('y', 1), ...})}]\n"
        "print(steady_repr(value), text([*value, 10**5000])[:-1])"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, cwd=root,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert len(said) == 1
    assert "[{'a', 'b', 'c', 'd', 'e'}, {" + repr({3, 1, 9, 17})[1:] in said.pop()
