"""Prompts: what the policy reads in each role, in the style that suits its model.

What is asked for is the kind's to say (`azr_mlx.selfplay.kinds`); how, a prompt style's:

- `Worded`: a style read from a file (`azr_mlx.config.prompt_style`, docs/prompts.md): wordings with fields in braces,
  worked examples as earlier turns, a reply that is begun for the model, texts that end it.
- `Compact`: a heading and fenced blocks, no words; for the embedded nano model, whose pre-training writes it.

All styles are read by the same parser (`azr_mlx.selfplay.parsing`), which sees `prompt.opening + completion.text`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from azr_mlx.config import ConfigError, load_style
from azr_mlx.config.prompt_style import COMPACT, PromptExample, PromptStyle, PromptWording, dump_style
from azr_mlx.errors import UsageError
from azr_mlx.executor.rules import normalised_key
from azr_mlx.selfplay.kinds import KINDS, kind_of
from azr_mlx.selfplay.task_kind import ProposalContext, TaskKind, block
from azr_mlx.types import Case, Kind, Prompt, Role, Task

Turn = tuple[str, str]  # a question and its reply
# A conversation as the model reads it: the last question, the beginning of its reply, the turns before them.
Render = Callable[[str, str, Sequence[Turn]], str]


class Style(Protocol):
    """How prompts are worded. `tags` says whether a reply must hold <think> and <answer> sections.

    A proposal of a kind whose proposer writes the program is asked for with `references` to differ from; of another
    kind, about the program of `source` and with `cases` inputs. `shown` holds the keys of the programs that the style's
    own examples show to a proposer: a copy of one is no proposal.
    """

    @property
    def tags(self) -> bool: ...

    @property
    def shown(self) -> frozenset[str]: ...

    def propose(
        self, kind: Kind, references: Sequence[Task] = (), source: Task | None = None, cases: int = 1
    ) -> Prompt: ...

    def solve(self, task: Task) -> Prompt: ...


@dataclass(frozen=True)
class Compact:
    """Headings and fences only: every token counts in a model of a million parameters."""

    tags: bool = False
    shown: frozenset[str] = frozenset()

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
- one top-level function named `f`, with at least one argument; helpers may stand above it or inside it
- it returns plain data (numbers, strings, lists, tuples, dicts, sets), and always the same for the same input
- no randomness, dates, files, network, input or printing; it finishes within {seconds:g} seconds
- imports stand at the top, and only of {modules}"""


@dataclass(frozen=True)
class Worded:
    """A style that is data. `rules` says what a program may do; `render` is the chat template, for styles that use it.

    Raises ConfigError when a wording names a field that its kind does not have.
    """

    style: PromptStyle
    rules: str
    render: Render | None = None

    def __post_init__(self) -> None:
        check_fields(self.style)

    @property
    def tags(self) -> bool:
        return self.style.tags

    @cached_property
    def shown(self) -> frozenset[str]:
        return frozenset(
            normalised_key(example.program) or example.program
            for (role, kind), wording in self.style.wordings.items()
            if role is Role.PROPOSE and KINDS[kind].chooses_program
            for example in wording.examples
        )

    def propose(
        self, kind: Kind, references: Sequence[Task] = (), source: Task | None = None, cases: int = 1
    ) -> Prompt:
        one, wording = KINDS[kind], self.style.wording(Role.PROPOSE, kind)
        context = ProposalContext(tuple(references), source, cases)
        shown = [(_example_task(kind, example), example.reply) for example in wording.examples]
        if wording.references == "turns":
            shown = shown[: max(0, len(shown) - len(references))] + [(task, "") for task in references]
        turns = [
            (one.propose_fields(_proposed_as(one, task, cases)), reply or one.proposed_reply(task))
            for task, reply in shown
        ]
        text, opening = self._conversation(wording, one.propose_wording, turns, one.propose_fields(context))
        return Prompt(Role.PROPOSE, kind, text, opening, source, context.references, self._stop(wording))

    def solve(self, task: Task) -> Prompt:
        one, wording = KINDS[task.kind], self.style.wording(Role.SOLVE, task.kind)
        shown = [(_example_task(task.kind, example), example.reply) for example in wording.examples]
        turns = [(one.solve_fields(example), reply or one.solved(example)) for example, reply in shown]
        text, opening = self._conversation(wording, one.solve_wording, turns, one.solve_fields(task))
        return Prompt(Role.SOLVE, task.kind, text, opening, task, stop=self._stop(wording))

    def _stop(self, wording: PromptWording) -> tuple[str, ...]:
        return self.style.stop if wording.stop is None else wording.stop

    def _conversation(
        self, wording: PromptWording, own: str, shown: Sequence[tuple[Mapping[str, str], str]], asked: Mapping[str, str]
    ) -> tuple[str, str]:
        """The whole prompt text, and the opening that it ends with."""
        first = own if wording.text is None else wording.text
        again = first if wording.again is None else wording.again
        questions = [
            fill(again if number else first, {**fields, "rules": self.rules}).strip("\n")
            for number, fields in enumerate([*(fields for fields, _ in shown), asked])
        ]
        turns = list(zip(questions, (reply.strip("\n") for _, reply in shown), strict=False))
        opening = self.style.opening if wording.opening is None else wording.opening
        plain = self.style.turns
        if plain is None:
            if self.render is None:
                raise ValueError(f"the prompt style {self.style.name} needs a chat template")
            return self.render(questions[-1], opening, turns), opening
        parts = [fill(plain.question, {"text": q}) + fill(plain.reply, {"text": r}) for q, r in turns]
        return plain.begin + "".join(parts) + fill(plain.question, {"text": questions[-1]}) + opening, opening


