"""When is an output right: the rules of EvalPlus, APPS and LiveCodeBench, one property each."""

from __future__ import annotations

import math
from typing import Any

import pytest

from azr_mlx.evaluation import matching


@pytest.mark.parametrize(
    ("out", "expected", "right"),
    [
        (0.1 + 0.2, 0.3, True),  # an expected float brings a tolerance of 1e-6
        ([0.1 + 0.2], [0.3], True),
        (1, 1.0, True),  # equal is equal
        (3, 3.0000001, False),  # but only floats are compared with tolerance
        ([1, 2], (1, 2), False),
        ([0.3], [0.3, 0.3], False),
        ([0.1 + 0.2, 1], [0.3, 1], False),  # not all are floats
        (math.nan, math.nan, False),
        (math.inf, math.inf, True),
        (10**400, 1.0, False),
        (None, 1.0, False),
    ],
)
def test_evalplus_compares_floats_with_tolerance_and_all_else_exactly(out: Any, expected: Any, right: bool) -> None:
    assert matching.plus("HumanEval/0", out, expected, [], 0.0) is right


@pytest.mark.parametrize(
    ("task", "out", "expected", "arguments", "right"),
    [
        ("HumanEval/32", -0.5, 123.0, [[1, 2]], True),  # any root of 1 + 2x
        ("HumanEval/32", 0.5, 0.5, [[1, 2]], False),
        ("HumanEval/32", "x", 0.5, [[1, 2]], False),
        ("Mbpp/164", False, True, [1, 2], True),
        ("Mbpp/295", 0, 1, [0], True),
        ("Mbpp/558", 1 + 2 + 0, 0, [123, 3], True),  # 123 against 003
        ("Mbpp/581", 33, 0, [3, 4], False),
        ("Mbpp/581", round(9 + 6 * math.sqrt(2.25 + 16)), 0, [3, 4], True),
        ("Mbpp/1", 0, 1, [0], False),
    ],
)
def test_evalplus_has_oracles_where_more_than_one_answer_is_right(
    task: str, out: Any, expected: Any, arguments: list[Any], right: bool
) -> None:
    assert matching.plus(task, out, expected, arguments, 1e-4 if task == "HumanEval/32" else 0.0) is right


@pytest.mark.parametrize(
    ("out", "expected", "official", "strict"),
    [
        ("7\n", "7\n", True, True),
        ("7", ["7"], True, True),
        ("  7 \n\n", "7", True, True),
        ("1\n\n2\n", "1\n2\n", True, True),
        ("0.500000001", "0.5", True, True),
        ("1 2", "2 1", True, False),  # the official rules take words as sets
        ("1\n2", "2\n1", True, False),
        ("1 1 2", "1 2", True, False),
        ("7.0", "7", True, False),  # strict: a whole number is written as one
        ("1.0001 2", "1 2", True, False),  # rounded to three places, as a set
        ("yes", "no", False, False),
        ("", "1", False, False),
        ("", "", True, True),
    ],
)
def test_apps_official_forgives_order_and_strict_does_not(
    out: str, expected: Any, official: bool, strict: bool
) -> None:
    assert matching.official_text(out, expected) is official
    assert matching.strict_text(out, expected) is strict


@pytest.mark.parametrize(
    ("out", "expected", "official", "strict"),
    [
        (9, 9, True, True),
        (9, [9], True, True),  # outputs are wrapped in a list of one
        ((1, 2), [1, 2], True, True),
        (1, [1, 2], True, False),  # the official rule looks at the first item of any list
        (0.1 + 0.2, 0.3, False, True),
        ("ca", '"ca"', False, False),
        (None, [], False, False),
    ],
)
def test_apps_values_may_be_wrapped(out: Any, expected: Any, official: bool, strict: bool) -> None:
    assert matching.official_value(out, expected) is official
    assert matching.strict_value(out, expected) is strict


@pytest.mark.parametrize(
    ("out", "expected", "right"),
    [("1.50\n", "1.5", True), ("a b\n", " a b ", True), ("1 2", "1 3", False), ("1\n2", "1", False), ("x", "1", False)],
)
def test_livecodebench_compares_lines_as_text_or_decimal_numbers(out: str, expected: str, right: bool) -> None:
    assert matching.decimal_lines(out, expected) is right
