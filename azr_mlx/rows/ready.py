"""Rewards that come with azr_mlx: 1 for a right answer, 0 for any other, None where the row lacks the column.

Text of the model is cut and compared here, and run by the executor alone. Each starts when its answer ends, while
others are still written.

    python_tests    the program passes the row's `tests` (Python asserts), or prints `stdout` when it reads `stdin`
    python_output   the expression has the value of `answer`; `setup` may define names for it
    exact           the answer is the text of `answer`, spaces around it aside
    literal_equal   the answer is a Python literal that equals the one in `answer`
    format          the reply has the form that `reward.format` names

The program of a reply is its last ```python block, else its last block, else all of it. The answer is what stands in
its last <answer> section, else in its last \\boxed{...}, else in its last block, else all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from azr_mlx.executor import Executor, Job, Outcome, Status, StdinJob, TestJob, boundary
from azr_mlx.executor.boundary import Refused
from azr_mlx.executor.two_process import TWO_PROCESS
from azr_mlx.selfplay import parsing

PendingReward = Callable[[], float | None]
MAX_CHARS = 20_000  # of a program or an answer; a longer one is wrong

FORMATS: Mapping[str, Callable[[str], bool]] = {
    "think_answer": parsing.well_formed,
    "answer": lambda reply: "<answer>" in reply and "</answer>" in reply.rpartition("<answer>")[2],
    "python": lambda reply: bool(parsing.blocks(reply, "python", "py")),
    "boxed": lambda reply: _boxed(reply) is not None,
}


class Unjudged(Exception):
    """The executor could not judge: no fault of the answer's."""


@dataclass(frozen=True)
class ReadyReward:
    """One of the rewards above. `needs`: a row must have all columns of one of these sets, else it does not apply."""

    name: str
    needs: tuple[frozenset[str], ...]
    start: Callable[[str, Mapping[str, Any], Executor], PendingReward]

    def applies(self, columns: Mapping[str, Any]) -> bool:
        return not self.needs or any(all(columns.get(name) is not None for name in some) for some in self.needs)


def ready_rewards(form: str) -> dict[str, ReadyReward]:
    """All of them by name; `form` is the one that `format` asks for."""
    answer = (frozenset({"answer"}),)
    tests = (frozenset({"tests"}), frozenset({"stdin", "stdout"}))
    of_form = FORMATS[form]
    found = (
        ReadyReward("python_tests", tests, python_tests),
        ReadyReward("python_output", answer, python_output),
        ReadyReward(
            "exact", answer, lambda reply, columns, _: _known(answer_of(reply) == str(columns["answer"]).strip())
        ),
        ReadyReward("literal_equal", answer, literal_equal),
        ReadyReward("format", (), lambda reply, columns, _: _known(of_form(reply))),
    )
    return {one.name: one for one in found}


def program_of(reply: str) -> str:
    """The program of a reply: its last Python block, else its last block, else all of it."""
    found = parsing.blocks(reply, "python", "py") or parsing.blocks(reply)
    return found[-1] if found else reply


def answer_of(reply: str) -> str:
    """The answer of a reply, stripped: its <answer> section, else \\boxed{...}, else its last block, else all of it."""
    if "<answer>" in reply:
        return parsing.answer_section(reply)
    boxed = _boxed(reply)
    if boxed is not None:
        return boxed
    found = parsing.blocks(reply)
    return found[-1] if found else reply.strip()


def _boxed(reply: str) -> str | None:
    """The text of the last \\boxed{...}, its braces balanced."""
    _, tag, rest = reply.rpartition("\\boxed{")
    depth = 1
    for place, character in enumerate(rest[:MAX_CHARS] if tag else ""):
        depth += (character == "{") - (character == "}")
        if not depth:
            return rest[:place].strip()
    return None


def python_tests(reply: str, columns: Mapping[str, Any], executor: Executor) -> PendingReward:
    """Whether the program passes every test of the row.

    `tests`: Python code, or a list of such (asserts), which may call anything that the program defines; they run in a
    process of their own, which takes nothing but plain data from the program. Tests that cannot be run so (they pass
    functions to the program, or inspect it) earn nothing: beside them, a program could pass without being right.
    `stdin` and `stdout`: texts or lists of texts of equal length; lines are compared without spaces at their ends.
    """
    program = program_of(reply)
    if len(program) > MAX_CHARS or not boundary.encodable(program):
        return _known(False)
    tests = columns.get("tests")
    if tests is not None:
        code = tests if isinstance(tests, str) else "\n".join(map(str, tests))
        future = executor.submit(TestJob(program, code, entry_point=str(columns.get("entry_point") or "")))
        return lambda: float(_ok(future.result()) and future.result().mode == TWO_PROCESS)
    given, wanted = _texts(columns["stdin"]), _texts(columns["stdout"])
    if not wanted or len(given) != len(wanted):
        return lambda: None
    futures = [executor.submit(StdinJob(program, text)) for text in given]
    return lambda: float(all(_prints(one.result(), text) for one, text in zip(futures, wanted, strict=True)))


def python_output(reply: str, columns: Mapping[str, Any], executor: Executor) -> PendingReward:
    """Whether the expression of the reply has the value of the literal in `answer`.

    The expression is evaluated in the sandbox, below the row's `setup` if it has one. Statements, several expressions
    and values that are no plain data earn nothing.
    """
    expression = answer_of(reply)
    if len(expression) > MAX_CHARS or not boundary.encodable(expression):
        return _known(False)
    if isinstance(boundary.check_call(expression), Refused):
        return _known(False)
    program = f"{columns.get('setup') or ''}\ndef f(value):\n    return value\n"
    future = executor.submit(Job(program, (expression,)))

    def judge() -> float | None:
        outcome = future.result()
        return _equal(str(columns["answer"]), outcome.value) if _ok(outcome) and outcome.values else 0.0

    return judge


def literal_equal(reply: str, columns: Mapping[str, Any], executor: Executor) -> PendingReward:
    """Whether the answer is a literal that equals the one in `answer`, by Python's ==. Constant arithmetic and
    the plain constructors (`set()`, `list((1, 2))`) are allowed, names and other calls are not; nothing is run."""
    value = boundary.read_value(answer_of(reply)[:MAX_CHARS])
    return _known(False) if isinstance(value, Refused) else lambda: _equal(str(columns["answer"]), value)


def _equal(gold: str, value: object) -> float | None:
    right = boundary.matches(gold, value)
    return None if isinstance(right, Refused) else float(right)


def _known(right: bool) -> PendingReward:
    return lambda: float(right)


def _texts(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]


def _ok(outcome: Outcome) -> bool:
    if outcome.status is Status.SANDBOX_ERROR:
        raise Unjudged(outcome.detail)
    return outcome.ok


def _prints(outcome: Outcome, wanted: str) -> bool:
    return _ok(outcome) and _lines(outcome.stdout) == _lines(wanted)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]
