"""The six letters: what the policy reads in each role and kind, in each prompt style.

A style turns a task, or the wish for one, into a `Prompt`. There are three:

- `R1`: an instruction, `User:` and `Assistant: <think>`; for base models (AZR section 3, appendix C; our wording).
- `Chat`: the same letters through the model's own chat template, no tags asked for; for instruct models.
- `Compact`: a heading and fenced blocks, no words; for the embedded nano model.

All styles are read by the same parser (`azr_mlx.selfplay.parsing`), which sees `prompt.opening + completion.text`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from azr_mlx.types import Kind, Prompt, Role, Task


class Style(Protocol):
    """How prompts are worded. `tags` says whether a reply must hold <think> and <answer> sections."""

    @property
    def tags(self) -> bool: ...

    @property
    def stop(self) -> tuple[str, ...]: ...

    def propose(self, kind: Kind, references: Sequence[Task]) -> Prompt: ...

    def propose_induction(self, lender: Task, pairs: int) -> Prompt: ...

    def solve(self, task: Task) -> Prompt: ...


def block(label: str, text: str) -> str:
    """A fenced block."""
    return f"```{label}\n{text}\n```\n"


# --------------------------------------------------------------------------------------------------------- compact


@dataclass(frozen=True)
class Compact:
    """Headings and fences only: every token counts in a model of a million parameters."""

    tags: bool = False
    stop: tuple[str, ...] = ()

    def propose(self, kind: Kind, references: Sequence[Task]) -> Prompt:
        shown = "".join(
            block("python", task.program) + block("input", task.cases[0].input) + block("output", task.cases[0].output)
            for task in references
        )
        return self._prompt(Role.PROPOSE, kind, f"propose {kind}\n{shown}new\n", "python", None, tuple(references))

    def propose_induction(self, lender: Task, pairs: int) -> Prompt:
        text = f"propose {Kind.INDUCTION}\n" + block("python", lender.program)
        return self._prompt(Role.PROPOSE, Kind.INDUCTION, text, "message", lender)

    def solve(self, task: Task) -> Prompt:
        if task.kind is Kind.INDUCTION:
            pairs = "".join(block("input", case.input) + block("output", case.output) for case in task.shown)
            return self._prompt(
                Role.SOLVE, task.kind, f"{task.kind}\n{pairs}" + block("message", task.message), "python", task
            )
        case = task.cases[0]
        given, asked = ("input", "output") if task.kind is Kind.DEDUCTION else ("output", "input")
        text = f"{task.kind}\n" + block("python", task.program) + block(given, getattr(case, given))
        # A deduction is not opened: the solver may work it out before its answer.
        return self._prompt(Role.SOLVE, task.kind, text, "" if task.kind is Kind.DEDUCTION else asked, task)

    @staticmethod
    def _prompt(
        role: Role, kind: Kind, text: str, opening: str, task: Task | None, references: tuple[Task, ...] = ()
    ) -> Prompt:
        opening = f"```{opening}\n" if opening else ""
        return Prompt(role, kind, text + opening, opening, task, references)

    @staticmethod
    def reply(prompt: Prompt, *texts: str) -> str:
        """A well-formed reply to `prompt` after its opening: what the model's pre-training shows it.

        `texts` are the contents of the blocks in order: the answer; or program and input; or message and inputs.
        """
        first = "" if prompt.opening else "```output\n"
        rest = "".join(block("input", text) for text in texts[1:])
        return f"{first}{texts[0]}\n```\n{rest}"


# ------------------------------------------------------------------------------------------------------ the letters

CODE_RULES = """\
Rules for the code:
- exactly one top-level function named `f`; helper functions and classes may stand above it or inside it
- `f` takes at least one argument and returns a value made of plain data (numbers, strings, lists, tuples, dicts, sets)
- the same input always gives the same output: no randomness, dates, files, network, input, printing or outside state
- it finishes within {seconds:g} seconds
- imports stand at the very top, and only these modules are allowed: {modules}"""

PROPOSE = """\
## Task: invent a new Python function and one input for it

Write a function that is unlike the examples below, with one matching input, so that {challenge}. It should take several
steps of careful reasoning: track state through transformations, combine algorithms or data structures, use control
flow, recursion, dynamic programming, or an idea of your own.

{rules}

Rules for the input: exactly one argument list for `f`, arguments separated by commas, strings in quotes.

You are judged on three things: the code runs and is valid; the task is hard, but not impossible, for the solver; it
differs from the examples.

First plan what makes the task hard. Then give the code in a ```python block and the input in an ```input block, like
this:

```python
def f(name, info):
    label = name.upper() + str(len(info))
    return label[::-1]
```
```input
'ada', {{'born': 1815}}
```
"""

CHALLENGE = {
    Kind.DEDUCTION: "a test-taker who sees the code and the input must work out the output",
    Kind.ABDUCTION: "a test-taker who sees the code and the output must find an input that produces it",
}

PROPOSE_INDUCTION = """\
## Task: write {pairs} inputs and a hint for a given function

Here is a function `f`:

{program}
Write {pairs} different inputs for it whose outputs differ from each other, so that together they show everything that
the function does. Also write one short message that helps a test-taker find the function from the inputs and outputs,
without giving away its code. The puzzle should be hard, but solvable.

