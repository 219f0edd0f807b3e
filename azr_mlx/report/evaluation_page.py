"""The page of an evaluation: scores, problems by outcome, and for each its prompt, replies, answers and first failure.

One HTML file in the style of the report, without a script: Jinja escapes all that a model wrote, and the page's own
policy lets nothing run or load. Its size is bounded: long texts are cut, and of problems that no longer fit only the
names are there, passed ones first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from azr_mlx import __version__
from azr_mlx.evaluation.judging import Score
from azr_mlx.evaluation.problems import Problem
from azr_mlx.evaluation.record import Evaluation, label
from azr_mlx.files import plain_errors, write_text
from azr_mlx.report.page import TEMPLATE
from azr_mlx.terminal import printable

ROOM = 3 << 20  # characters of all problems together
_LONGEST = 6000  # characters of one text
# Groups of problems, in the order of the page: (name, what it means).
GROUPS = {
    "won": "wrong before, right now",
    "lost": "right before, wrong now",
    "wrong": "the program ran and gave another result",
    "error": "an exception left the program, or it could not be read",
    "late": "over its time",
    "no answer": "nothing was there to be judged",
    "not judged": "the sandbox failed",
    "passed": "right",
}


@dataclass(frozen=True)
class ShownAnswer:
    """One sample: the reply as it was written, the answer that was judged, and the verdict. Texts of a model."""

    passed: bool
    result: str
    reply: str
    answer: str
    rights: str  # "3 of 10", of several samples


@dataclass(frozen=True)
class ShownProblem:
    """One problem with one sample of each side: the first that failed, else the first."""

    id: str
    prompt: str
    answers: tuple[ShownAnswer, ...]

    @property
    def size(self) -> int:
        return len(self.prompt) + sum(len(one.reply) + len(one.answer) + len(one.result) for one in self.answers)


@dataclass(frozen=True)
class ShownGroup:
    """Problems of one outcome: those that are shown, and the names of those that had no room."""

    name: str
    about: str
    problems: tuple[ShownProblem, ...]
    others: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.problems) + len(self.others)


def write_evaluation(path: Path, evaluations: Sequence[Evaluation], compared: Mapping[str, Any] | None = None) -> Path:
    """Write the page of one evaluation, or of two side by side, the earlier one first. Raises AzrError."""
    html = render_evaluation(evaluations, compared)
    with plain_errors(f"page {path}"):
        write_text(path, html)
    return path


def render_evaluation(
    evaluations: Sequence[Evaluation], compared: Mapping[str, Any] | None = None, room: int = ROOM
) -> str:
    """The page's text."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    records = [evaluation.record for evaluation in evaluations]
    return environment.get_template("evaluation.html").render(
        title=records[-1]["title"],
        records=records,
        labels=[printable(label(record)) for record in records],
        compared=compared,
        groups=group_problems(evaluations, room),
        made=time.strftime("%Y-%m-%d %H:%M"),
        version=__version__,
        style=Markup((TEMPLATE / "report.css").read_text(encoding="utf-8")),
        policy="default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    )


def group_problems(evaluations: Sequence[Evaluation], room: int) -> list[ShownGroup]:
    """Every problem in its group, in the order of `GROUPS`; those beyond `room` characters by name only."""
    sides = [_by_problem(evaluation) for evaluation in evaluations]
    found: dict[str, list[ShownProblem]] = {}
    for identity, (problem, _) in sides[-1].items():
        samples = [side[identity][1] for side in sides if identity in side]
        shares = [sum(score.passed for _, score in several) / len(several) for several in samples]
        if len(shares) == 2 and shares[0] != shares[1]:
            group = "won" if shares[1] > shares[0] else "lost"
        else:
            group = outcome(_telling(samples[-1]))
        ask = evaluations[-1].ask
        prompt = ask(problem).text if ask is not None else problem.stub or "\n".join(problem.fields.values())
        shown = ShownProblem(identity, _cut(prompt), tuple(_answer(several) for several in samples))
        found.setdefault(group, []).append(shown)
    groups = []
    for name, about in GROUPS.items():
        kept: list[ShownProblem] = []
        others: list[ShownProblem] = []
        for one in found.get(name, []):
            room -= one.size
            (kept if room >= 0 else others).append(one)
        if kept or others:
            groups.append(ShownGroup(name, about, tuple(kept), tuple(one.id for one in others)))
    return groups


Sample = tuple[Mapping[str, Any], Score]


def outcome(sample: Sample) -> str:
    """The group of GROUPS that one sample belongs to."""
    row, score = sample
    if score.passed:
        return "passed"
    if score.harness:
        return "not judged"
    if score.result.startswith("timed out"):
        return "late"
    if not str(row.get("completion", row.get("solution", ""))).strip():
        return "no answer"
    wrong = ("failed: failed", "failed: wrong", "failed: another")
    return "wrong" if score.result.startswith(wrong) or ": wrong result" in score.result else "error"


def _by_problem(evaluation: Evaluation) -> dict[str, tuple[Problem, list[Sample]]]:
    found: dict[str, tuple[Problem, list[Sample]]] = {}
    for problem, row, score in evaluation.judged.rows:
        found.setdefault(problem.id, (problem, []))[1].append((row, score))
    return found


def _telling(samples: Sequence[Sample]) -> Sample:
    """The sample that says most: the first that failed, else the first."""
    return next((one for one in samples if not one[1].passed), samples[0])


def _answer(samples: Sequence[Sample]) -> ShownAnswer:
    row, score = _telling(samples)
    answer = str(row.get("completion", row.get("solution", "")))
    rights = sum(one.passed for _, one in samples)
    return ShownAnswer(
        score.passed, _cut(score.result, 600), _cut(str(row.get("text", ""))), _cut(answer),
        f"{rights} of {len(samples)} right" if len(samples) > 1 else "",
    )  # fmt: skip


def _cut(text: str, most: int = _LONGEST) -> str:
    """A text of a model for the page: no control characters, and no more than so much of it."""
    shown = printable(text[:most])
    return f"{shown}\n… and {len(text) - most:,} characters more" if len(text) > most else shown
