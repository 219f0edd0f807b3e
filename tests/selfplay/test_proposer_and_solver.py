"""Proposals and solutions before the real executor: what is a task, what is right, and what nobody gets away with."""

from __future__ import annotations

import struct

import pytest

from azr_mlx import config
from azr_mlx.executor import Executor, Limits, boundary, rules, values
from azr_mlx.run import metrics
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.selfplay.kinds.deduction import judge_output
from azr_mlx.selfplay.prompts import Compact, make_style
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.solver import Solver
from azr_mlx.selfplay.task_buffer import flaw, seed_tasks
from azr_mlx.types import Case, Completion, Kind, Prompt, Role, Rollout, Stop, Task, Verdict

STYLE = Compact()
TAGS = make_style("r1", seconds=5.0, modules=("math",))
PAPER = tuple(map(Kind, config.TasksConfig().kinds))  # the default
SQUARE = Task(Kind.ABDUCTION, "def f(x):\n    return x * x", (Case("4", "16"),))
NUMBER = Task(Kind.DEDUCTION, "def f(x):\n    return x * x", (Case("4", "16"),))
DOUBLE = Task(
    Kind.INDUCTION, "def f(a):\n    return a * 2", tuple(Case(str(i), str(2 * i)) for i in range(6)), "double"
)


@pytest.fixture(scope="module")
def executor():
    with Executor(limits=Limits(wall_seconds=10, cpu_seconds=0.5)) as running:
        yield running


def says(prompt: Prompt, text: str) -> Rollout:
    """A rollout whose whole reply is `text`."""
    return Rollout(prompt, (), Completion((), (), text.removeprefix(prompt.opening), Stop.EOS))


def propose(executor: Executor, program: str, given: str, kind: Kind = Kind.DEDUCTION, **settings):
    proposer = Proposer(STYLE, executor, config.TasksConfig(**settings))
    reply = f"```python\n{program}\n```\n```input\n{given}\n```\n"
    return proposer.judge(says(STYLE.propose(kind, ()), reply), step=3)()


def propose_induction(executor: Executor, inputs: list[str], message: str = "hint", program: str = DOUBLE.program):
    proposer = Proposer(STYLE, executor, config.TasksConfig(induction_pairs=len(inputs)))
    prompt = STYLE.propose(Kind.INDUCTION, source=Task(Kind.DEDUCTION, program, (Case("1", "2"),)), cases=len(inputs))
    reply = f"```message\n{message}\n```\n" + "".join(f"```input\n{text}\n```\n" for text in inputs)
    return proposer.judge(says(prompt, reply))()


def verify(executor: Executor, task: Task, answer: str) -> Verdict:
    return KINDS[task.kind].verify(task, answer, executor)()


def test_a_proposal_becomes_a_task_with_the_output_that_python_gives(executor):
    verdict = propose(executor, "def f(a, b):\n    return [a] + b", "'x', ['y']")
    assert verdict.task == Task(
        Kind.DEDUCTION, "def f(a, b):\n    return [a] + b", (Case("'x', ['y']", "['x', 'y']"),), step=3
    )


@pytest.mark.parametrize(
    ("program", "given", "why"),
    [
        ("def f(a)\n    return a", "1", "syntax error"),
        ("import random\ndef f(a):\n    return a", "1", "forbidden module random"),
        ("def f(a):\n    return 1 / a", "0", "exception"),
        ("def f(a):\n    a + 1", "1", "returns None"),
        ("def f(a):\n    return float('nan')", "1", "returns nan"),
        ("def f(a):\n    return lambda: a", "1", "bad result"),
        ("def f(a):\n    return list(set(a))", "['x', 'y', 'z', 'u', 'v', 'w']", "not deterministic"),
        ("def f(a):\n    raise SystemExit", "1", "exited early"),
        ("def f(a):\n    return 'a' * 1000", "1", "output too long"),
        ("def f(a):\n    return a", "1), f(2", "bad input"),
        ("def f(a):\n    return a", "'" + "x" * 2000 + "'", "input too long"),
    ],
)
def test_what_is_no_task_has_a_reason(executor, program, given, why):
    verdict = propose(executor, program, given)
    assert not verdict.valid
    assert verdict.task is None
    assert verdict.why == why


