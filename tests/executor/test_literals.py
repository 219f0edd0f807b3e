"""Answers as text: literals with constant arithmetic become values, everything else one clear refusal."""

# ruff: noqa: SIM105  a program stays on one line
from __future__ import annotations

import builtins
import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.executor.literals import LiteralError, check_arguments, parse_arguments, parse_value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        (" -1 ", -1),
        ("0.1+0.2", 0.30000000000000004),
        ("2**10 - 1", 1023),
        ("7 // 2, 7 % 4, 1 << 3, ~0", (3, 3, 8, -1)),
        ("1+2j", 1 + 2j),
        ("'abc'", "abc"),
        ('"a" "b"', "ab"),
        ("'ab' * 2 + 'c'", "ababc"),
        ("[0] * 3", [0, 0, 0]),
        ("[*[1, 2], 3]", [1, 2, 3]),
        ("{'a': 1,\n 'b': 2}", {"a": 1, "b": 2}),
        ("{1, 2}", {1, 2}),
        ("set()", set()),
        ("frozenset({1})", frozenset({1})),
        ("Counter({'a': 2})", {"a": 2}),
        ("collections.Counter('aab')", {"a": 2, "b": 1}),
        ("dict(a=1, b=2)", {"a": 1, "b": 2}),
        ("OrderedDict([('a', 1)])", {"a": 1}),
        ("inf", math.inf),
        ("-inf", -math.inf),
        ("float('-inf')", -math.inf),
        ("{Ellipsis}", {...}),
        ("None", None),
        ("not True", False),
    ],
)
def test_a_literal_is_its_value(text: str, value: Any) -> None:
    assert parse_value(text) == value
    assert type(parse_value(text)) is type(value)


def test_nan_is_known() -> None:
    assert math.isnan(parse_value("nan"))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "abc",
        "The output is 3 because",
        "null",
        "__import__('os').system('touch pwn')",
        "eval(gold_output)",
        "1 if True else 2",
        "[x for x in (1,)]",
        "(lambda: 1)()",
        "f'{1}'",
        "1 < 2",
        "().__class__",
        "1; 2",
        "x := 1",
        "9**9**9",
        "10**10**8",
        "1 << 10**9",
        "'a' * 10**9",
        "[0] * 10**9",
        "'%1000000000d' % 1",
        "1 / 0",
        "(" * 5000 + ")" * 5000,
        "-" * 50_000 + "1",
        "[" * 300 + "]" * 300,
        "1" * 5000,
        "{[1]: 2}",
        "'\ud800' + 1",
        "1\x00",
        "dict(**{'a': 1})",
        "1" + "+1" * 60_000,
    ],
    ids=lambda text: repr(text[:20]),
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(LiteralError) as caught:
        parse_value(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    assert time.monotonic() - start < 2


@given(st.text(max_size=80))
def test_any_text_is_a_value_or_a_literal_error(text: str) -> None:
    for read in (parse_value, parse_arguments, check_arguments):
        try:
            read(text)
        except LiteralError:
            pass


@given(
    st.sampled_from(["{}", "[{}]", "({},)", "1 + {}", "'a' * {}", "{{1: {}}}", "float({})", "set([{}])", "*{}", "a={}"])
)
def test_no_text_as_an_answer_is_ever_executed(frame: str) -> None:
    hits: list[int] = []
    builtins.azr_boom = lambda: hits.append(1) or 1  # type: ignore[attr-defined]
    try:
        for text in ("azr_boom()", "(azr_boom)()", "[azr_boom() for _ in '1'][0]", "f'{azr_boom()}'"):
            for read in (parse_value, parse_arguments):
                with pytest.raises(LiteralError):
                    read(frame.format(text))
    finally:
        del builtins.azr_boom  # type: ignore[attr-defined]
    assert not hits


@pytest.mark.parametrize(
    ("text", "args", "keywords"),
    [
        ("", (), {}),
        ("1, 2", (1, 2), {}),
        ("(1, 2)", ((1, 2),), {}),
        ("1,\n2", (1, 2), {}),
        ("1, # one\n2 # two", (1, 2), {}),
        ("*[1, 2]", (1, 2), {}),
        ("1, x=[2]", (1,), {"x": [2]}),
        ("**{'x': 1}, y=2", (), {"x": 1, "y": 2}),
        ("')'", (")",), {}),
    ],
)
def test_arguments_are_those_of_one_call(text: str, args: Any, keywords: Any) -> None:
    assert parse_arguments(text) == (args, keywords)


@pytest.mark.parametrize(
    "text",
    [
        "5) or (True",
        "1)(2",
        "1)\n\n(2",
        "1), f(2",
        "1)\n)#",
        "1).bit_length(",
        "x=1, x=2",
        "1 2",
        "*1",
        "x=1, **{'x': 2}",
    ],
)
def test_what_is_more_or_less_than_one_call_is_refused(text: str) -> None:
    with pytest.raises(LiteralError):
        parse_arguments(text)


@pytest.mark.parametrize("text", ["", "dict(a=1)", "A(3), x=[i for i in range(3)]", "x for x in 'abc'", "lambda: 1"])
def test_a_proposals_arguments_may_be_any_expressions(text: str) -> None:
    check_arguments(text)


@pytest.mark.parametrize("text", ["5) or (True", "1)(2", "1); import os; f(1", "x = 1 = 2", "x=1, x=1"])
def test_but_only_those_of_one_call(text: str) -> None:
    with pytest.raises(LiteralError):
        check_arguments(text)
