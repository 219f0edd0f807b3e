"""The solver: asking for answers, and checking them against what Python says.

The gold answer never leaves this process: the child gets a program and arguments, and the value that comes back is
compared here, with Python's `==` on plain data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from azr_mlx.executor import Executor
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.selfplay.prompts import Style
from azr_mlx.selfplay.task_kind import settled
from azr_mlx.types import PendingVerdict, Prompt, Rollout, Task, Verdict

MALFORMED = Verdict(False, False, "no answer block")
BAD_TAGS = Verdict(False, False, "bad tags")


@dataclass(frozen=True)
class Solver:
    """Words tasks and verifies answers (AZR section 3.3.4). Equal answers to a task are run once."""

    style: Style
    executor: Executor
    _known: dict[tuple[str, str, str], PendingVerdict] = field(default_factory=dict)

    def ask(self, task: Task) -> Prompt:
        return self.style.solve(task)

    def forget(self) -> None:
        """Drop the verdicts kept for equal answers; between steps they only cost memory."""
        self._known.clear()

    def judge(self, rollout: Rollout, tags: bool = True) -> PendingVerdict:
        """Whether the reply to a task is well formed and right. What its kind has to run, runs at once.

        tags False: in a style with tags a reply may be right although its sections are not well formed. It is still
        not valid, so that practice pays for the form, and a task is as hard as its answers say (AZR's released code
        measures difficulty so).
        """
        task = rollout.prompt.task
        if task is None:
            raise ValueError("a solver prompt carries its task")
        reply, kind = rollout.reply, KINDS[task.kind]
        formed = not self.style.tags or parsing.well_formed(reply)
        if not formed and tags:
            return settled(BAD_TAGS)
        section = parsing.answer_section(reply) if self.style.tags else reply
        answer = kind.parse_answer(section, self.style.tags) if section or formed else None
        if answer is None:
            return settled(MALFORMED if formed else BAD_TAGS)
        pending = self._once(task, answer, lambda: kind.verify(task, answer, self.executor))
        return pending if formed else lambda: replace(pending(), valid=False, why=BAD_TAGS.why)

    def _once(self, task: Task, answer: str, judge: Callable[[], PendingVerdict]) -> PendingVerdict:
        name = (str(task.kind), f"{task.program}\0{task.cases}", answer)
        if name not in self._known:
            self._known[name] = once(judge())
        return self._known[name]


def once(pending: PendingVerdict) -> PendingVerdict:
    """A pending verdict that is worked out once, however often it is asked for."""
    known: list[Verdict] = []

    def verdict() -> Verdict:
        if not known:
            known.append(pending())
        return known[0]

    return verdict
