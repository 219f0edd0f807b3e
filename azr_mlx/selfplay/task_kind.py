"""What a task kind is: everything that differs between kinds, behind one interface.

A kind is a way of hiding a part of what a program does. It is one module of `azr_mlx/selfplay/kinds`; the proposer, the
solver, the prompt styles, the buffer, the metrics and the report ask that module and never compare names of kinds.

    propose_*, parse_proposal, refuse, programs, make_task     from a prompt to a task that Python has confirmed
    solve_*, parse_answer, verify                              from a task to a verdict on an answer

Wordings are templates with fields in braces: a prompt style (`azr_mlx.selfplay.prompts`) takes a kind's own wording or
words it anew, and fills in the same fields.

Model text comes in through `parse_*` and is only cut and matched there. What is run, is run by the executor.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from azr_mlx.executor import Executor, Job, Outcome, Status, boundary
from azr_mlx.executor.boundary import Refused
from azr_mlx.selfplay import parsing
from azr_mlx.types import Case, Kind, PendingVerdict, Task, Verdict

WRONG = Verdict(True, False, "wrong")
RIGHT = Verdict(True, True, "ok")

# The one program that everything starts from (AZR figure 4), and what it returns for inputs of every type.
IDENTITY = "def f(a):\n    return a"
_INPUTS = (
    "'Hello world'", "1", "{'name': 'Ada', 'born': 1815}", "(1.5, 'two', 3)", "'[[1, 0], [0, 1]]'", "123456789012345",
    "[3, 1, 2]", "True", "''", "-7", "[[1], [2, 3]]", "{4, 5}", "0.25", "('a', 'b')", "[]",
)  # fmt: skip
IDENTITY_CASES = (*(Case(text, text) for text in _INPUTS), Case("2 ** 10", "1024"))


def block(label: str, text: str) -> str:
    """A fenced block."""
    return f"```{label}\n{text}\n```\n"


@dataclass(frozen=True)
class ProposalContext:
    """What a proposal prompt is made from: example tasks to differ from, or the program that a task is to be about."""

    references: tuple[Task, ...] = ()
    source: Task | None = None
    cases: int = 1  # how many inputs a proposal with several cases holds

    @property
    def program(self) -> str:
        """The source program. Raises ValueError when there is none."""
        if self.source is None:
            raise ValueError("this kind of proposal needs the task that lends its program")
        return self.source.program


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposal as it was read: Python has not said anything of it yet. `source` is the program it was asked about."""

    program: str
    inputs: tuple[str, ...]
    message: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """What one program of a draft returned: a value for each of the draft's inputs, and the same as cases."""

    values: tuple[object, ...]
    cases: tuple[Case, ...]


class TaskKind(ABC):
    """One kind of task. It has no state: one instance of each serves every run."""

    kind: ClassVar[Kind]
    short: ClassVar[str]  # three letters, for the columns of a terminal
    # A row of docs/kinds.md: what is hidden, what a proposer writes, what a solver is shown, when its answer is right.
    hides: ClassVar[str]
    proposed: ClassVar[str]
    shown: ClassVar[str]
    right: ClassVar[str]

    # Whether the proposer writes the task's program itself. If so it is shown examples, may be limited to a number of
    # tasks about one program, and its programs are lent to the other kinds, which are asked about a given program.
    chooses_program: ClassVar[bool] = False
    several_cases: ClassVar[bool] = False  # two cases or more; else exactly one
    # The label of the block that the compact style opens for the reply; "" opens none, so that there is room to reason.
    propose_opening: ClassVar[str]
    solve_opening: ClassVar[str]
    answer: ClassVar[str]  # the label of the block that holds an answer
    # The kind's own wordings, for styles that have none for it. The field {rules} says what a program may do.
    propose_wording: ClassVar[str]
    solve_wording: ClassVar[str]

    @property
    def one_case_of_own_program(self) -> bool:
        """Whether a task is a (program, input, output) triplet: then it is one of every other such kind as well."""
        return self.chooses_program and not self.several_cases

    def check(self, task: Task) -> None:
        """Raises ValueError when a task has a number of cases that this kind cannot have."""
        count = len(task.cases)
        if count < 2 if self.several_cases else count != 1:
            needed = "at least 2 cases" if self.several_cases else "exactly 1 case"
            raise ValueError(f"a task of the kind {self.kind} has {needed}, not {count}")

    @abstractmethod
    def seeds(self, cases: int) -> list[Task]:
        """The tasks that a run starts from; `cases` is how many inputs a task with several cases gets."""

    # Proposing --------------------------------------------------------------------------------------------------

    @abstractmethod
    def propose_fields(self, context: ProposalContext) -> dict[str, str]:
        """What a wording of a proposal may name in braces, beside {rules}."""

    @abstractmethod
    def proposed_reply(self, task: Task) -> str:
        """The blocks of a reply that proposes this task: how an example is shown to a proposer."""

    @abstractmethod
    def propose_blocks(self, context: ProposalContext) -> str:
        """The same for the compact style: what stands between its heading and its opening."""

    @abstractmethod
    def parse_proposal(self, answer: str, context: ProposalContext) -> Draft:
        """The parts of a proposal. Raises parsing.ParseError, with one of a few fixed reasons."""

    def refuse(self, draft: Draft) -> str | None:
        """Why this kind refuses a draft that keeps the rules of every kind, by reading alone; or None."""
        return None

    def programs(self, draft: Draft) -> tuple[str, ...]:
        """The programs that are run on the draft's inputs, each twice, before `make_task` is asked."""
        return (draft.program,)

    @abstractmethod
    def make_task(self, draft: Draft, runs: Sequence[Run], step: int) -> Task | str:
        """The task of a draft, by the runs of its `programs`; or why it is none."""

    # Solving ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def solve_fields(self, task: Task) -> dict[str, str]:
        """What a wording of a task to solve may name in braces, beside {rules}."""

    def copies(self, task: Task) -> tuple[str, ...]:
        """Answers that only copy what the task shows: with `tasks.reject_identity` none of them may solve it."""
        return ()

    def solved(self, task: Task) -> str:
        """The blocks of a right reply: how an example is shown to a solver. "" when the task does not hold one."""
        return ""

    @abstractmethod
    def solve_blocks(self, task: Task) -> str:
        """The same for the compact style: what stands between its heading and its opening."""

    @abstractmethod
    def parse_answer(self, answer: str, tags: bool) -> str | None:
        """The text that answers a task; None for a reply without its block. `tags`: an answer section was there."""

    @abstractmethod
    def verify(self, task: Task, answer: str, executor: Executor) -> PendingVerdict:
        """Whether the answer is right. The gold outputs never leave this process."""


