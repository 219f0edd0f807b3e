"""When is an output right? The rule of each benchmark, on plain values and text that are already in the trainer.

Every function is total: it answers False where its rule would raise. Values come out of the executor's closed encoding
or out of JSON, so that `==` between them runs Python's own comparisons and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any


def same(out: Any, expected: Any) -> bool:
    """Python's `==`: 1 == 1.0 == True, a list is no tuple, nan is never equal."""
    try:
        return bool(out == expected)
    except RecursionError:
        return False


# ---------------------------------------------------------------------------------------------------- EvalPlus


def close(out: Any, expected: Any, atol: float, rtol: float = 1e-7) -> bool:
    """EvalPlus's tolerance: the same type and length, and |out - expected| <= atol + rtol * |expected| throughout."""
    if type(out) is not type(expected):
        return False
    if isinstance(expected, list | tuple) and len(out) != len(expected):
        return False
    return _close(out, expected, atol, rtol)


def _close(out: Any, expected: Any, atol: float, rtol: float) -> bool:
    if isinstance(expected, list | tuple) and isinstance(out, list | tuple):
        return len(out) == len(expected) and all(_close(*pair, atol, rtol) for pair in zip(out, expected, strict=True))
    if not (isinstance(out, int | float | complex) and isinstance(expected, int | float | complex)):
        return False
    if out == expected:
        return True
    try:
        distance = abs(out - expected)
        return math.isfinite(distance) and distance <= atol + rtol * abs(expected)
    except OverflowError:
        return False


def floats(value: Any) -> bool:
    """Whether EvalPlus compares with tolerance by itself: a float, or a list or tuple of nothing but floats."""
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def plus(task: str, out: Any, expected: Any, arguments: Sequence[Any], atol: float) -> bool:
    """Whether EvalPlus counts `out` as right for an input of the task "HumanEval/n" or "Mbpp/n", its oracles included.

    Departs from EvalPlus 0.3.1 in one thing: there a first expected float makes every later expected value of the
    same task tolerant, whole numbers too; here each value is looked at by itself.
    """
    try:
        if task == "HumanEval/32":  # any root will do, not the reference's
            return bool(abs(sum(c * math.pow(out, i) for i, c in enumerate(arguments[0]))) <= atol)
        if same(out, expected) or _oracle(task, out, arguments, atol):
            return True
        tolerance = atol or (1e-6 if floats(expected) else 0.0)
        return tolerance > 0 and close(out, expected, tolerance)
    except (TypeError, ValueError, OverflowError, ArithmeticError, RecursionError, IndexError):
        return False


def _oracle(task: str, out: Any, arguments: Sequence[Any], atol: float) -> bool:
    """What else is right where the problem's text allows more than the reference returns."""
    if task == "Mbpp/164":  # "equivalent" is defined nowhere in the text
        return True
    if task == "Mbpp/295":  # the sum of divisors of a number below 1 may be 0
        return bool(out == 0)
    if task == "Mbpp/558":  # numbers of different lengths are filled up with zeros
        first, second = (str(number) for number in arguments)
        width = max(len(first), len(second))
        pairs = zip(first.zfill(width), second.zfill(width), strict=True)
        return bool(out == sum(abs(int(a) - int(b)) for a, b in pairs))
    if task == "Mbpp/581":  # "height" may be that of the pyramid, not of its faces
        base, height = arguments
        slant = math.sqrt((base / 2) ** 2 + height**2)
        return bool(abs(out - round(base**2 + 2 * base * slant)) <= atol)
    return False


# -------------------------------------------------------------------------------------------------------- APPS


