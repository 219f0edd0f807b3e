"""azr demo: what it tells is what happened in a real step, and it leaves nothing behind."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.run import demo as module
from azr_mlx.run.demo import choose, demo
from azr_mlx.types import Kind, Scored, Step, Verdict
from tests.report.runs import make_step

SETTINGS = config.load("nano")


def made_up(hostile: bool = False) -> Step:
    return make_step(0, 10, random.Random(0), SETTINGS, hostile)


def judged(step: Step, task: object, right: int, wrong: int, malformed: int = 0) -> Step:
    """The step with its attempts at a task judged so."""
    [example] = [one for one in step.attempts if one.rollout.prompt.task is task][:1]
    verdicts = [
        *[Verdict(True, True, "ok")] * right, *[Verdict(True, False, "wrong")] * wrong,
        *[Verdict(False, False, "no output block")] * malformed,
    ]  # fmt: skip
    others = [one for one in step.attempts if one.rollout.prompt.task is not task]
    return replace(step, attempts=[*others, *(Scored(example.rollout, v, 0.0, attempt=True) for v in verdicts)])


def only_deductions_and_abductions(step: Step) -> Step:
    """Two proposals, whose attempts are still to be judged."""
    asked = {id(one.rollout.prompt.task) for one in step.attempts}
    first = next(p for p in step.proposals if p.kind is Kind.DEDUCTION and id(p.verdict.task) in asked)
    second = next(p for p in step.proposals if p.kind is Kind.ABDUCTION and id(p.verdict.task) in asked)
    tasks = {id(first.verdict.task), id(second.verdict.task)}
    kept = [one for one in step.attempts if id(one.rollout.prompt.task) in tasks]
    return replace(step, proposals=[replace(first, solve_rate=0.2), replace(second, solve_rate=0.5)], attempts=kept)


def test_a_task_is_told_that_some_attempts_solve_and_others_answer_wrongly() -> None:
    step = only_deductions_and_abductions(made_up())
    deduction, abduction = (one.verdict.task for one in step.proposals)
    both = judged(judged(step, deduction, 1, 4), abduction, 2, 2)
    example = choose(both)
    assert example is not None
    assert (example.task, example.solved, example.attempts) == (
        deduction,
        1,
        5,
    )  # although its rate is further from 1/2
    assert example.right.verdict.correct
    assert not example.wrong.verdict.correct
    second = choose(judged(judged(step, deduction, 5, 0), abduction, 2, 2))
    assert second is not None
    assert second.task is abduction


def test_a_reply_without_the_form_is_no_example_of_a_wrong_one() -> None:
    step = only_deductions_and_abductions(made_up())
    deduction, abduction = (one.verdict.task for one in step.proposals)
    assert choose(judged(judged(step, deduction, 3, 0, malformed=2), abduction, 0, 4)) is None


def test_what_a_model_writes_cannot_steer_the_terminal() -> None:
    assert module._block("a\x1b[31mb\u202ec") == "      a\\x1b[31mb\\u202ec"


def test_it_tells_what_happened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[tuple[Step, module.DemoTask]] = []
    tell = module._tell

    def watched(say: module.Print, settings: config.Config, step: Step, example: module.DemoTask) -> None:
        told.append((step, example))
        tell(say, settings, step, example)

    monkeypatch.setattr(module, "_tell", watched)
    fewer = ("batch.attempts=4", "batch.solves=1", "batch.solve_group=2", "buffer.seed_size=12", "buffer.seed_rounds=2")
    monkeypatch.setattr(module, "CHANGES", (*module.CHANGES, *fewer))
    lines: list[str] = []
    demo(lines.append, steps=1)
    text = "\n".join(lines)
    [(_, example)] = told
    for line in example.task.program.splitlines():
        assert f"      {line}\n" in text
    assert f"f({example.task.cases[0].input}) -> {example.task.cases[0].output}" in text
    assert f"attempts it {example.attempts} times" in text
    flat = " ".join(text.split())
    assert f"{example.solved} of {example.attempts} are right" in flat
    assert example.proposal.reward == 1 - example.solved / example.attempts
    assert re.search(rf"the proposal +{example.proposal.reward:.2f} ", text)
    assert re.search(r"the right attempt +1\.00 +advantage \+", text)
    assert re.search(r"the wrong attempt +-0\.50 +advantage -", text)
    # The gradient of this very step has raised the odds of the right attempt against the wrong one.
    found = re.search(r"After one step the model would write the right attempt ([\d.]+) times as often, the wrong one "
                      r"([\d.]+) times as often", flat)  # fmt: skip
    assert found
    assert float(found.group(1)) > float(found.group(2))
    assert re.search(r"step +\d+ +\d+ of 24 proposals were tasks", text)
    assert lines[-1].strip() == "azr train --config nano"
    assert max(len(line) for line in text.splitlines()) <= 120
    assert list(tmp_path.iterdir()) == []
