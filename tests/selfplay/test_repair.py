"""The kind `repair`: what a fault is, who is right about it, and a run that plays it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx import config
from azr_mlx.executor import Executor
from azr_mlx.run import metrics
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.selfplay.kinds.repair import one_fault
from azr_mlx.selfplay.prompts import Style, make_style
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.solver import Solver
from azr_mlx.selfplay.task_buffer import seed_tasks, to_row
from azr_mlx.selfplay.task_kind import ProposalContext
from azr_mlx.types import Case, Completion, Kind, Prompt, Rollout, Stop, Task, Verdict
from tests.test_trainer import SMALL, STYLE, Paper, trainer

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "checkpoints" / "qwen3-nano"
REPAIR = Kind("repair")
LARGER = "def f(a, b):\n    if a > b:\n        return a\n    return b"
FAULTY = LARGER.replace("a > b", "a < b")
SOURCE = Task(Kind.DEDUCTION, LARGER, (Case("1, 2", "2"),))
# The faulty version is right about equal arguments and wrong about all others.
INPUTS = ("3, 3", "1, 2", "5, 4", "7, 7")
TASK = Task(REPAIR, FAULTY, (Case("1, 2", "2"), Case("3, 3", "3"), Case("7, 7", "7"), Case("5, 4", "5")), step=3)

STYLES = {
    name: make_style(
        name, seconds=5.0, modules=("math",),
        render=lambda text, opening, turns: "".join(f"<user>{q}<assistant>{a}" for q, a in [*turns, (text, opening)]),
    )
    for name in config.style_names()
}  # fmt: skip
every_style = pytest.mark.parametrize("style", STYLES.values(), ids=STYLES)


@pytest.fixture(scope="module")
def executor():
    with Executor() as running:
        yield running


def says(style: Style, prompt: Prompt, text: str) -> Rollout:
    """A rollout whose whole reply is `text`, with the tags that the style asks for."""
    reply = f"<think>hm</think><answer>{text}</answer>" if style.tags else text
    return Rollout(prompt, (), Completion((), (), reply.removeprefix(prompt.opening), Stop.EOS))


def proposed(
    executor: Executor, program: str, inputs: tuple[str, ...] = INPUTS, style: Style = STYLES["compact"]
) -> Verdict:
    prompt = style.propose(REPAIR, source=SOURCE, cases=4)
    assert LARGER in prompt.text
    reply = f"```python\n{program}\n```\n" + "".join(f"```input\n{text}\n```\n" for text in inputs)
    return Proposer(style, executor, config.TasksConfig(induction_pairs=4)).judge(says(style, prompt, reply), step=3)()


def solved(executor: Executor, program: str, style: Style = STYLES["compact"]) -> Verdict:
    solver = Solver(style, executor)
    return solver.judge(says(style, solver.ask(TASK), f"```python\n{program}\n```\n"))()


@every_style
def test_a_fault_that_the_executor_confirms_is_a_task_whose_outputs_are_those_of_the_given_program(executor, style):
    assert proposed(executor, FAULTY, style=style) == Verdict(True, True, "ok", task=TASK)


@pytest.mark.parametrize(
    ("program", "inputs", "why"),
    [
        (LARGER, INPUTS, "no fault"),
        (LARGER.replace(" > ", ">") + "  # the same", INPUTS, "no fault"),
        (LARGER.replace("a > b", "a >= b"), INPUTS, "no fault"),  # another text that returns the same
        (FAULTY.replace("return b", "return b + 1"), INPUTS, "more than one fault"),
        (FAULTY.replace("return a", "return a + 1"), INPUTS, "more than one fault"),
        ("def f(*all):\n    return min(all)", INPUTS, "more than one fault"),
        (LARGER.replace("a > b", "a > b > 4"), INPUTS, "fault shows once"),
        (LARGER.replace("a > b", "a > c"), INPUTS, "exception"),
        (LARGER.replace("return b", "pass"), INPUTS, "returns None"),
        (LARGER.replace("return b", "return 'x' * 1000"), INPUTS, "output too long"),
        (FAULTY, ("1, 2", "1,2", "1 ,2", "3, 3"), "repeated inputs"),
        (FAULTY, (*INPUTS[:3], "'1', 2"), "exception"),
        (FAULTY, INPUTS[:3], "too few inputs"),
        ("import os\n" + FAULTY, INPUTS, "forbidden module os"),
    ],
)
def test_what_is_no_fault_has_a_reason(executor, program, inputs, why):
    verdict = proposed(executor, program, inputs)
    assert (verdict.valid, verdict.task, verdict.why) == (False, None, why)


@pytest.mark.parametrize("change", ["added", "removed", "changed"])
def test_one_line_is_one_fault_wherever_it_stands(change):
    lines = ["def f(a):", "    b = a", "    b = a", "    c = b + 1", "    return c"]
    for place in range(1, 5):
        mine = [*lines]
        mine[place : place + (change != "added")] = ["    c = 5"] * (change != "removed")
        assert one_fault("\n".join(lines), "\n".join(mine)) is None
        assert one_fault("\n".join(mine), "\n".join(lines)) is None


@given(st.text("def f(a):\n    return+-*1`input", max_size=200))
def test_no_text_is_too_strange_for_a_reason(text):
    assert one_fault(LARGER, text) in (None, "no fault", "more than one fault", "nested too deep")
    with contextlib.suppress(parsing.ParseError):
        KINDS[REPAIR].parse_proposal(text, ProposalContext(source=SOURCE, cases=1))


def test_a_fault_too_deep_to_be_written_down_is_refused():
    assert one_fault(LARGER, f"def f(a, b):\n    return {'+'.join('a' * 1500)}") == "nested too deep"


@every_style
def test_the_solver_is_shown_the_faulty_program_and_the_case_that_it_fails_and_no_other(style):
    text = style.solve(TASK).text
    assert FAULTY in text
    assert text.index("```input\n1, 2\n```\n```output\n2\n```") > text.index(FAULTY)
    assert not any(case.input in text for case in TASK.cases[2:])


@every_style
@pytest.mark.parametrize(
    ("program", "why"),
    [
        (LARGER, "ok"),
        ("def f(a, b):\n    return max(a, b)", "ok"),
        (FAULTY, "wrong"),
        ("def f(a, b):\n    if (a, b) == (1, 2):\n        return 2\n" + FAULTY.split("\n", 1)[1], "wrong"),
        ("def f(a, b):\n    return max(a, b) if a != 1 else 0", "wrong"),  # hidden cases right, the shown one not
        ("def f(a, b):\n    raise ValueError", "exception"),
    ],
)
def test_an_answer_is_right_on_shown_and_hidden_cases_or_wrong(executor, style, program, why):
    verdict = solved(executor, program, style)
    assert (verdict.valid, verdict.correct, verdict.why) == (True, why == "ok", why)


def test_an_answer_without_its_block_is_malformed(executor):
    solver = Solver(STYLES["chat"], executor)
    assert solver.judge(says(STYLES["chat"], solver.ask(TASK), LARGER))().why == "no answer block"


def test_the_first_task_has_a_fault_that_its_first_and_last_case_show(executor):
    (task,) = seed_tasks([REPAIR], 6)
    for program, right in (("def f(a):\n    return a", True), (task.program, False)):
        assert KINDS[REPAIR].verify(task, program, executor)().correct is right


class Mechanic(Paper):
    """Also takes the sum of a program for a difference, and on every `hit`-th sample repairs it."""

    def propose(self, prompt):
        if prompt.kind is not REPAIR:
            return super().propose(prompt)
        self.proposed += 1
        return STYLE.reply(prompt, f"def f(a):\n    return a - {self.proposed}", *"1234")

    def solve(self, prompt, j):
        if prompt.kind is not REPAIR or j % self.hit:
            return super().solve(prompt, j)
        case = prompt.task.cases[0]
        known = case.input.isdecimal()
        return STYLE.reply(prompt, f"def f(a):\n    return a + {int(case.output) - int(case.input)}" if known else "")


def test_a_step_proposes_attempts_and_solves_repairs(executor):
    settings = replace(SMALL, tasks=replace(SMALL.tasks, kinds=("deduction", "repair")))
    made = trainer(executor, Mechanic(), settings)
    step = made.train_step(0)
    mine = [one for one in step.proposals if one.kind is REPAIR]
    assert [one.solve_rate for one in mine] == [0.5, 0.5]
    assert len([one for one in step.attempts if one.kind is REPAIR]) == 8
    assert {one.verdict.task.step for one in mine} == {0}
    assert made.environments[0].buffer.program(random.Random(0)).kind is Kind.DEDUCTION  # faulty programs are not lent
    row = metrics.row(step, set(), {kind: len(tasks) for kind, tasks in made.tasks().items()})
    assert (row["valid/repair"], row["learnable/repair"], row["buffer/repair"]) == (1.0, 1.0, 5)
    assert "novel/repair" not in row  # its proposer is given the program


@pytest.mark.skipif(not (NANO / "model.safetensors").exists(), reason="the embedded model is not built yet")
def test_a_run_of_the_nano_model_plays_and_reports_repairs(tmp_path):
    run, probe = tmp_path / "run", tmp_path / "probe.jsonl"
    probe.write_text("".join(json.dumps(to_row(replace(task, step=-1))) + "\n" for task in (SOURCE, TASK)))
    words = [
        "tasks.kinds=deduction,repair", f"evaluation.probe={probe}", "evaluation.samples=1", "executor.workers=2",
        "batch.proposals=2", "batch.attempts=2", "batch.solves=1", "batch.solve_group=2", "buffer.seed_size=3",
        "buffer.seed_rounds=1", "sampling.max_rows=8", "minutes=0",
    ]  # fmt: skip
    command = [sys.executable, "-m", "azr_mlx", "train", "--config", "nano", "--run-dir", str(run), "--steps", "2"]
    done = subprocess.run(
        [*command, *(part for word in words for part in ("--set", word))], cwd=ROOT, capture_output=True, text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"}, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    for row in rows:
        assert {
            "valid/repair",
            "refused/repair",
            "solve/repair",
            "reward/solve/repair",
            "length/propose/repair",
        } <= set(row)
        assert row["buffer/repair"] >= 1
    assert "repair T=1" in done.stdout  # a line of the table of held-out tasks
    assert "rep" in done.stdout.split("step ", 1)[1]  # a column of the console
    assert ".kind.repair::before" in (run / "report.html").read_text(encoding="utf-8")
    saved = (run / "step-000002" / "buffer.jsonl").read_text().splitlines()
    assert "repair" in {json.loads(line)["kind"] for line in saved}


def test_an_unknown_kind_is_refused_in_one_line_that_names_them_all():
    with pytest.raises(config.ConfigError) as refused:
        config.load("nano", ["tasks.kinds=deduction,repare"])
    line = "--set tasks.kinds=deduction,repare: tasks.kinds is repare: it must be some of"
    assert str(refused.value) == f"{line} deduction, abduction, induction, repair; did you mean repair?"
    assert REPAIR not in config.load("nano").tasks.kinds
