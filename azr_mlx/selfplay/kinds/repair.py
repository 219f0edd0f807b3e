"""Repair: the program without its fault is hidden. The solver is shown a faulty program and a case that it fails.

The proposer is given a program from memory and puts one fault into it. The given program is the truth: both are run on
the proposed inputs, and the outputs of the given one become the cases. Not of AZR; off unless `tasks.kinds` names it.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from azr_mlx.executor import Executor, syntax, values
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.task_kind import (
    IDENTITY_CASES,
    Draft,
    ProposalContext,
    Run,
    TaskKind,
    block,
    repeats_inputs,
    returns,
)
from azr_mlx.types import Case, Kind, PendingVerdict, Task

PROPOSE = """\
Here is a function `f`:

{program}
Write it again with exactly one fault: change, add or remove a single line, such as a wrong operator, a wrong bound, a
wrong constant or a forgotten step. The function must still run and return a value for every input. Then write {count}
different inputs that both versions accept. For at least two of them the faulty version must return something else;
for others it may be right. A test-taker who sees the faulty version and one input that it gets wrong has to repair it.
The puzzle should be hard, but solvable.

{rules}

Give the whole faulty function in one ```python block, without a comment that tells the fault. Then put each input in
its own ```input block: one argument list for `f`, arguments separated by commas, strings in quotes.
"""

SOLVE = """\
The Python function `f` has one fault: for the given input it does not return the expected output. Find the fault and
write the function without it. Your function is tested on further, hidden inputs, so repair the cause: do not treat the
given input apart. Give the whole function in one ```python block.

### Example

```python
def f(a, b):
    return [a - b]
```
```input
1, 2
```
```output
[3]
```
Answer:
```python
def f(a, b):
    return [a + b]
```

### Your turn

{program}{input}{output}"""


class Repair(TaskKind):
    """The task's program is the faulty one; its cases say what is right. The first is shown, and the program fails it.

    The last is failed as well, and hidden with all between them.
    """

    kind = Kind("repair")
    short = "rep"
    hides = "fault"
    proposed = "a given program with one fault, and inputs"
    shown = "the faulty program and one case that it fails"
    right = "the answer returns the output of every input, shown and hidden"

    several_cases = True
    propose_opening = "python"
    solve_opening = "python"
    answer = "python"
    propose_wording = PROPOSE
    solve_wording = SOLVE

    def seeds(self, cases: int) -> list[Task]:
        return [Task(self.kind, "def f(a):\n    return [a]", IDENTITY_CASES[:cases])]

    def propose_fields(self, context: ProposalContext) -> dict[str, str]:
        return {"program": block("python", context.program), "count": str(context.cases)}

    def proposed_reply(self, task: Task) -> str:
        return block("python", task.program) + "".join(block("input", case.input) for case in task.cases)

    def propose_blocks(self, context: ProposalContext) -> str:
        return block("python", context.program)

    def parse_proposal(self, answer: str, context: ProposalContext) -> Draft:
        program = parsing.proposal(answer).program
        return Draft(program, parsing.last_inputs(answer, context.cases), source=context.program)

    def refuse(self, draft: Draft) -> str | None:
        if repeats_inputs(draft.inputs):
            return "repeated inputs"
        return one_fault(draft.source, draft.program)

    def programs(self, draft: Draft) -> tuple[str, ...]:
        return draft.program, draft.source

    def make_task(self, draft: Draft, runs: Sequence[Run], step: int) -> Task | str:
        faulty, truth = runs
        failed: list[Case] = []
        passed: list[Case] = []
        for case, value, wanted in zip(truth.cases, faulty.values, truth.values, strict=True):
            (passed if values.equal(value, wanted) else failed).append(case)
        if not failed:
            return "no fault"
        if len(failed) == 1:
            return "fault shows once"  # an answer that treats the shown input apart would pass the hidden ones
        return Task(self.kind, draft.program, (failed[0], *passed, *failed[1:]), step=step)

    def solve_fields(self, task: Task) -> dict[str, str]:
        case = task.cases[0]
        return {
            "program": block("python", task.program),
            "input": block("input", case.input),
            "output": block("output", case.output),
        }

    def solve_blocks(self, task: Task) -> str:
        return block("python", task.program) + _failing(task)

    def parse_answer(self, answer: str, tags: bool) -> str | None:
        return parsing.solver_program(answer)

    def verify(self, task: Task, answer: str, executor: Executor) -> PendingVerdict:
        """The answer must map every input to its output. The imports of the faulty program are free."""
        program = parsing.import_lines(task.program) + answer
        return returns(program, [case.input for case in task.cases], task.cases, executor)


def _failing(task: Task) -> str:
    case = task.cases[0]
    return block("input", case.input) + block("output", case.output)


def one_fault(source: str, program: str) -> str | None:
    """Why a program is not the source with one line changed, added or removed ("no fault", "more than one fault").

    Layout, comments and quotes do not count: both are compared as Python writes them, in time linear in their length.
    """
    try:
        before, after = (ast.unparse(syntax.parse(text, "<azr program>")).splitlines() for text in (source, program))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "nested too deep"  # it was parsed before: only the depth can be the trouble
    if before == after:
        return "no fault"
    shorter, first, last = min(len(before), len(after)), 0, 0
    while first < shorter and before[first] == after[first]:
        first += 1
    while last < shorter - first and before[-1 - last] == after[-1 - last]:
        last += 1
    return None if max(len(before), len(after)) - first - last <= 1 else "more than one fault"


KIND = Repair()
