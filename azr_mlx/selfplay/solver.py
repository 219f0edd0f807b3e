"""The solver's side of the game: asking for answers, and checking them against what Python says.

The gold answer never leaves this process: the child gets a program and arguments, and the value that comes back is
compared here, with Python's `==` on plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from azr_mlx.executor import Executor, Job, Outcome, Status, boundary
from azr_mlx.executor.boundary import Refused
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.prompts import Style
from azr_mlx.selfplay.proposer import Pending
from azr_mlx.types import Case, Kind, Prompt, Rollout, Task, Verdict

MALFORMED = Verdict(False, False, "no answer block")
WRONG = Verdict(True, False, "wrong")
RIGHT = Verdict(True, True, "ok")


@dataclass(frozen=True)
class Solver:
    """Words tasks and verifies answers (AZR section 3.3.4). Equal answers to a task are run once."""

    style: Style
    executor: Executor
    _known: dict[tuple[str, str, str], Pending] = field(default_factory=dict)

    def ask(self, task: Task) -> Prompt:
        return self.style.solve(task)

    def forget(self) -> None:
        """Drop the verdicts kept for equal answers; between steps they only cost memory."""
        self._known.clear()

    def judge(self, rollout: Rollout) -> Pending:
        """Whether the reply to a task is well formed and right. Deduction is settled by reading, the others run."""
        task = rollout.prompt.task
        if task is None:
            raise ValueError("a solver prompt carries its task")
        reply = rollout.reply
        if self.style.tags and not parsing.well_formed(reply):
            return _settled(Verdict(False, False, "bad tags"))
        answer = parsing.answer_section(reply) if self.style.tags else reply
        if task.kind is Kind.INDUCTION:
            program = parsing.solver_program(answer)
            if program is None:
                return _settled(MALFORMED)
            return self._once(task, program, lambda: self.judge_program(task, program))
        word = "output" if task.kind is Kind.DEDUCTION else "input"
        if not self.style.tags and not parsing.blocks(answer, word):
            return _settled(MALFORMED)
        text = parsing.solver_value(answer, word)
        if task.kind is Kind.DEDUCTION:
            return _settled(judge_output(task.cases[0].output, text))
        return self._once(task, text, lambda: self.judge_input(task, text))

    def judge_input(self, task: Task, text: str) -> Pending:
        """An abduction answer: literal arguments of one call, for which the program returns the gold output."""
        arguments = boundary.read_arguments(text)
        if isinstance(arguments, Refused):
            return _settled(Verdict(True, False, arguments.why, detail=arguments.detail))
        future = self.executor.submit(Job(task.program, (text,)))
        return lambda: _compare(future.result(), task.cases)

    def judge_program(self, task: Task, program: str) -> Pending:
        """An induction answer: a program that maps every hidden input to its output. The task's imports are free."""
        source = parsing.import_lines(task.program) + program
        future = self.executor.submit(Job(source, tuple(case.input for case in task.hidden)))
        return lambda: _compare(future.result(), task.hidden)

    def _once(self, task: Task, answer: str, judge: Callable[[], Pending]) -> Pending:
        name = (str(task.kind), f"{task.program}\0{task.cases}", answer)
        if name not in self._known:
            self._known[name] = once(judge())
        return self._known[name]


def judge_output(gold: str, text: str) -> Verdict:
    """A deduction answer: a literal that equals the gold output. Nothing is run."""
    value = boundary.read_value(text)
    if isinstance(value, Refused):
        return Verdict(True, False, value.why, detail=value.detail)
    return _told(boundary.matches(gold, value))


def _compare(outcome: Outcome, cases: Sequence[Case]) -> Verdict:
    """What the values of a run say of an answer, whatever they are and however many."""
    if outcome.status is Status.SANDBOX_ERROR:
        return Verdict(True, False, "sandbox error", detail=outcome.detail, dropped=True)
    if not outcome.ok:
        return Verdict(True, False, str(outcome.status).replace("-", " "), detail=outcome.detail)
    return _told(boundary.all_match([case.output for case in cases], outcome.values))


def _told(right: bool | Refused) -> Verdict:
    if isinstance(right, Refused):  # the task is at fault, not the answer
        return Verdict(True, False, right.why, detail=right.detail, dropped=True)
    return RIGHT if right else WRONG


def once(pending: Pending) -> Pending:
    """A pending verdict that is worked out once, however often it is asked for."""
    known: list[Verdict] = []

    def verdict() -> Verdict:
        if not known:
            known.append(pending())
        return known[0]

    return verdict


def _settled(verdict: Verdict) -> Pending:
    return lambda: verdict