@pytest.mark.parametrize(
    ("program", "settings"),
    [
        ("def f(x):\n    return complex(x, 1e999)", {}),
        ("def f(x):\n    v = -x\n    for _ in range(100):\n        v = [v]\n    return v", {}),
        (
            "def f(x):\n    v = x\n    for _ in range(51):\n        v = frozenset({v})\n    return v",
            {"max_output_chars": 4000},
        ),
    ],
)
def test_an_output_whose_text_cannot_be_read_back_makes_no_task(executor, program, settings):
    assert rules.check_program(program) is None
    assert propose(executor, program, "1", **settings).why == "output is no literal"


def frame(*encodings: bytes) -> str:
    """A program that writes an answer of its own on the result pipe and leaves."""
    body = b"o" + b"".join(struct.pack("<I", len(one)) + one for one in encodings)
    data = struct.pack("<I", len(body)) + body
    return f"import os\ndef f(x):\n    os.write(3, {data!r})\n    os._exit(0)"


@pytest.mark.parametrize("encodings", [(), (b"N",), (b"N",) * 4, (b"?",), (b"l\xff\xff\xff\xff",) * 3])
def test_a_forged_frame_is_a_wrong_answer(executor, encodings):
    verdict = verify(executor, DOUBLE, frame(*encodings))
    assert (verdict.valid, verdict.correct, verdict.why) == (True, False, "bad result")
    twice = Task(Kind.ABDUCTION, frame(*encodings), (Case("1", "2"),))
    verdict = verify(executor, twice, "1")
    assert (verdict.correct, verdict.dropped) == (False, False)


def test_a_frame_of_as_many_values_as_asked_for_is_no_more_than_an_answer(executor):
    """A program can say what it likes; that is what programs do."""
    right = [values.encode(2 * int(case.input)) for case in DOUBLE.hidden]
    assert verify(executor, DOUBLE, frame(*right)).correct


@pytest.mark.parametrize("gold", ["(1+infj)", "[" * 101 + "-1" + "]" * 101, "f(1)", ""])
def test_an_answer_to_a_task_whose_gold_cannot_be_read_is_dropped_whatever_it_is(executor, gold):
    assert judge_output(gold, "1").dropped
    assert verify(executor, Task(Kind.ABDUCTION, SQUARE.program, (Case("4", gold),)), "4").dropped
    cases = (*DOUBLE.cases[:5], Case("7", gold))
    assert verify(executor, Task(Kind.INDUCTION, DOUBLE.program, cases), DOUBLE.program).dropped


@pytest.mark.parametrize("answer", ["[[0]*6000]*6000", "[[[0]*99999]*99999]*99999", "[0]*100000", "9" * 5000, "\ud800"])
def test_an_answer_that_means_too_much_is_wrong_before_it_is_compared(answer):
    verdict = judge_output("[1]", answer)
    assert (verdict.valid, verdict.correct, verdict.why) == (True, False, "not a literal")


def test_a_program_that_ignores_its_arguments_may_be_refused(executor):
    assert propose(executor, "def f(a):\n    return 3", "1").valid
    assert propose(executor, "def f(a):\n    return 3", "1", reject_constant=True).why == "ignores its arguments"


@pytest.mark.parametrize("kind", [Kind.DEDUCTION, Kind.ABDUCTION])
@pytest.mark.parametrize(
    ("program", "given", "copied"),
    [
        ("def f(a, b):\n    return max(a, b)", "3, 5", True),  # the output is an argument
        ("def f(a):\n    return a.upper()", "'abc'", True),  # the output is an input that gives it
        ("def f(a):\n    return a + 1", "3", False),
        ("def f(a, b=2):\n    return b", "3, b=7", True),
    ],
)
def test_a_task_that_a_copy_solves_may_be_refused(executor, kind, program, given, copied):
    assert propose(executor, program, given, kind).valid
    verdict = propose(executor, program, given, kind, reject_identity=True)
    assert (verdict.valid, verdict.why) == ((False, "a copy solves it") if copied else (True, "ok"))


def test_an_induction_proposal_runs_every_input(executor):
    verdict = propose_induction(executor, ["1", "2", "3", "4"])
    assert verdict.task == Task(
        Kind.INDUCTION, DOUBLE.program, tuple(Case(str(i), str(2 * i)) for i in range(1, 5)), "hint", -1
    )


