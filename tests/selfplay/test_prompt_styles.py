"""What a prompt style makes of a task: turns, openings, stop texts, fields; and how the replies of it are judged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx import config
from azr_mlx.config.prompt_style import parse_style
from azr_mlx.errors import UsageError
from azr_mlx.executor import Executor, Job
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.selfplay.prompts import Style, check_fields, fill, make_style, style_file
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.solver import Solver
from azr_mlx.selfplay.task_buffer import seed_tasks
from azr_mlx.types import Case, Completion, Kind, Prompt, Role, Rollout, Stop, Task

NAMES = [name for name in config.style_names() if name != "compact"]
DIRECT = ("chat-direct", "text-direct")
SQUARE = Task(Kind.ABDUCTION, "def f(x):\n    return x * x", (Case("4", "16"),))
NEW = "```python\ndef f(a, b):\n    return b + [a]\n```\n```input\n1, [2]\n```\n"


def styled(name: str) -> Style:
    return make_style(
        name, seconds=5.0, modules=("math",),
        render=lambda text, opening, turns: "".join(f"<user>{q}<reply>{a}" for q, a in [*turns, (text, opening)]),
    )  # fmt: skip


def says(prompt: Prompt, reply: str) -> Rollout:
    """A rollout whose whole reply is `reply`."""
    assert reply.startswith(prompt.opening)
    return Rollout(prompt, (), Completion((), (), reply.removeprefix(prompt.opening), Stop.EOS))


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    with Executor() as running:
        yield running


@pytest.mark.parametrize("name", NAMES)
def test_every_example_that_is_shown_is_right(executor: Executor, name: str) -> None:
    for (role, kind), wording in config.load_style(name).wordings.items():
        for example in wording.examples:
            inputs = tuple(case.input for case in example.cases)
            outcome = executor.submit_check(Job(example.program, inputs)).result()
            assert [repr(value) for value in outcome.values] == [case.output for case in example.cases], (role, kind)


@pytest.mark.parametrize("name", DIRECT)
@pytest.mark.parametrize("kind", [Kind.DEDUCTION, Kind.ABDUCTION, Kind.INDUCTION])
def test_an_answer_in_the_form_of_the_examples_is_right(executor: Executor, name: str, kind: Kind) -> None:
    """What a solver is shown to write, after the opening that is written for it, up to the stop text."""
    solver = Solver(styled(name), executor)
    program, count = "def f(x):\n    return x * 3", 4 if KINDS[kind].several_cases else 1
    task = Task(kind, program, tuple(Case(str(i), str(3 * i)) for i in range(1, 1 + count)), "thrice")
    prompt = solver.ask(task)
    reply = KINDS[kind].solved(task)
    rest = reply.removeprefix(prompt.opening)
    assert rest != reply
    cut = reply[: len(prompt.opening) + rest.index(prompt.stop[0]) + len(prompt.stop[0])]
    assert solver.judge(says(prompt, cut))().correct


@pytest.mark.parametrize("name", DIRECT)
def test_examples_are_earlier_turns_until_memory_has_tasks_of_its_own(name: str) -> None:
    style = styled(name)
    shown = config.load_style(name).wording(Role.PROPOSE, Kind.DEDUCTION).examples
    tasks = [Task(Kind.DEDUCTION, f"def f(a):\n    return a + {i}", (Case("1", str(i)),)) for i in range(2)]
    bare, one, two = (style.propose(Kind.DEDUCTION, tasks[:count]).text for count in range(3))
    assert [example.program in bare for example in shown] == [True, True]
    assert [example.program in one for example in shown] == [True, False]
    assert [example.program in two for example in shown] == [False, False]
    assert tasks[0].program in one
    assert all(task.program in two for task in tasks)
    assert len({text.count("def f(") for text in (bare, one, two)}) == 1


def test_a_copy_of_an_example_is_no_proposal(executor: Executor) -> None:
    style = styled("chat-direct")
    proposer = Proposer(style, executor, config.TasksConfig())
    prompt = style.propose(Kind.DEDUCTION)
    copied = "```python\ndef f(y):\n    return y + [5]\n```\n```input\n[7]\n```\n"
    assert proposer.judge(says(prompt, copied))().why == "copied example"
    assert proposer.judge(says(prompt, NEW))().valid


@pytest.mark.parametrize("name", ["chat", "r1"])
@pytest.mark.parametrize("kind", Kind)
def test_the_form_is_shown_with_placeholders_that_are_no_program(executor: Executor, name: str, kind: Kind) -> None:
    """A small model copies what it is shown."""
    style = styled(name)
    source = seed_tasks([Kind.DEDUCTION], 1)[0]
    prompt = style.propose(kind) if KINDS[kind].chooses_program else style.propose(kind, source=source, cases=4)
    reply = prompt.text.removesuffix(prompt.opening)
    answer = f"<think>hm</think><answer>{reply}</answer>" if style.tags else reply
    proposer = Proposer(style, executor, config.TasksConfig(induction_pairs=4))
    assert not proposer.judge(says(Prompt(Role.PROPOSE, kind, "", task=prompt.task), answer))().valid


def test_seeds_and_the_measure_of_difficulty_need_no_tags(executor: Executor) -> None:
    style = styled("r1")
    proposer, solver = Proposer(style, executor, config.TasksConfig()), Solver(style, executor)
    proposal = says(style.propose(Kind.DEDUCTION), f"<think> a plan\n{NEW}")
    assert proposer.judge(proposal)().why == "bad tags"
    assert proposer.judge(proposal, tags=False)().valid
    right = says(solver.ask(SQUARE), "<think> a plan <answer>```input\n-4\n```</answer>")
    assert not solver.judge(right)().correct
    verdict = solver.judge(right, tags=False)()
    assert (verdict.correct, verdict.valid) == (True, False)  # it is as easy as that, but the form is not paid
    nothing = says(solver.ask(SQUARE), "<think> it is 4")
    assert not solver.judge(nothing, tags=False)().correct


@given(st.text(max_size=30), st.text(max_size=30))
def test_only_the_fields_of_a_wording_are_filled_in(before: str, inserted: str) -> None:
    assert fill("{a} {b} {c}", {"a": inserted, "b": "{a}"}) == f"{inserted} {{a}} {{c}}"
    assert fill(before.replace("{", "("), {"a": inserted}) == before.replace("{", "(")


@pytest.mark.parametrize(
    ("wording", "told"),
    [
        ("solve: {deduction: {text: '{program}{ouput}'}}", r"solve\.deduction: there is no field \{ouput\}"),
        ("propose: {induction: {references: turns}}", "references: turns is for kinds whose proposers write"),
        (
            "solve: {induction: {examples: [{program: 'def f(a): pass', input: '1', output: '2'}]}}",
            r"solve\.induction\.examples\[0\]: a task of the kind induction has at least 2 cases",
        ),
        (
            "solve: {deduction: {opening: '```input\n', examples: [{program: x, input: '1', output: '2'}]}}",
            r"its reply begins with '```output.*and the opening is",
        ),
        (
            "solve: {repair: {examples: [{program: x, cases: [{input: a, output: b}, {input: c, output: d}]}]}}",
            "lacks reply, which its other keys do not tell",
        ),
    ],
)
def test_what_a_kind_cannot_show_is_one_line(wording: str, told: str) -> None:
    with pytest.raises(config.ConfigError, match=told) as error:
        check_fields(parse_style(f"turns: chat\n{wording}\n", "mine"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_the_file_that_is_shown_asks_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(style_file(name))
    for kind in Kind:
        task = seed_tasks([kind], 6)[0]
        assert styled(str(path)).solve(task) == styled(name).solve(task)
    with pytest.raises(UsageError, match="compact is no file"):
        style_file("compact")
