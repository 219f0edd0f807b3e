"""Induction: the program is hidden. The solver is shown inputs, outputs and a hint, and writes the program."""

from __future__ import annotations

from collections.abc import Sequence

from azr_mlx.executor import Executor, values
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.task_kind import (
    IDENTITY,
    IDENTITY_CASES,
    Draft,
    ProposalContext,
    Run,
    TaskKind,
    block,
    repeats_inputs,
    returns,
)
from azr_mlx.types import Kind, PendingVerdict, Task

PROPOSE = """\
Here is a function `f`:

{program}
Write {count} different inputs for it whose outputs differ from each other, so that together they show everything that
the function does. Also write one short message that helps a test-taker find the function from the inputs and outputs,
without giving away its code. The puzzle should be hard, but solvable.

First put the message in one ```message block. Then put each input in its own ```input block: one argument list for `f`,
arguments separated by commas, strings in quotes.
"""

SOLVE = """\
Find the Python function `f` that gives these results. It is tested on further, hidden inputs, so look for the general
rule. Try it on every line and correct it if one does not fit.

{rules}

Give the code in one ```python block, like this:

```python
def f(<arguments>):
    <your code>
```

### Your turn

{results}{message}"""


class Induction(TaskKind):
    """The first half of the cases is shown, the others are hidden and decide (AZR section 3.2)."""

    kind = Kind.INDUCTION
    short = "ind"
    hides = "program"
    proposed = "inputs for a given program, and a hint"
    shown = "the first half of the inputs and outputs, and the hint"
    right = "the answer returns the output of every hidden input"

    several_cases = True
    propose_opening = "message"
    solve_opening = "python"
    answer = "python"
    propose_wording = PROPOSE
    solve_wording = SOLVE

    def seeds(self, cases: int) -> list[Task]:
        return [Task(self.kind, IDENTITY, IDENTITY_CASES[:cases], "Return what you are given.")]

    def propose_fields(self, context: ProposalContext) -> dict[str, str]:
        return {"program": block("python", context.program), "count": str(context.cases)}

    def proposed_reply(self, task: Task) -> str:
        return block("message", task.message) + "".join(block("input", case.input) for case in task.cases)

    def propose_blocks(self, context: ProposalContext) -> str:
        return block("python", context.program)

    def parse_proposal(self, answer: str, context: ProposalContext) -> Draft:
        inputs = parsing.last_inputs(answer, context.cases)
        return Draft(context.program, inputs, parsing.message(answer), context.program)

    def refuse(self, draft: Draft) -> str | None:
        if repeats_inputs(draft.inputs):
            return "repeated inputs"
        if "def f" in draft.message:
            return "message tells the code"  # HARDENED: the prompt forbids it, the official code never looks
        return None

    def make_task(self, draft: Draft, runs: Sequence[Run], step: int) -> Task | str:
        (run,) = runs
        if all(values.equal(run.values[0], value) for value in run.values[1:]):
            return "constant output"  # HARDENED: a constant would solve it
        return Task(self.kind, draft.program, run.cases, draft.message, step)

    def solve_fields(self, task: Task) -> dict[str, str]:
        results = "".join(f"f({case.input}) == {case.output}\n" for case in task.shown)
        return {"results": block("python", results.rstrip("\n")), "message": block("message", task.message)}

    def solved(self, task: Task) -> str:
        return block("python", task.program)

    def solve_blocks(self, task: Task) -> str:
        pairs = "".join(block("input", case.input) + block("output", case.output) for case in task.shown)
        return pairs + block("message", task.message)

    def parse_answer(self, answer: str, tags: bool) -> str | None:
        return parsing.solver_program(answer)

    def verify(self, task: Task, answer: str, executor: Executor) -> PendingVerdict:
        """The answer must map every hidden input to its output. The imports of the task's program are free."""
        program = parsing.import_lines(task.program) + answer
        return returns(program, [case.input for case in task.hidden], task.hidden, executor)


KIND = Induction()