# The form is shown with placeholders: a small model copies a complete program, and a copy is no new task.
PROPOSE_TRIPLET = """\
Invent a new Python function and one input for it, so that {challenge}. It should take several steps of careful
reasoning: track state through transformations, combine algorithms or data structures, use control flow, recursion,
dynamic programming, or an idea of your own. The task should be hard, but not impossible, and unlike the examples.

{rules}

Give the code in a ```python block and the arguments of one call, separated by commas, in an ```input block:

```python
def f(<arguments>):
    <your code>
```
```input
<the arguments of one call>
```
{references}"""


class TripletKind(TaskKind):
    """A kind whose tasks are one program of the proposer's own with one input; a member of the triplet is hidden."""

    chooses_program = True
    propose_opening = "python"
    proposed = "a program and an input"
    propose_wording = PROPOSE_TRIPLET
    challenge: ClassVar[str]  # what a solver has to do, for the wording

    def seeds(self, cases: int) -> list[Task]:
        return [Task(self.kind, IDENTITY, (Case('"Hello world"', "'Hello world'"),))]

    def propose_fields(self, context: ProposalContext) -> dict[str, str]:
        references = "".join(map(self.proposed_reply, context.references))
        return {
            "challenge": self.challenge,
            "references": f"\n### Examples to differ from\n\n{references}" if references else "",
        }

    def proposed_reply(self, task: Task) -> str:
        return block("python", task.program) + block("input", task.cases[0].input)

    def propose_blocks(self, context: ProposalContext) -> str:
        return "".join(map(triplet, context.references)) + "new\n"

    def parse_proposal(self, answer: str, context: ProposalContext) -> Draft:
        found = parsing.proposal(answer)
        return Draft(found.program, (found.input,))

    def make_task(self, draft: Draft, runs: Sequence[Run], step: int) -> Task | str:
        return Task(self.kind, draft.program, runs[0].cases, draft.message, step)

    def parse_answer(self, answer: str, tags: bool) -> str | None:
        if not tags and not parsing.blocks(answer, self.answer):
            return None
        return parsing.solver_value(answer, self.answer)


def triplet(task: Task) -> str:
    """A task's program with its first case, as blocks."""
    case = task.cases[0]
    return block("python", task.program) + block("input", case.input) + block("output", case.output)


def repeats_inputs(inputs: Sequence[str]) -> bool:
    """Whether fewer than eight of ten inputs differ (spaces aside). HARDENED: the official code never looks."""
    return len({"".join(text.split()) for text in inputs}) < 0.8 * len(inputs)


def settled(verdict: Verdict) -> PendingVerdict:
    """A verdict that needs no waiting."""
    return lambda: verdict


def returns(program: str, inputs: Sequence[str], cases: Sequence[Case], executor: Executor) -> PendingVerdict:
    """Whether the program, given the inputs one by one, returns the outputs of the cases. It is run at once."""
    future = executor.submit(Job(program, tuple(inputs)))
    return lambda: compare(future.result(), cases)


def compare(outcome: Outcome, cases: Sequence[Case]) -> Verdict:
    """What the values of a run say of an answer, whatever they are and however many."""
    if outcome.status is Status.SANDBOX_ERROR:
        return Verdict(True, False, "sandbox error", detail=outcome.detail, dropped=True)
    if not outcome.ok:
        return Verdict(True, False, str(outcome.status).replace("-", " "), detail=outcome.detail)
    return judged(boundary.all_match([case.output for case in cases], outcome.values))


def judged(right: bool | Refused) -> Verdict:
    """The verdict on a comparison with gold outputs."""
    if isinstance(right, Refused):  # the task is at fault, not the answer
        return Verdict(True, False, right.why, detail=right.detail, dropped=True)
    return RIGHT if right else WRONG