def official_text(out: str, expected: Any) -> bool:
    """APPS's own comparison of standard output. The first rule that holds decides.

    Its last two rules compare each line as a set of words and the lines as a set, so the order of words and lines and
    repeated ones do not matter: some wrong programs pass. `strict_text` is the comparison without that.
    """
    wanted = expected if isinstance(expected, list) else str(expected).splitlines()
    wanted = [str(line) for line in wanted]
    lines = out.splitlines()
    stripped, stripped_wanted = [line.strip() for line in lines], [line.strip() for line in wanted]
    if "\n".join(lines).strip() == "\n".join(wanted).strip():
        return True
    if "\n".join(stripped).strip() == "\n".join(stripped_wanted).strip():
        return True
    full, full_wanted = [line for line in stripped if line], [line for line in stripped_wanted if line]
    if full == full_wanted:
        return True
    if _floats_close(full, full_wanted):
        return True
    if {frozenset(line.split()) for line in full} == {frozenset(line.split()) for line in full_wanted}:
        return True
    try:
        return {_rounded(line) for line in full} == {_rounded(line) for line in full_wanted}
    except (ValueError, OverflowError):
        return False


def _rounded(line: str) -> frozenset[float]:
    return frozenset(round(float(word), 3) for word in line.split())


def _floats_close(first: Sequence[str], second: Sequence[str]) -> bool:
    """numpy.allclose with its usual tolerances (1e-8 + 1e-5 * |wanted|), one number a line."""
    if len(first) != len(second) or not first:
        return False
    try:
        pairs = [(float(a), float(b)) for a, b in zip(first, second, strict=True)]
    except ValueError:
        return False
    return all(a == b or abs(a - b) <= 1e-8 + 1e-5 * abs(b) for a, b in pairs)


def strict_text(out: str, expected: Any) -> bool:
    """Word by word, in order; words that are written as decimal fractions may differ by 1e-6, relative or absolute."""
    wanted = "\n".join(map(str, expected)) if isinstance(expected, list) else str(expected)
    words, wanted_words = out.split(), wanted.split()
    return len(words) == len(wanted_words) and all(map(_same_word, words, wanted_words))


def _same_word(word: str, wanted: str) -> bool:
    if word == wanted:
        return True
    if not ("." in wanted or "e" in wanted.lower()):
        return False
    try:
        a, b = float(word), float(wanted)
    except ValueError:
        return False
    return math.isfinite(a) and abs(a - b) <= 1e-6 * max(1.0, abs(b))


def official_value(out: Any, expected: Any) -> bool:
    """APPS's own comparison of a returned value: tuples are lists, and the expected value may be wrapped in a list."""
    out = _lists(out)
    if same(out, expected):
        return True
    return isinstance(expected, list) and bool(expected) and same(out, expected[0])


def strict_value(out: Any, expected: Any) -> bool:
    """Equal values, tuples as lists and floats within 1e-6; an expected one-element list may be a wrapper."""
    out = _lists(out)
    if same(out, expected) or close(out, expected, 1e-6, 1e-6):
        return True
    return isinstance(expected, list) and len(expected) == 1 and same(out, expected[0])


def _lists(value: Any) -> Any:
    """Tuples as lists, at every depth: JSON knows no tuples."""
    if isinstance(value, list | tuple):
        return [_lists(item) for item in value]
    if isinstance(value, dict):
        return {key: _lists(item) for key, item in value.items()}
    return value


# ----------------------------------------------------------------------------------------------- LiveCodeBench


def decimal_lines(out: str, expected: Any) -> bool:
    """LiveCodeBench's comparison: as many lines, each equal when stripped or equal as a row of decimal numbers."""
    lines, wanted = ([line.strip() for line in str(text).strip().split("\n")] for text in (out, expected))
    return len(lines) == len(wanted) and all(map(_same_line, lines, wanted))


def _same_line(line: str, wanted: str) -> bool:
    if line == wanted:
        return True
    try:
        return [Decimal(word) for word in line.split()] == [Decimal(word) for word in wanted.split()]
    except InvalidOperation:
        return False


def json_value(out: Any, expected: Any) -> bool:
    """LiveCodeBench's comparison of a returned value: equal, tuples as lists."""
    return same(_lists(out), expected)