Put each input in its own ```input block: one argument list for `f`, arguments separated by commas, strings in quotes.
Put the message in one ```message block. Think about what the inputs must cover before you write them.
"""

# The example stands before the task, so that the task is what was read last: a model of 135M parameters then gave a
# well-formed output in 22 of 48 replies instead of 3 (docs/LOG.md).
SOLVE = {
    Kind.DEDUCTION: """\
## Task: find the output

Work out, step by step, what the function `f` returns for the given input. Give the value in an ```output block, as a
Python literal: strings in quotes, several values as a tuple.

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

{program}{given}""",
    Kind.ABDUCTION: """\
## Task: find an input

Work out, step by step, an input for which the function `f` returns the given output. Any input that does so is right.
Give it in an ```input block, as the argument list of one call: arguments separated by commas, strings in quotes.

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

{program}{given}""",
    Kind.INDUCTION: """\
## Task: find the function

Find the Python function `f` that maps each input to its output. Your function is tested on further, hidden inputs, so
look for the general rule. Try it on every pair and correct it if one does not fit.

{rules}

Give the code in one ```python block, for example:

```python
def f(a):
    return a
```

### Your turn

{given}{message}""",
}


@dataclass(frozen=True)
class Letters:
    """The text of the six letters, shared by the styles `R1` and `Chat`."""

    seconds: float
    modules: tuple[str, ...]

    @property
    def rules(self) -> str:
        return CODE_RULES.format(seconds=self.seconds, modules=", ".join(self.modules))

    def propose(self, kind: Kind, references: Sequence[Task]) -> str:
        text = PROPOSE.format(challenge=CHALLENGE[kind], rules=self.rules)
        if references:
            text += "\n### Examples to differ from\n"
        for number, task in enumerate(references):
            case = task.cases[0]
            parts = block("python", task.program) + block("input", case.input) + block("output", case.output)
            text += f"<snippet_{number}>\n{parts}</snippet_{number}>\n"
        return text

    def propose_induction(self, program: str, pairs: int) -> str:
        return PROPOSE_INDUCTION.format(pairs=pairs, program=block("python", program))

    def solve(self, task: Task) -> str:
        if task.kind is Kind.INDUCTION:
            given = "".join(
                block(f"input_{number}", case.input) + block(f"output_{number}", case.output)
                for number, case in enumerate(task.shown)
            )
            return SOLVE[task.kind].format(given=given, message=block("message", task.message), rules=self.rules)
        case = task.cases[0]
        given = block("input", case.input) if task.kind is Kind.DEDUCTION else block("output", case.output)
        return SOLVE[task.kind].format(program=block("python", task.program), given=given)


R1_PREAMBLE = """\
A conversation between User and Assistant. The User asks a question and the Assistant solves it. The Assistant first \
reasons privately and then gives the answer. The reasoning stands between <think> and </think>, the answer between \
<answer> and </answer>, like this: <think> the reasoning </think> <answer> the answer </answer>.
"""


@dataclass(frozen=True)
class R1:
    """Think and answer tags in plain text, for base models."""

    letters: Letters
    tags: bool = True
    stop: tuple[str, ...] = ("</answer>",)

    def _prompt(
        self, role: Role, kind: Kind, letter: str, task: Task | None, references: tuple[Task, ...] = ()
    ) -> Prompt:
        text = f"{R1_PREAMBLE}User: {letter}\nAssistant: <think>"
        return Prompt(role, kind, text, "<think>", task, references)

    def propose(self, kind: Kind, references: Sequence[Task]) -> Prompt:
        return self._prompt(Role.PROPOSE, kind, self.letters.propose(kind, references), None, tuple(references))

    def propose_induction(self, lender: Task, pairs: int) -> Prompt:
        letter = self.letters.propose_induction(lender.program, pairs)
        return self._prompt(Role.PROPOSE, Kind.INDUCTION, letter, lender)

    def solve(self, task: Task) -> Prompt:
        return self._prompt(Role.SOLVE, task.kind, self.letters.solve(task), task)


@dataclass(frozen=True)
class Chat:
    """The letters through the model's chat template; `render(letter)` gives the whole prompt text."""

    letters: Letters
    render: Callable[[str], str]
    tags: bool = False
    stop: tuple[str, ...] = ()

    def _prompt(
        self, role: Role, kind: Kind, letter: str, task: Task | None, references: tuple[Task, ...] = ()
    ) -> Prompt:
        return Prompt(role, kind, self.render(letter), "", task, references)

    def propose(self, kind: Kind, references: Sequence[Task]) -> Prompt:
        return self._prompt(Role.PROPOSE, kind, self.letters.propose(kind, references), None, tuple(references))

    def propose_induction(self, lender: Task, pairs: int) -> Prompt:
        letter = self.letters.propose_induction(lender.program, pairs)
        return self._prompt(Role.PROPOSE, Kind.INDUCTION, letter, lender)

    def solve(self, task: Task) -> Prompt:
        return self._prompt(Role.SOLVE, task.kind, self.letters.solve(task), task)


def make_style(
    name: str, *, seconds: float, modules: Sequence[str], render: Callable[[str], str] | None = None
) -> Style:
    """The style of that name. `chat` needs `render`; an unknown name raises ValueError."""
    letters = Letters(seconds, tuple(modules))
    if name == "compact":
        return Compact()
    if name == "r1":
        return R1(letters)
    if name == "chat" and render is not None:
        return Chat(letters, render)
    raise ValueError(f"no prompt style {name!r}" if name != "chat" else "the chat style needs a chat template")
