"""EvalPlus stores inputs as JSON; this gives MBPP+ back the tuples, sets and complex numbers that JSON has not.

Which arguments of which problem are what is a fact of the data set (EvalPlus 0.3.1, `mbpp_deserialize_inputs`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Arguments = list[Any]


def _each(arguments: Arguments) -> Arguments:
    return [tuple(one) for one in arguments]


def _items(arguments: Arguments) -> Arguments:
    return [[tuple(item) for item in one] for one in arguments]


def _items_and_each(arguments: Arguments) -> Arguments:
    return [tuple(tuple(item) for item in one) for one in arguments]


def _items_of_first(arguments: Arguments) -> Arguments:
    return [[tuple(item) for item in arguments[0]], *arguments[1:]]


def _first(arguments: Arguments) -> Arguments:
    return [tuple(arguments[0]), *arguments[1:]]


def _second(arguments: Arguments) -> Arguments:
    return [arguments[0], tuple(arguments[1])]


def _sets(arguments: Arguments) -> Arguments:
    # An empty list stands for an empty dict here, as in the original.
    return [[set(item) if isinstance(item, list) and item else {} for item in arguments[0]]]


def _angle(arguments: Arguments) -> Arguments:
    return [float(arguments[0]), complex(arguments[1])]


def _complex(arguments: Arguments) -> Arguments:
    return [complex(arguments[0])]


def _inner_lists(arguments: Arguments) -> Arguments:
    return [tuple(tuple(item) if isinstance(item, list) else item for item in arguments[0])]


def _values(arguments: Arguments) -> Arguments:
    return [{key: tuple(value) for key, value in arguments[0].items()}, *arguments[1:]]


def _throughout(value: Any) -> Any:
    return tuple(_throughout(item) for item in value) if isinstance(value, list) else value


def _every_list(arguments: Arguments) -> Arguments:
    return [_throughout(one) for one in arguments]


_SHAPES: dict[Callable[[Arguments], Arguments], str] = {
    _each: "2 116 132 143 222 261 273 394 399 421 424 429 470 560 579 596 616 630 726 740 744 809",
    _items: "63 64 70 94 120 237 272 299 400 409 417 438 473 614 780",
    _items_of_first: "75 413 444 753",
    _second: "106 750",
    _sets: "115",
    _angle: "124",
    _first: "250 307 405 446 617 720 763 808",
    _complex: "252",
    _items_and_each: "259 401 445",
    _inner_lists: "278",
    _values: "722",
    _every_list: "580 615 791",
}
_SHAPE_OF = {f"Mbpp/{number}": shape for shape, numbers in _SHAPES.items() for number in numbers.split()}


def restore(task: str, inputs: Sequence[Arguments]) -> list[Arguments]:
    """The argument lists of a problem with their own types. HumanEval+ inputs are as they stand."""
    shape = _SHAPE_OF.get(task)
    return [shape(list(arguments)) if shape else list(arguments) for arguments in inputs]
