"""Deduction: the output is hidden. The solver is shown a program and an input and says what the program returns."""

from __future__ import annotations

from azr_mlx.executor import Executor, boundary
from azr_mlx.executor.boundary import Refused
from azr_mlx.selfplay.task_kind import TripletKind, block, judged, settled
from azr_mlx.types import Kind, PendingVerdict, Task, Verdict

# The example stands before the task, so that the task is what was read last: a model of 135M parameters then gave a
# well-formed output in 22 of 48 replies instead of 3 (docs/LOG.md).
SOLVE = """\
Work out, step by step, what the function `f` returns for the given input. Then give the value in an ```output block, as
a Python literal: strings in quotes, several values as a tuple.

### Example

```python
def f(a, b):
    return [a + b]
```
```input
1, 2
```
Answer:
```output
[3]
```

### Your turn

{program}{input}"""


class Deduction(TripletKind):
    kind = Kind.DEDUCTION
    short = "ded"
    hides = "output"
    shown = "the program and the input"
    right = "the value equals what the program returned"

    challenge = "a test-taker who sees the code and the input must work out the output"
    solve_opening = ""  # the solver may work it out before its answer
    answer = "output"
    solve_wording = SOLVE

    def solve_fields(self, task: Task) -> dict[str, str]:
        return {"program": block("python", task.program), "input": block("input", task.cases[0].input)}

    def solved(self, task: Task) -> str:
        return block("output", task.cases[0].output)

    def solve_blocks(self, task: Task) -> str:
        return block("python", task.program) + block("input", task.cases[0].input)

    def copies(self, task: Task) -> tuple[str, ...]:
        given = boundary.read_arguments(task.cases[0].input)
        return () if isinstance(given, Refused) else tuple(map(repr, (*given[0], *given[1].values())))

    def verify(self, task: Task, answer: str, executor: Executor) -> PendingVerdict:
        """Settled by reading: nothing is run."""
        return settled(judge_output(task.cases[0].output, answer))


def judge_output(gold: str, text: str) -> Verdict:
    """Whether a text is a literal that equals the gold output."""
    value = boundary.read_value(text)
    if isinstance(value, Refused):
        return Verdict(True, False, value.why, detail=value.detail)
    return judged(boundary.matches(gold, value))


KIND = Deduction()
