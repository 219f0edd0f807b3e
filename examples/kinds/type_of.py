"""A task kind of your own: what type does the function return? Copy this file to azr_mlx/selfplay/kinds/ and play it:

    cp examples/kinds/type_of.py azr_mlx/selfplay/kinds/
    azr train --config nano --steps 5 --set tasks.kinds=deduction,type_of

It derives from `TripletKind`, which has the proposer's side; docs/method.md has the whole list.
"""

from __future__ import annotations

from azr_mlx.executor import Executor, boundary
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.task_kind import RIGHT, WRONG, TripletKind, block, settled
from azr_mlx.types import Kind, PendingVerdict, Task

SOLVE = """\
Which type does the value have that the function `f` returns for the given input? Give its name in a ```type block, as
Python's type(value).__name__ has it.

{program}{input}"""


class TypeOf(TripletKind):
    kind = Kind("type_of")
    short = "typ"
    hides = "type of the output"
    shown = "the program and the input"
    right = "the answer is the name of the type of the output"

    challenge = "a test-taker who sees the code and the input must say which type comes out"
    solve_opening = "type"
    answer = "type"
    solve_wording = SOLVE

    def solve_fields(self, task: Task) -> dict[str, str]:
        return {"program": block("python", task.program), "input": block("input", task.cases[0].input)}

    def solve_blocks(self, task: Task) -> str:
        return block("python", task.program) + block("input", task.cases[0].input)

    def parse_answer(self, answer: str, tags: bool) -> str | None:
        found = parsing.blocks(answer, self.answer)
        return found[-1] if found else None

    def verify(self, task: Task, answer: str, executor: Executor) -> PendingVerdict:
        """Settled by reading: the gold output is a literal, and the answer is compared as text, never evaluated."""
        value = boundary.read_value(task.cases[0].output)
        return settled(RIGHT if answer.strip() == type(value).__name__ else WRONG)


KIND = TypeOf()
