"""Whatever a model writes and whatever its programs send: a value or a refusal, at a cost bounded beforehand."""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr_mlx.executor import boundary, literals, values, wire
from azr_mlx.executor.boundary import Refused
from azr_mlx.executor.jobs import Status

PRIME = (1 << 61) - 1  # of CPython's hash of numbers: its multiples all have the hash 0


@pytest.fixture(autouse=True)
def _no_exception_that_nobody_expected() -> Iterator[None]:
    """A refusal for a reason is what the boundary is for; one because of an exception it does not know is a fault."""
    boundary.faults.clear()
    yield
    assert boundary.faults == Counter()


# ------------------------------------------------------------------------------------------- texts, bytes, structures

_TOKENS = """1 -1 0 1.5 1e400 inf nan 'a' b'a' None True ( ) [ ] { } , : = + - * ** / // % << >> ~ not and or if in for
        lambda x . ; # \\ f'{1}' await yield := Counter( dict( set( float( frozenset( OrderedDict( ... _ @ 0x 1j 1_0
        9**9**9 1<<10**9 'a'*10**9 [0]*10**9 2**61-1 0xffffffffffffffff"""
_MARKS = [" ", "\n", "\x00", "\ud800", "\u202e", "'''", "\x0c", "\N{MATHEMATICAL BOLD DIGIT ONE}"]
soup = st.lists(st.sampled_from([*_TOKENS.split(), *_MARKS]), max_size=30).map("".join)
_OPENINGS = ["(", "[", "{", "-", "~", "not ", "lambda:", "f(", "[*", "{**", "1+", "f'{"]
deep = st.tuples(st.sampled_from(_OPENINGS), st.integers(0, 20_000)).map(lambda pair: pair[0] * pair[1])
numbers = st.one_of(
    st.integers().map(str),
    st.floats().map(repr),
    st.integers(0, 1 << 70).map(lambda k: f"{k}*(2**61-1)"),  # one hash
    st.integers(0, 1 << 16).map(lambda k: f"1<<{k}"),
    st.integers(0, 1 << 16).map(lambda k: "0x" + "f" * (k // 4)),
    st.sampled_from(["-0.0", "nan", "1j", "True", "None", "...", "2**10000", "9" * 4300, "9" * 4301]),
)
# Literals that share, multiply and collide: small texts with large meanings.
factors = st.integers(-3, 1 << 40) | st.integers(0, 300)


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    many = st.lists(inner, max_size=5).map(", ".join)
    return st.one_of(
        many.map(lambda items: f"[{items}]"),
        many.map(lambda items: f"({items},)"),
        many.map(lambda items: f"{{{items}}}"),
        many.map(lambda items: f"set([{items}])"),
        many.map(lambda items: f"frozenset({{{items}}})"),
        st.tuples(inner, inner).map(lambda pair: f"{{{pair[0]}: {pair[1]}}}"),
        st.tuples(inner, factors).map(lambda pair: f"[{pair[0]}]*{pair[1]}"),
        st.tuples(inner, factors).map(lambda pair: f"({pair[0]},)*{pair[1]}"),
        st.tuples(inner, factors).map(lambda pair: f"[*{pair[0]}, *{pair[0]}]*{pair[1]}"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) + ({pair[1]})"),
        st.tuples(inner, inner).map(lambda pair: f"({pair[0]}) ** ({pair[1]})"),
        inner.map(lambda text: f"Counter({text})"),
        inner.map(lambda text: f"dict([({text}, {text})])"),
        inner.map(lambda text: f"{{**{text}, **{text}}}"),
    )


structures = st.recursive(numbers | st.text(max_size=5).map(repr), _larger, max_leaves=25)
texts = st.one_of(st.text(max_size=200), soup, deep, structures)


def encoded(tag: bytes, pieces: list[bytes]) -> bytes:
    count = len(pieces) // 2 if tag == b"d" else len(pieces)
    return tag + struct.pack("<I", count) + b"".join(pieces)


def colliding(count: int, tag: bytes = b"S") -> bytes:
    """A set (or dict) of `count` different integers of one hash."""
    pieces: list[bytes] = []
    for k in range(1, count + 1):
        pieces += [values.encode(k * PRIME)] + ([b"N"] if tag == b"d" else [])
    return encoded(tag, pieces)


def framed(*pieces: bytes) -> bytes:
    """What an honest child would write for values of these encodings."""
    return b"o" + b"".join(struct.pack("<I", len(piece)) + piece for piece in pieces)


leaves = st.sampled_from([b"N", b"T", b"E", b"l\0\0\0\0", b"S\0\0\0\0", b"d\0\0\0\0", b"Z\0\0\0\0"]) | st.builds(
    values.encode, st.integers() | st.floats() | st.text() | st.binary() | st.integers(0, 99).map(lambda k: k * PRIME)
)
encodings = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(encoded, st.sampled_from([b"l", b"t", b"S", b"Z", b"d"]), st.lists(inner, max_size=4)),
        st.builds(lambda piece, n: encoded(b"l", [piece] * (n // len(piece))), inner, st.integers(0, 20_000)),
        st.builds(colliding, st.integers(0, 200), st.sampled_from([b"S", b"d"])),
    ),
    max_leaves=15,
)
frames = st.one_of(
    st.binary(max_size=300),
    st.binary(max_size=300).map(lambda data: b"o" + data),
    st.lists(encodings, max_size=4).map(lambda pieces: framed(*pieces)),
    st.tuples(encodings, st.integers(0), st.binary(max_size=4)).map(
        lambda found: framed(found[0][: found[1] % (len(found[0]) + 1)] + found[2])
    ),
)


def cells(value: Any) -> int:
    """Values in a value, each counted as often as it stands there. Shared parts are counted once and multiplied."""
    known: dict[int, int] = {}

    def count(part: Any) -> int:
        if type(part) not in (list, tuple, set, frozenset, dict):
            return 1
        if id(part) not in known:
            inner = [*part, *part.values()] if type(part) is dict else part
            known[id(part)] = 1 + sum(map(count, inner))
        return known[id(part)]

    return count(value)


def most_of_one_hash(value: Any) -> int:
    """The largest number of items of one hash in any set or dict of a value."""
    found = 0
    for part in value.values() if type(value) is dict else value if type(value) in (list, tuple) else ():
        found = max(found, most_of_one_hash(part))
    if type(value) in (set, frozenset, dict) and value:
        found = max(found, *Counter(map(hash, value)).values())
    return found


# ---------------------------------------------------------------------------------------------------- for all of them


@given(texts, texts)
@settings(max_examples=400)
def test_any_text_is_a_value_within_the_bounds_or_a_refusal(text: str, gold: str) -> None:
    value = boundary.read_value(text)
    if not isinstance(value, Refused):
        assert cells(value) <= literals.MAX_CELLS
        assert most_of_one_hash(value) <= values.MAX_SAME_HASH
        assert isinstance(boundary.shown(value), str)
        assert isinstance(boundary.write_gold(value, 400), str | Refused)
        assert isinstance(boundary.agree([value], [value], 1 << 20), bool | Refused)
        assert isinstance(boundary.matches(gold, value), bool | Refused)
    elif not value.detail:
        assert value.why
    assert isinstance(boundary.read_arguments(text), tuple | Refused)
    assert boundary.check_call(text) is None or isinstance(boundary.check_call(text), Refused)
    assert boundary.check_gold(text) is None or isinstance(boundary.check_gold(text), Refused)
    assert isinstance(boundary.encodable(text), bool)


@given(frames, st.integers(0, 4))
@settings(max_examples=400)
def test_any_bytes_of_a_program_are_as_many_values_as_asked_for_or_no_ok(frame: bytes, count: int) -> None:
    status, detail, found = boundary.read_frame(frame, 1 << 20, count)
    assert isinstance(status, Status)
    assert isinstance(detail, str)
    assert len(found) == (count if status is Status.OK else 0)
    for value in found:
        assert cells(value) <= len(frame)
        assert most_of_one_hash(value) <= values.MAX_SAME_HASH
        assert isinstance(boundary.shown(value), str)
        assert isinstance(boundary.write_gold(value, 400), str | Refused)
    assert isinstance(boundary.agree(found, found[::-1], 1 << 20), bool | Refused)
    assert isinstance(boundary.all_match(["1", "[nan]", "("], found), bool | Refused)


@given(structures)
@settings(max_examples=300)
def test_a_gold_text_is_one_that_its_own_value_answers(text: str) -> None:
    value = boundary.read_value(text)
    gold = Refused("") if isinstance(value, Refused) else boundary.write_gold(value, 2000)
    if isinstance(gold, str):
        assert boundary.matches(gold, value) is True
        assert boundary.matches(gold, boundary.read_value(gold)) is True
        assert boundary.check_gold(gold) is None


# ---------------------------------------------------------------------------------------------------- one at a time


@pytest.mark.parametrize(
    "text",
    [
        "[[0]*6000]*6000",
        "[[0]*131072]*131072",
        "[[[[0]*99]*99]*99]*99",
        "([0]*60000, [0]*60000)",
        "{1: [0]*60000, 1: [0]*60000}",  # paid for, though not kept
        "[*[0]*60000, *[0]*60000]",
        "not [0]*99999",
        "'a'*99999999",
        "['a'*100000]*9",
        "[2**16000]*9999",
        "[" + ",".join(["(1<<16000)//(1<<8000)"] * 700) + "]",
        "{" + ",".join(f"{k}*(2**61-1)" for k in range(1, 900)) + "}",
        "{" + ",".join(f"{k}*(2**61-1):0" for k in range(1, 900)) + "}",
        "Counter([" + ",".join(f"{k}*(2**61-1)" for k in range(1, 900)) + "])",
        "{" + ",".join(f"1<<{61 * k}" for k in range(60)) + "}",
        "0" * 20_000,
    ],
    ids=lambda text: text[:30],
)
def test_what_means_too_much_is_refused_however_short_it_is(text: str) -> None:
    assert isinstance(boundary.read_value(text), Refused)
    assert isinstance(boundary.read_arguments(text), Refused)
    assert boundary.check_gold(text) is not None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[0]*1000", [0] * 1000),
        ("[[0]*50]*50", [[0] * 50] * 50),
        ("set([0]*1000)", {0}),  # equal items share a hash by right
        ("{*[1, 1.0, True]*100}", {1}),
        ("Counter('a'*1000)", {"a": 1000}),
        ("dict([(1, 2)]*100)", {1: 2}),
        ("{2**k: 0 for k in ()}", None),
        ("{-1, -2}", {-1, -2}),  # one hash, and honest
        ("list(range(3))", None),
        (repr(set(range(2000))), set(range(2000))),
    ],
)
def test_honest_literals_are_read(text: str, value: Any) -> None:
    found = boundary.read_value(text)
    assert isinstance(found, Refused) if value is None else found == value


@pytest.mark.parametrize("tag", [b"S", b"d"])
@pytest.mark.parametrize("count", [values.MAX_SAME_HASH + 1, 900, 18_000, 200_000])
def test_a_frame_of_integers_of_one_hash_is_refused_before_it_is_built(tag: bytes, count: int) -> None:
    few = colliding(values.MAX_SAME_HASH, tag)
    assert boundary.read_frame(framed(few), 1 << 20, 1)[0] is Status.OK
    status, detail, _ = boundary.read_frame(framed(colliding(count, tag)), 1 << 24, 1)
    assert (status, "one hash" in detail) == (Status.BAD_RESULT, True)


@pytest.mark.parametrize("tag", [b"S", b"d"])
def test_hashes_that_differ_and_still_crowd_are_given_up_by_processor_time(
    tag: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = [values.encode(k) for k in range(5000)]
    data = framed(encoded(tag, [part for one in numbers for part in ((one, b"N") if tag == b"d" else (one,))]))
    assert boundary.read_frame(data, 1 << 20, 1)[0] is Status.OK
    clock = iter(range(10**9))
    monkeypatch.setattr(values.time, "thread_time", lambda: next(clock))
    assert boundary.read_frame(data, 1 << 20, 1)[0] is Status.BAD_RESULT
    assert next(clock) < 5  # it did not go on


def test_empty_sets_are_refused_before_they_fill_the_memory() -> None:
    many = (8 << 20) // 5
    data = framed(encoded(b"l", [b"S\0\0\0\0"] * many))
    status, detail, _ = boundary.read_frame(data, 1 << 24, 1)
    assert (status, "memory" in detail) == (Status.BAD_RESULT, True)


@pytest.mark.parametrize(
    ("pieces", "count"), [((), 1), ((b"N",), 2), ((b"N", b"N"), 1), ((b"N",), 0), ((b"N", b"N", b"N"), 0)]
)
def test_a_frame_with_too_few_or_too_many_values_is_no_ok(pieces: tuple[bytes, ...], count: int) -> None:
    assert boundary.read_frame(framed(*pieces), 1000, count)[0] is Status.BAD_RESULT
    assert boundary.read_frame(framed(*pieces), 1000, len(pieces))[0] is Status.OK


def test_values_are_bounded_together() -> None:
    piece = values.encode("a" * 600)
    assert boundary.read_frame(framed(piece), 1000, 1)[0] is Status.OK
    assert boundary.read_frame(framed(piece, piece), 1000, 2)[0] is Status.BAD_RESULT


@pytest.mark.parametrize("letter", [wire.RESULT_EXCEPTION, wire.RESULT_BAD, wire.RESULT_FAILED])
def test_the_words_of_a_frame_are_short_text(letter: int) -> None:
    status, detail, found = boundary.read_frame(bytes([letter]) + b"\xff\xfe" * 100_000, 1 << 20, 1)
    assert status is not Status.OK
    assert len(detail) <= 400
    assert found == ()


def nest(value: Any, depth: int, kind: type = list) -> Any:
    for _ in range(depth):
        value = kind([value])
    return value


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "returns None"),
        ([1, float("nan")], "returns nan"),
        ("a" * 400, "output too long"),
        (10**5000, "output too long"),
        ([0] * 1_000_000, "output too long"),
        (complex(1, float("inf")), "output is no literal"),
        (nest(-1, 100), "output is no literal"),
        (nest(1, 50, frozenset), "output too long"),
        (nest(1, 30, frozenset), None),
        (nest(1, 90), None),
        ([frozenset(), set(), ..., 1j, -0.0, float("inf"), "\ud800", b"\xff", {1: (2,)}], None),
        (True, None),
    ],
    ids=lambda value: str(value) if value is None or type(value) is str else type(value).__name__,
)
def test_a_value_is_an_output_only_if_its_text_reads_back(value: Any, why: str | None) -> None:
    gold = boundary.write_gold(value, 400)
    if why is None:
        assert gold == repr(value)
    else:
        assert isinstance(gold, Refused)
        assert gold.why == why