def _example_task(kind: Kind, example: PromptExample) -> Task:
    return Task(kind, example.program, example.cases, example.message)


def _proposed_as(one: TaskKind, task: Task, cases: int) -> ProposalContext:
    """What a proposer was asked when it proposed the task: nothing to differ from, or the program it is about."""
    return ProposalContext() if one.chooses_program else ProposalContext((), task, len(task.cases))


_FIELD = re.compile(r"\{([a-z_]+)\}")


def fill(template: str, fields: Mapping[str, str]) -> str:
    """The template with each {field} replaced once; other braces, and those in a field's text, stay as they are."""
    return _FIELD.sub(lambda match: fields.get(match[1], match[0]), template)


def check_style(name: str) -> None:
    """Raises ConfigError, one line, for a style that is not there or cannot be used."""
    check_fields(load_style(name))


def check_fields(style: PromptStyle) -> None:
    """Raises ConfigError for a wording that names an unknown field, or an example that its kind cannot show."""
    for (role, kind), wording in style.wordings.items():
        one, place = KINDS[kind], f"prompt style {style.name}: {role}.{kind}"
        sample = Task(kind, "", (Case("", ""),) * (2 if one.several_cases else 1))
        fields = one.solve_fields(sample) if role is Role.SOLVE else one.propose_fields(ProposalContext((), sample, 2))
        known = {*fields, "rules"}
        for text in (wording.text, wording.again):
            for name in _FIELD.findall(text or ""):
                if name not in known:
                    raise ConfigError(f"{place}: there is no field {{{name}}}; there are {', '.join(sorted(known))}")
        if wording.references == "turns" and not one.chooses_program:
            raise ConfigError(f"{place}: references: turns is for kinds whose proposers write the program themselves")
        for number, example in enumerate(wording.examples):
            task = _example_task(kind, example)
            try:
                one.check(task)
            except ValueError as error:
                raise ConfigError(f"{place}.examples[{number}]: {error}") from None
            if role is Role.SOLVE and not example.reply and not one.solved(task):
                raise ConfigError(f"{place}.examples[{number}]: lacks reply, which its other keys do not tell")
            _check_reply(style, one, role, task, example.reply, f"{place}.examples[{number}]")


def _check_reply(style: PromptStyle, one: TaskKind, role: Role, task: Task, reply: str, place: str) -> None:
    """An example's reply must begin as the model's own does, or the model is taught two forms."""
    wording = style.wording(role, one.kind)
    opening = style.opening if wording.opening is None else wording.opening
    made = reply or (one.solved(task) if role is Role.SOLVE else one.proposed_reply(task))
    if not made.startswith(opening):
        raise ConfigError(f"{place}: its reply begins with {made[:20]!r}, and the opening is {opening!r}")


def style_file(name: str) -> str:
    """A style as a YAML file to copy, with the kinds' own wordings where it has none.

    Raises ConfigError; UsageError for `compact`, which is no file.
    """
    style = load_style(name)
    if style.name == COMPACT:
        raise UsageError("the style compact is no file: the embedded model was pre-trained on it; copy another")
    wordings = {}
    for role in Role:
        for kind in Kind:
            own = KINDS[kind].solve_wording if role is Role.SOLVE else KINDS[kind].propose_wording
            wording = style.wording(role, kind)
            wordings[role, kind] = wording if wording.text is not None else replace(wording, text=own)
    return dump_style(replace(style, wordings=wordings))


def make_style(name: str, *, seconds: float, modules: Sequence[str], render: Callable[..., str] | None = None) -> Style:
    """The style of a shipped name or of a YAML file; one that goes through the chat template needs `render`.

    Raises ConfigError for one that is not there or not right, ValueError when `render` is missing.
    """
    style = load_style(name)
    if style.name == COMPACT:
        return Compact()
    if style.chat and render is None:
        raise ValueError(f"the prompt style {name} needs a chat template")
    return Worded(style, CODE_RULES.format(seconds=seconds, modules=", ".join(modules)), render)
