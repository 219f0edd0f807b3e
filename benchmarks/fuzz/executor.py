"""Fuzz what the trainer reads of a program: the result bytes, and answers given as text.

    python benchmarks/fuzz/executor.py --minutes 10 --seed 0

Hypothesis draws the cases, thousands a round, each round from a new seed. It ends with exit code 1 at the first case
where something else than the module's own error comes out, where a value does not survive, where one case takes more
than two seconds, or where a text was executed.
"""

from __future__ import annotations

import argparse
import math
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from azr_mlx.executor import literals, rules, values
from azr_mlx.executor.boundary import read_frame
from azr_mlx.executor.jobs import Status

SLOW_SECONDS = 2.0
TOKEN = secrets.token_bytes(16)
executed: list[str] = []


def boom(*_: Any, **__: Any) -> None:
    """What a text would call if it were ever evaluated in this process."""
    executed.append("executed")


__builtins__.boom = boom  # type: ignore[attr-defined]  # reachable by name from any evaluated text

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters())  # lone surrogates included
    | st.binary()
    | st.just(...)
)
keys = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
plain = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.tuples(inner, inner)
        | st.dictionaries(keys, inner, max_size=4)
        | st.sets(keys, max_size=4)
    ),
    max_leaves=25,
)
_TOKENS = """1 -1 0 1.5 1e400 inf nan 'a' b'a' "x" None True ( ) [ ] { } , : = + - * ** / // % << >> ~ not
and or if else in
    lambda x y boom boom() (boom()) __import__ __import__('os') .__class__ . ; # \\ f'{boom()}' [boom()]
    await yield :=
    Counter( dict( set( float( frozenset( OrderedDict( 10**10**10 'a'*10**9 1<<10**9 [0]*10**9 9**9**9 '%1000000000d'%1
    for (( )) ((((((((( ))))))))) \'\'\' ... _ @ -> ! $ ? ` 0x 1_0 1__0 1j 1e 0b2 _(1) )( *[1] **{'a':1}"""
WORDS = [*_TOKENS.split(), " ", "\n", "\x00", "\ud800", "\u202e", '"' * 3, "\t", "\x0c"]
text = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=20).map("".join),
    st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join),
    st.text(st.characters(), max_size=60),
    plain.map(repr),
    st.tuples(
        st.sampled_from(["(", "[", "{", "-", "~", "not ", "1+", "((", "[{", "lambda:", "f("]), st.integers(0, 9000)
    ).map(lambda pair: pair[0] * pair[1]),
)


def mutate(pair: tuple[bytes, list[tuple[int, int, bytes]]]) -> bytes:
    data = bytearray(pair[0])
    for place, kind, piece in pair[1]:
        at = place % (len(data) + 1)
        if kind == 0:
            data[at : at + len(piece)] = piece
        elif kind == 1:
            data[at:at] = piece
        else:
            del data[at : at + 1 + len(piece)]
    return bytes(data)


damage = st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 2), st.binary(max_size=6)), max_size=5)
damaged = st.tuples(plain.map(values.encode), damage).map(mutate)
raw = st.one_of(
    st.binary(max_size=300), damaged, st.lists(st.sampled_from([b"l", b"d", b"S", b"\1\0\0\0", b"N"])).map(b"".join)
)


def same(first: Any, second: Any) -> bool:
    """Equal in type, order and bits, nan included."""
    if type(first) is not type(second):
        return False
    if isinstance(first, float):
        return (first == second and math.copysign(1, first) == math.copysign(1, second)) or (
            first != first and second != second
        )
    if isinstance(first, complex):
        return same(first.real, second.real) and same(first.imag, second.imag)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, dict):
        return len(first) == len(second) and all(same(a, b) for a, b in zip(first.items(), second.items(), strict=True))
    return bool(first == second)


def decoder(data: bytes) -> None:
    try:
        value = values.decode(data)
    except values.DecodeError:
        return
    values.canonical(value)
    values.equal(value, value)
    assert same(values.decode(values.encode(value, 1 << 22)), value)


def frame(data: bytes) -> None:
    for token in (b"", TOKEN):
        status, detail, found = read_frame(b"o" + data, 1 << 20, 1, token)
        assert (type(status), type(detail), type(found)) == (Status, str, tuple)
        assert token == b"" or status is not Status.OK
        read_frame(data, 1 << 20, 1, token)


def round_trip(value: Any) -> None:
    assert same(values.decode(values.encode(value)), value)


def answer(words: str) -> None:
    for read in (literals.parse_value, literals.parse_arguments, literals.check_arguments):
        try:
            got = read(words)
        except literals.LiteralError as error:
            if "\n" in str(error):
                raise AssertionError("a message of more than one line") from error
            continue
        if read is literals.parse_value:
            repr(got)
    rules.check_program(words)
    rules.normalised_key(words)
    rules.forbidden_use(words)
    assert not executed, "a text was executed"


TARGETS: dict[str, tuple[Callable[[Any], None], Any]] = {
    "decode damaged and random bytes": (decoder, raw),
    "read damaged and random frames": (frame, raw),
    "values survive": (round_trip, plain),
    "answers, arguments and programs as text": (answer, text),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--round", type=int, default=2000, help="cases of each target in a round")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    counts = dict.fromkeys(TARGETS, 0)
    slowest = 0.0
    number = options.seed
    while time.monotonic() < end:
        for name, (check, strategy) in TARGETS.items():

            def one(case: Any) -> None:
                nonlocal slowest
                start = time.monotonic()
                check(case)  # noqa: B023  the loop waits for it
                took = time.monotonic() - start
                slowest = max(slowest, took)
                counts[name] += 1  # noqa: B023
                assert took < SLOW_SECONDS, f"{took:.1f} s"

            quiet = settings(
                max_examples=options.round,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate, Phase.shrink],
            )
            run: Any = seed(number)(quiet(given(strategy)(one)))  # type: ignore[no-untyped-call]
            run()
        number += 1
    for name, count in counts.items():
        print(f"{count:>9} cases  {name}")
    print(f"{sum(counts.values()):>9} cases in {options.minutes:g} minutes, slowest {slowest * 1e3:.0f} ms, no failure")
    return 0


if __name__ == "__main__":
    sys.exit(main())
