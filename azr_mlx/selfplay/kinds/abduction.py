"""Abduction: the input is hidden. The solver is shown a program and an output and finds an input that gives it."""

from __future__ import annotations

from azr_mlx.executor import Executor, boundary
from azr_mlx.executor.boundary import Refused
from azr_mlx.selfplay.task_kind import TripletKind, block, returns, settled
from azr_mlx.types import Kind, PendingVerdict, Task, Verdict

# The example stands before the task, so that the task is what was read last (as in a deduction).
SOLVE = """\
Work out, step by step, an input for which the function `f` returns the given output. Any input that does so is right.
Then give it in an ```input block, as the argument list of one call: arguments separated by commas, strings in quotes.

### Example

```python
def f(a, b):
    return [a + b]
```
```output
[3]
```
Answer:
```input
1, 2
```

### Your turn

{program}{output}"""


class Abduction(TripletKind):
    kind = Kind.ABDUCTION
    short = "abd"
    hides = "input"
    shown = "the program and the output"
    right = "the program returns the output for the answer, whichever input it is"

    challenge = "a test-taker who sees the code and the output must find an input that produces it"
    solve_opening = "input"
    answer = "input"
    solve_wording = SOLVE

    def solve_fields(self, task: Task) -> dict[str, str]:
        return {"program": block("python", task.program), "output": block("output", task.cases[0].output)}

    def solved(self, task: Task) -> str:
        return block("input", task.cases[0].input)

    def solve_blocks(self, task: Task) -> str:
        return block("python", task.program) + block("output", task.cases[0].output)

    def copies(self, task: Task) -> tuple[str, ...]:
        return (task.cases[0].output,)

    def verify(self, task: Task, answer: str, executor: Executor) -> PendingVerdict:
        """The answer must be the literal arguments of one call, for which the program returns the gold output."""
        arguments = boundary.read_arguments(answer)
        if isinstance(arguments, Refused):
            return settled(Verdict(True, False, arguments.why, detail=arguments.detail))
        return returns(task.program, (answer,), task.cases, executor)


KIND = Abduction()