@pytest.mark.parametrize(
    ("inputs", "message", "why"),
    [
        (["1", "1", "1", "2"], "hint", "repeated inputs"),
        (["1", "2", "3", "'a' - 1"], "hint", "exception"),
        (["1", "2", "3", "4"], "it is def f(a): return a * 2", "message tells the code"),
    ],
)
def test_an_induction_proposal_must_be_worth_solving(executor, inputs, message, why):
    assert propose_induction(executor, inputs, message).why == why


def test_inputs_that_all_give_the_same_output_are_refused(executor):
    assert (
        propose_induction(executor, ["1", "2", "3", "4"], program="def f(a):\n    return a > 0").why
        == "constant output"
    )


def test_a_base_model_must_think_before_it_answers(executor):
    proposer = Proposer(TAGS, executor, config.TasksConfig())
    prompt = TAGS.propose(Kind.DEDUCTION, ())
    blocks = "```python\ndef f(a):\n    return a\n```\n```input\n1\n```"
    assert proposer.judge(says(prompt, f"<think>hm</think><answer>{blocks}</answer>"))().valid
    assert proposer.judge(says(prompt, f"<think>hm</think> {blocks}"))().why == "bad tags"


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        ("1", "1.0", True),
        ("1", "True", True),
        ("{1, 2}", "{2, 1}", True),
        ("0.30000000000000004", "0.1 + 0.2", True),
        ("[1, 2]", "(1, 2)", False),
        ("1", "'1'", False),
        ("'abc'", "abc", False),
        ("1", "__import__('os').getpid()", False),
        ("1", "9 ** 9 ** 9", False),
        ("1", "", False),
    ],
)
def test_an_output_is_compared_as_a_value(gold, answer, right):
    assert judge_output(gold, answer).correct is right


@pytest.mark.parametrize(
    ("answer", "right"), [("-4", True), ("4.0", True), ("5", False), ("5) or (True", False), ("f(2)", False)]
)
def test_any_input_that_gives_the_output_is_right(executor, answer, right):
    solver = Solver(STYLE, executor)
    verdict = solver.judge(says(solver.ask(SQUARE), f"```input\n{answer}\n```\n"))()
    assert verdict.valid
    assert verdict.correct is right


@pytest.mark.parametrize(
    ("program", "right"),
    [
        ("def f(a):\n    return a + a", True),
        ("def f(a):\n    return a * 2 if a < 5 else 0", False),
        ("class E:\n    __eq__ = lambda s, o: True\ndef f(a):\n    return E()", False),
        ("def f(a):\n    raise Exception", False),
    ],
)
def test_a_program_is_judged_on_the_hidden_cases(executor, program, right):
    solver = Solver(STYLE, executor)
    assert solver.judge(says(solver.ask(DOUBLE), f"```python\n{program}\n```\n"))().correct is right


def test_the_hidden_cases_are_not_in_the_prompt():
    prompt = Solver(STYLE, None).ask(DOUBLE)
    assert "```input\n2\n" in prompt.text
    assert "```input\n3\n" not in prompt.text


def test_a_reply_without_its_block_is_malformed(executor):
    solver = Solver(STYLE, executor)
    assert not solver.judge(says(solver.ask(SQUARE), "```input\n4"))().valid


def test_the_task_lends_its_imports_to_an_induction_solver(executor):
    task = Task(
        Kind.INDUCTION, "import math\ndef f(a):\n    return math.gcd(a, 4)", tuple(Case(str(i), "2") for i in (2, 6))
    )
    assert verify(executor, task, "def f(a):\n    return math.gcd(4, a)").correct


def test_equal_answers_run_once(executor):
    solver = Solver(STYLE, executor)
    rollout = says(solver.ask(SQUARE), "```input\n4\n```\n")
    assert solver.judge(rollout) is solver.judge(rollout)
    solver.forget()
    assert solver.judge(rollout)().correct


