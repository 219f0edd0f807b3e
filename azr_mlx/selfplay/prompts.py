"""Prompt styles: what the policy reads in each role, in the form that suits its model.

A style renders propose and solve prompts. What they say is the kind's (`azr_mlx.selfplay.kinds`). There are three:

- `R1`: an instruction, `User:` and `Assistant: <think>`; for base models (AZR section 3, appendix C; our wording).
- `Chat`: the same prompt templates through the model's own chat template, no tags asked for; for instruct models.
- `Compact`: a heading and fenced blocks, no words; for the embedded nano model.

All styles are read by the same parser (`azr_mlx.selfplay.parsing`), which sees `prompt.opening + completion.text`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from azr_mlx.selfplay.kinds import KINDS, kind_of
from azr_mlx.selfplay.task_kind import ProposalContext, block
from azr_mlx.types import Kind, Prompt, Role, Task


class Style(Protocol):
    """How prompts are worded. `tags` says whether a reply must hold <think> and <answer> sections.

    A proposal of a kind whose proposer writes the program is asked for with `references` to differ from; of another
    kind, about the program of `source` and with `cases` inputs.
    """

    @property
    def tags(self) -> bool: ...

    @property
    def stop(self) -> tuple[str, ...]: ...

    def propose(
        self, kind: Kind, references: Sequence[Task] = (), source: Task | None = None, cases: int = 1
    ) -> Prompt: ...

    def solve(self, task: Task) -> Prompt: ...


@dataclass(frozen=True)
class Compact:
    """Headings and fences only: every token counts in a model of a million parameters."""

    tags: bool = False
    stop: tuple[str, ...] = ()

    def propose(
        self, kind: Kind, references: Sequence[Task] = (), source: Task | None = None, cases: int = 1
    ) -> Prompt:
        context = ProposalContext(tuple(references), source, cases)
        text = f"propose {kind}\n{KINDS[kind].propose_blocks(context)}"
        opening = _fence(KINDS[kind].propose_opening)
        return Prompt(Role.PROPOSE, kind, text + opening, opening, source, context.references)

    def solve(self, task: Task) -> Prompt:
        kind = KINDS[task.kind]
        text, opening = f"{task.kind}\n{kind.solve_blocks(task)}", _fence(kind.solve_opening)
        return Prompt(Role.SOLVE, task.kind, text + opening, opening, task)

    @staticmethod
    def reply(prompt: Prompt, *texts: str) -> str:
        """A well-formed reply to `prompt` after its opening: what the model's pre-training shows it.

        `texts` are the contents of the blocks in order: the answer; or what a proposal begins with, and its inputs.
        """
        first = "" if prompt.opening else _fence(kind_of(prompt).answer)
        rest = "".join(block("input", text) for text in texts[1:])
        return f"{first}{texts[0]}\n```\n{rest}"


def _fence(label: str) -> str:
    return f"```{label}\n" if label else ""


CODE_RULES = """\
Rules for the code:
- exactly one top-level function named `f`; helper functions and classes may stand above it or inside it
- `f` takes at least one argument and returns a value made of plain data (numbers, strings, lists, tuples, dicts, sets)
- the same input always gives the same output: no randomness, dates, files, network, input, printing or outside state
- it finishes within {seconds:g} seconds
- imports stand at the very top, and only these modules are allowed: {modules}"""


@dataclass(frozen=True)
class PromptTemplates:
    """The prompt templates of all kinds, filled in with what the executor allows; shared by `R1` and `Chat`."""

    seconds: float
    modules: tuple[str, ...]

    @property
    def rules(self) -> str:
        return CODE_RULES.format(seconds=self.seconds, modules=", ".join(self.modules))

    def propose(self, kind: Kind, context: ProposalContext) -> str:
        return KINDS[kind].propose_text(context, self.rules)

    def solve(self, task: Task) -> str:
        return KINDS[task.kind].solve_text(task, self.rules)


R1_PREAMBLE = """\
A conversation between User and Assistant. The User asks a question and the Assistant solves it. The Assistant first \
reasons privately and then gives the answer. The reasoning stands between <think> and </think>, the answer between \
<answer> and </answer>, like this: <think> the reasoning </think> <answer> the answer </answer>.
"""


@dataclass(frozen=True)
class R1:
    """Think and answer tags in plain text, for base models."""

    templates: PromptTemplates
    tags: bool = True
    stop: tuple[str, ...] = ("</answer>",)

    @staticmethod
    def _render(text: str) -> str:
        return f"{R1_PREAMBLE}User: {text}\nAssistant: <think>"

    def propose(
        self, kind: Kind, references: Sequence[Task] = (), source: Task | None = None, cases: int = 1
    ) -> Prompt:
        context = ProposalContext(tuple(references), source, cases)
        text = self._render(self.templates.propose(kind, context))
        return Prompt(Role.PROPOSE, kind, text, "<think>", source, context.references)

    def solve(self, task: Task) -> Prompt:
        return Prompt(Role.SOLVE, task.kind, self._render(self.templates.solve(task)), "<think>", task)


@dataclass(frozen=True)
class Chat:
    """The prompt templates through the model's chat template; `render(text)` gives the whole prompt text."""

    templates: PromptTemplates
    render: Callable[[str], str]
    tags: bool = False
    stop: tuple[str, ...] = ()

    def propose(
        self, kind: Kind, references: Sequence[Task] = (), source: Task | None = None, cases: int = 1
    ) -> Prompt:
        context = ProposalContext(tuple(references), source, cases)
        text = self.render(self.templates.propose(kind, context))
        return Prompt(Role.PROPOSE, kind, text, "", source, context.references)

    def solve(self, task: Task) -> Prompt:
        return Prompt(Role.SOLVE, task.kind, self.render(self.templates.solve(task)), "", task)


def make_style(
    name: str, *, seconds: float, modules: Sequence[str], render: Callable[[str], str] | None = None
) -> Style:
    """The style of that name. `chat` needs `render`; an unknown name raises ValueError."""
    templates = PromptTemplates(seconds, tuple(modules))
    if name == "compact":
        return Compact()
    if name == "r1":
        return R1(templates)
    if name == "chat" and render is not None:
        return Chat(templates, render)
    raise ValueError(f"no prompt style {name!r}" if name != "chat" else "the chat style needs a chat template")
