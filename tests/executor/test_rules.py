"""Static rules: what a proposal may not contain, said in a few fixed words."""

# ruff: noqa: E501  a program stays on one line
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.executor.rules import check_program, forbidden_use, normalised_key


@pytest.mark.parametrize(
    "source",
    [
        "def f(a):\n    return a",
        "import math\nfrom collections import Counter, deque\ndef f(a):\n    return math.sqrt(a)",
        "from typing import List\ndef g(x):\n    return x\ndef f(a: List[int]):\n    return g(a)",
        "class A:\n    def __init__(self, x):\n        self.x = x\n    def __eq__(self, o):\n        return self.x == o.x\n"
        "def f(a):\n    return A(a).__class__.__name__",
        "def f(input):\n    id = input\n    return id",  # a parameter of that name reads no standard input
        "def f(a):\n    # import os, random, time\n    return 'random time os'",
        "def f(a):\n    return getattr(a, 'real', 0)",
    ],
)
def test_honest_programs_pass(source: str) -> None:
    assert check_program(source) is None


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f(a)\n    return a", "syntax error"),
        ("def g(a):\n    return a", "no function f"),
        ("f = lambda a: a", "no function f"),
        ("x" * 5000, "too long"),
        ("import os\ndef f(a):\n    return a", "forbidden module os"),
        ("import os.path\ndef f(a):\n    return a", "forbidden module os"),
        ("import numpy.random as r\ndef f(a):\n    return a", "forbidden module random"),
        ("import numpy\ndef f(a):\n    return a", "forbidden module numpy"),
        ("from sympy import time\ndef f(a):\n    return a", "forbidden module sympy"),
        ("from collections import sys\ndef f(a):\n    return a", "forbidden module sys"),
        ("from . import x\ndef f(a):\n    return a", "forbidden relative import"),
        ("def f(a):\n    import random\n    return a", "forbidden module random"),
        ("def f(a):\n    return __import__('time').time()", "forbidden name __import__"),
        ("def f(a):\n    return eval(a)", "forbidden name eval"),
        ("def f(a):\n    return open(a)", "forbidden name open"),
        ("def f(a):\n    return input()", "forbidden name input"),
        ("def f(a):\n    return globals()", "forbidden name globals"),
        ("def f(a):\n    return ().__class__.__bases__[0].__subclasses__()", "forbidden attribute"),
        ("def f(a):\n    return f.__globals__", "forbidden attribute __globals__"),
        ("def f(a):\n    return getattr(a, '__cl' + 'ass__')", "forbidden name getattr"),
        ("def f(a):\n    return " + "(" * 300 + "1" + ")" * 300, "syntax error"),
        ("def f(a):\n    return " + "-" * 3900 + "1", "nested too deep"),
        ("def f(a):\n    return " + "-" * 1000 + "1", "nested too deep"),
        ("def f(a):\n    return 1\0", "syntax error"),
    ],
    ids=lambda text: repr(text[-30:]),
)
def test_the_rest_is_refused_with_its_reason(source: str, reason: str) -> None:
    said = check_program(source)
    assert said is not None
    assert said.startswith(reason)


@given(st.text(max_size=200))
def test_any_text_gets_an_answer(source: str) -> None:
    assert check_program(source) is None or check_program(source)
    assert normalised_key(source) is not None
    assert forbidden_use(source) is None or forbidden_use(source)


def test_equal_programs_in_other_clothes_share_a_key() -> None:
    first = "def f(a):\n    # add\n    total = 0\n    for x in a:\n        total += x\n    return total"
    second = 'def f(items):\n    """Sum."""\n    s=0\n\n    for item in items: s += item\n    return (s)'
    assert normalised_key(first) == normalised_key(second) != ""


def test_different_programs_have_different_keys() -> None:
    sources = [
        "def f(a):\n    return a",
        "def f(a, b):\n    return a",
        "def f(a, b):\n    return b",
        "def f(a):\n    return a.x",
        "def f(a):\n    return a.y",
        "def f(a):\n    return 1",
        "def f(a):\n    return 1.0",
        "def f(a):\n    return '1'",
        "class A:\n    x = 1\ndef f(a):\n    return A.x",
        "class A:\n    y = 1\ndef f(a):\n    return A.x",
    ]
    assert len({normalised_key(source) for source in sources}) == len(sources)


def test_what_does_not_parse_has_no_key() -> None:
    assert normalised_key("def f(") == ""