@pytest.mark.parametrize(
    ("task", "end"),
    [
        (
            Task(Kind.DEDUCTION, SQUARE.program, SQUARE.cases),
            "### Your turn\n\n```python\n{}\n```\n```input\n4\n```\nAssistant: <think>",
        ),
        (SQUARE, "### Your turn\n\n```python\n{}\n```\n```output\n16\n```\nAssistant: <think>"),
        (DOUBLE, "f(2) == 4\n```\n```message\ndouble\n```\nAssistant: <think>"),
    ],
    ids=lambda value: str(value.kind) if isinstance(value, Task) else "",
)
def test_a_solver_reads_its_task_last(task, end):
    text = TAGS.solve(task).text
    assert text.endswith(end.format(task.program))
    assert text.index("```python") < text.index("### Your turn")


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("kind", PAPER)
def test_every_prompt_opens_the_reply_that_its_parser_reads(role, kind):
    task = DOUBLE if kind is Kind.INDUCTION else Task(kind, SQUARE.program, SQUARE.cases)
    for style in (STYLE, TAGS):
        if role is Role.SOLVE:
            prompt = style.solve(task)
        elif kind is Kind.INDUCTION:
            prompt = style.propose(kind, source=task, cases=6)
        else:
            prompt = style.propose(kind, [task])
        assert prompt.role is role
        assert prompt.kind is kind
        assert prompt.text.endswith(prompt.opening)
        shown = task.program if role is Role.PROPOSE or kind is not Kind.INDUCTION else "```message\ndouble"
        assert shown in prompt.text


# Replies that stopped, stalled or fooled a trainer once, here or elsewhere, as programs, inputs, outputs and messages.
HOSTILE = (
    "", "```", "```python", "\ud800", "\x00", "\u202e\x1b[2J", "a" * 200_000, "```\n" * 50_000, " " * 200_000,
    "(" * 20_000, "[" * 20_000, "-" * 20_000 + "1", "1+" * 8_000 + "1", "x" + ".b" * 8_000, "lambda:" * 2_000 + "1",
    "[[0]*6000]*6000", "[[[0]*99999]*99999]*99999", "9**9**9", "1<<10**9", "'a'*10**12", "9" * 5_000, "1e999", "nan",
    "(1+infj)", "{[]: 1}", "{" + ",".join(f"{k}*(2**61-1)" for k in range(1, 900)) + "}",
    "1), f(2", "*[1]", "**{'x': 1}", "__import__('os')._exit(0)", "f'{1/0}'", "(x for x in ())",
    "{0.__class__}", "%s %n {} {0}", "</answer><answer>",
    "def f(x):\n    return complex(x, 1e999)",
    "def f(x):\n    v = -x\n    for _ in range(100):\n        v = [v]\n    return v",
    "def f(x):\n    return 10**5000",
    "def f(x):\n    return [[0] * 300] * 300",
    "def f(x):\n    return 'a' * (1 << 20)",
    "def f(x):\n    return {k * (2**61 - 1) for k in range(500)}",
    "def f(x):\n    return " + "+".join("x" * 1_900),
    "def f(x):\n    return [set() for _ in range(200_000)]",
    "def f(x):\n    return '\\ud800'",
    "def f(x): raise SystemExit",
    frame(), frame(b"N"), frame(b"N", b"N"), frame(b"l\xff\xff\xff\xff"), frame(b"S\x02\0\0\0TT"),
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: repr(text[:25]))
def test_no_reply_ends_the_run_or_is_paid(executor, text):
    """Each text in every place where a model's words are read: a verdict comes back, and never "right"."""
    solver, proposer = Solver(STYLE, executor), Proposer(STYLE, executor, config.TasksConfig(induction_pairs=2))
    tasks = {kind: seed_tasks([kind], 2)[0] for kind in Kind}
    tasks |= {Kind.DEDUCTION: NUMBER, Kind.ABDUCTION: SQUARE, Kind.INDUCTION: DOUBLE}
    for kind, task in tasks.items():
        for label in ("python", "input", "output", "message", ""):
            verdicts = [solver.judge(says(solver.ask(task), f"```{label}\n{text}\n```\n"))()]
            chosen = KINDS[kind].chooses_program
            prompt = STYLE.propose(kind) if chosen else STYLE.propose(kind, source=SQUARE, cases=2)
            for reply in (
                f"```{label}\n{text}\n```\n```input\n1\n```\n```input\n2\n```\n```message\nm\n```\n",
                f"```python\ndef f(x):\n    return x\n```\n```{label}\n{text}\n```\n",
            ):
                proposed = proposer.judge(says(prompt, reply), step=1)()
                if proposed.task is not None:  # then it is one that can be worded, counted and judged
                    assert flaw(proposed.task) is None
                    assert all(judge_output(case.output, case.output).correct for case in proposed.task.cases)
                    metrics.shape(proposed.task.program)
                verdicts.append(proposed)
            assert not any(verdict.dropped for verdict in verdicts)
            assert not verdicts[0].correct
    assert not boundary.faults