def test_a_frozenset_nested_deeper_than_a_literal_can_be_is_no_output() -> None:
    gold = boundary.write_gold(nest(1, 60, frozenset), 4000)
    assert isinstance(gold, Refused)
    assert gold.why == "output is no literal"


@pytest.mark.parametrize("gold", ["(1+infj)", "[" * 99 + "-1" + "]" * 99, "nan", "[nan]", "", "f()", "9" * 5000])
def test_a_gold_text_of_an_old_buffer_that_reads_as_nothing_is_told_apart_from_a_wrong_answer(gold: str) -> None:
    told = boundary.check_gold(gold)
    if gold.startswith("[["):
        assert told is None  # deep, and still within the bounds
        return
    assert isinstance(told, Refused)
    if "nan" not in gold:
        assert isinstance(boundary.matches(gold, 1), Refused)
        assert isinstance(boundary.all_match([gold], [1]), Refused)


def test_fewer_or_more_values_than_cases_are_wrong() -> None:
    assert boundary.all_match(["1", "2"], [1, 2]) is True
    for found in ([], [1], [1, 2, 3]):
        assert boundary.all_match(["1", "2"], found) is False


def test_two_runs_of_large_values_can_be_compared() -> None:
    long = "a" * (2 << 20)
    assert boundary.agree([[long]], [[long]], 4 << 20) is True
    assert boundary.agree([[long]], [[long + "b"]], 4 << 20) is False
    assert boundary.agree([{1: float("nan")}], [{1: float("nan")}], 100) is True
    assert boundary.agree([1], [True], 100) is False
    assert boundary.agree([1], [1, 1], 100) is False
    deepest = nest(1, values.MAX_DEPTH)
    assert boundary.agree([deepest], [values.decode(values.encode(deepest))], 1 << 20) is True
    assert isinstance(boundary.agree([{long: 1}], [{long: 1}], 100), Refused)


