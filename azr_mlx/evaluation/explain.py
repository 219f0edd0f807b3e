"""`azr eval --explain`: one problem, what the model is asked, what it replies, and how that becomes a program."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from azr_mlx.evaluation.asking import Asker, cut
from azr_mlx.evaluation.benchmark import ANSWERS
from azr_mlx.evaluation.judging import Judge
from azr_mlx.evaluation.plan import Plan
from azr_mlx.evaluation.problems import Problem
from azr_mlx.executor import Executor
from azr_mlx.terminal import printable
from azr_mlx.types import Stop

_SHOWN = 6000  # characters of each text


def explain(
    console: Console, plan: Plan, asker: Asker, problem: Problem, row: Mapping[str, Any], executor: Executor
) -> None:
    """Print every step from the prompt to the verdict of one sample, a row of the file of samples."""
    question, raw = asker.ask(problem), str(row.get("text", row.get("completion", "")))
    wording = asker.wording
    program = row.get("solution") if "completion" not in row else None
    verdict = Judge(plan.benchmark, executor)(problem, str(row.get("completion", "")), program)

    def say(line: str) -> None:
        console.print(printable(line), markup=False, soft_wrap=True)

    def part(title: str, text: str) -> None:
        console.print(f"\n--- {title}", style="bold", markup=False, soft_wrap=True)
        more = f"\n... and {len(text) - _SHOWN} characters more" if len(text) > _SHOWN else ""
        say((text[:_SHOWN] + more) if text else "(nothing)")

    say(f"{plan.benchmark.title}, problem {problem.id}, prompt {asker.variant}: {wording.about or 'of your own'}")
    say(f"comparable with: {wording.harness or 'no published harness'}")
    say(f"answer {wording.answer}: {ANSWERS[wording.answer]}")
    say(f"stop texts: {', '.join(map(repr, question.stop)) or 'none'}")
    part("prompt" + (", the text that is given to the chat template included" if wording.chat else ""), question.text)
    if question.opening:
        part("the reply is begun with", question.opening)
    part("reply", raw)
    kept = cut(raw, question.stop)
    if len(kept) < len(raw):
        stop = next(one for one in question.stop if raw.startswith(one, len(kept)))
        say(f"\ncut at {stop!r}, after {len(kept)} of {len(raw)} characters")
    else:
        limit = " (at the token limit)" if row.get("stop") == str(Stop.LENGTH) else ""
        say(f"\nnot cut: no stop text in it, so it ended by itself or at one that was left out{limit}")
    part("answer, as it is judged" if program is None else "program, as it is judged", program or row["completion"])
    if program is None and problem.stub:
        say("\nIts program is the problem's stub and this below it.")
    say(f"\nverdict: {verdict.result}")


def sample_of(plan: Plan, rows: list[dict[str, Any]]) -> tuple[Problem, dict[str, Any]] | None:
    """The first problem of a plan that has a row, and that row."""
    first = {str(row["task_id"]): row for row in reversed(rows)}
    return next(((problem, first[problem.id]) for problem in plan.problems if problem.id in first), None)
