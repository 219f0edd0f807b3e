"""Source is parsed from any thread, whoever interrupts whom in the middle of a tree."""

from __future__ import annotations

import ast
import gc
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from azr_mlx.executor import syntax

LONG = f"assert f(x) == [{','.join(['[1, {2: (3, [4])}]'] * 100)}]"


class LetsOthersRun:
    """Garbage that gives other threads a turn when it is collected, which is in the middle of whatever happens then."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        time.sleep(0.0005)


@pytest.fixture
def eager_collector() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(50)
    yield
    gc.set_threshold(*before)


def failures(parse: Callable[[str], Any]) -> list[SystemError]:
    found: list[SystemError] = []

    def many(number: int) -> None:
        for _ in range(60):
            LetsOthersRun()
            try:
                parse(LONG if number % 2 else "f(1)")
            except SystemError as error:
                found.append(error)

    threads = [threading.Thread(target=many, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_threads_that_parse_at_once_do_not_disturb_each_other(eager_collector: None) -> None:
    assert failures(syntax.parse) == []


def test_what_is_parsed_is_what_python_parses() -> None:
    for source, mode in (("x = 1", "exec"), ("[1, 2]", "eval")):
        assert ast.dump(syntax.parse(source, "f", mode)) == ast.dump(ast.parse(source, "f", mode))
    with pytest.raises(SyntaxError):
        syntax.parse("x =")