def test_what_is_shown_of_a_value_is_safe_and_short() -> None:
    assert boundary.shown(10**5000) == hex(10**5000)
    assert boundary.shown({(10**5000,): [set(), frozenset({1})]}).startswith("{(0x")
    assert boundary.shown([1, "a"]) == "[1, 'a']"
    assert len(boundary.shown("a" * 10**6)) < boundary.MAX_SHOWN_CHARS + 100
    shared: Any = [1]
    for _ in range(60):
        shared = [shared, shared]
    assert boundary.shown(shared).startswith("<too large")
    assert boundary.shown(object()).startswith("<not plain data")


def test_an_exception_of_a_kind_that_nobody_expected_is_a_refusal_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("ours")

    for module, name in ((literals, "parse_value"), (literals, "parse_arguments"), (literals, "check_arguments")):
        monkeypatch.setattr(module, name, broken)
    for name in ("decode", "same", "text", "has_nan"):
        monkeypatch.setattr(values, name, broken)
    assert isinstance(boundary.read_value("1"), Refused)
    assert isinstance(boundary.read_arguments("1"), Refused)
    assert isinstance(boundary.check_call("1"), Refused)
    assert isinstance(boundary.check_gold("1"), Refused)
    assert isinstance(boundary.write_gold(1, 10), Refused)
    assert isinstance(boundary.matches("1", 1), Refused)
    assert isinstance(boundary.agree([1], [1], 10), Refused)
    assert boundary.read_frame(framed(b"N"), 10, 1)[0] is Status.BAD_RESULT
    assert boundary.faults.total() >= 7
    boundary.faults.clear()
