"""The reference cases of Absolute Zero, through the public functions. Skipped where the file is not at hand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.executor import Executor
from azr_mlx.executor.rules import forbidden_use
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.advantages import Running, advantages, whiten
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.selfplay.kinds.deduction import judge_output
from azr_mlx.selfplay.prompts import Compact, make_style
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.rewards import propose_reward, solve_reward
from azr_mlx.selfplay.solver import Solver
from azr_mlx.selfplay.task_buffer import Buffer
from azr_mlx.selfplay.task_kind import ProposalContext
from azr_mlx.types import Case, Completion, Kind, Prompt, Role, Rollout, Scored, Stop, Task, Verdict

FILE = Path(__file__).resolve().parents[3] / "shared" / "conformance" / "azr_cases.jsonl"
CASES = [json.loads(line) for line in FILE.read_text().splitlines()] if FILE.exists() else []
pytestmark = pytest.mark.skipif(not CASES, reason="the conformance cases are not beside the repository")

PAPER = config.RewardConfig(unlearnable=0.0)
R1_STYLE = make_style("r1", seconds=5.0, modules=("math",))

TEN_INPUTS = ProposalContext(source=Task(Kind.DEDUCTION, "", ()), cases=10)


def rollout(prompt: Prompt, text: str) -> Rollout:
    return Rollout(prompt, (), Completion((), (), text, Stop.EOS))


def scored_proposal(given: dict, settings: config.RewardConfig) -> float:
    rate = given.get("solver_correct", 0) / given.get("n", 8)
    return propose_reward(Verdict(given["format_ok"] and given["task_valid"], True, "ok"), rate, settings)


def parsed(parse, *arguments):
    try:
        found = parse(*arguments)
    except parsing.ParseError:
        return {"ok": False}
    if isinstance(found, parsing.Proposal):
        return {"ok": True, "code": found.program, "input": found.input}
    return {"ok": True, "inputs": list(found.inputs), "message": found.message}


def validated(executor: Executor, given: dict) -> dict:
    proposer = Proposer(Compact(), executor, config.TasksConfig())
    prompt = Prompt(Role.PROPOSE, Kind.DEDUCTION, "")
    reply = f"```python\n{given['code']}\n```\n```input\n{given['input']}\n```"
    verdict = proposer.judge(rollout(prompt, reply))()
    return {"valid": verdict.valid} | ({"output": verdict.task.cases[0].output} if verdict.task else {})


def abducted(executor: Executor, given: dict) -> bool:
    task = Task(Kind.ABDUCTION, given["code"], (Case("0", given["gold_output"]),))
    solver = Solver(Compact(), executor)
    return solver.judge(rollout(solver.ask(task), f"{given['answer']}\n```"))().correct


def induced(executor: Executor, given: dict) -> bool:
    hidden = tuple(Case(*pair) for pair in given["hidden_pairs"])
    task = Task(Kind.INDUCTION, given["code"], (*hidden, *hidden))
    return KINDS[task.kind].verify(task, given["code"], executor)().correct


def drawn(given: dict) -> dict:
    buffer = Buffer(10_000)
    for i in range(given["buffer"]):
        step = 7 if i < given["recent_valid"] else 1
        buffer.add(Task(Kind.DEDUCTION, f"def f(a):\n    return a + {i}", (Case("1", str(1 + i)),), step=step))
    tasks = buffer.draw(Kind.DEDUCTION, given["B"], 7, random.Random(0))
    first = next((i for i, task in enumerate(tasks) if task.step != 7), len(tasks))
    return {"recent": first, "from_buffer": len(tasks) - first}


def referred(given: dict) -> int:
    buffer = Buffer(100)
    for i in range(given["buffer"]):
        buffer.add(Task(Kind.ABDUCTION, f"def f(a):\n    return a + {i}", (Case("1", str(1 + i)),)))
    return len(buffer.references(Kind.ABDUCTION, given["K"], random.Random(0)))


def centred_sets(given: dict) -> int:
    kinds = {"code_i": Kind.ABDUCTION, "code_o": Kind.DEDUCTION, "code_f": Kind.INDUCTION}
    roles = {"gen": Role.PROPOSE, "pred": Role.SOLVE}
    scored = [
        Scored(rollout(Prompt(roles[role], kinds[kind], ""), ""), Verdict(True, True, "ok"), 1.0)
        for kind in given["problem_types"]
        for role in given["roles"]
    ]
    running = Running()
    advantages(scored, config.AdvantageConfig(), running)
    return len(running.moments)


def capped(given: dict) -> list[str]:
    buffer = Buffer(given["cap"])
    for name in given["buffer"] + given["add"]:
        buffer.add(Task(Kind.DEDUCTION, f"def f(a):\n    return {name!r}", (Case("1", repr(name)),), step=1))
    return [eval(task.cases[0].output) for task in buffer.tasks(Kind.DEDUCTION)]


@pytest.fixture(scope="module")
def executor():
    with Executor() as running:
        yield running


FUNCTIONS = {
    "propose_reward": lambda e, x: scored_proposal(x, config.RewardConfig()),
    "propose_reward_paper_mode": lambda e, x: scored_proposal(x, PAPER),
    "solve_reward": lambda e, x: solve_reward(Verdict(x["format_ok"], x["correct"], ""), config.RewardConfig()),
    "solve_reward_eval_split": lambda e, x: float(x["correct"]),
    "induction_reward": lambda e, x: solve_reward(Verdict(True, all(x["hidden_results"]), ""), config.RewardConfig()),
    "format_ok": lambda e, x: parsing.well_formed(x),
    "extract_answer": lambda e, x: parsing.answer_section(x),
    "extract_solver_input": lambda e, x: parsing.solver_value(x, "input"),
    "extract_solver_output": lambda e, x: parsing.solver_value(x, "output"),
    "parse_propose": lambda e, x: parsed(parsing.proposal, x),
    "parse_induction": lambda e, x: parsed(KINDS[Kind.INDUCTION].parse_proposal, x, TEN_INPUTS),
    "parse_program": lambda e, x: parsing.solver_program(x),
    "banned": lambda e, x: forbidden_use(x) is not None,
    "verify_deduction": lambda e, x: judge_output(x["gold_output"], x["answer"]).correct,
    "validate": validated,
    "verify_abduction": abducted,
    "verify_induction": induced,
    "trrpp_advantage": lambda e, x: pytest.approx(
        whiten([r for r, _ in x["reward_and_tokens"]], [n for _, n in x["reward_and_tokens"]]), abs=2e-6
    ),
    "trrpp_groups": lambda e, x: centred_sets(x),
    "solve_batch": lambda e, x: drawn(x),
    "references": lambda e, x: referred(x),
    "buffer_cap": lambda e, x: capped(x),
    "induction_split": lambda e, x: split(x["n_pairs"]),
}


def split(count: int) -> dict:
    task = Task(Kind.INDUCTION, "def f(a):\n    return a", tuple(Case(str(i), str(i)) for i in range(count)))
    return {"given": [int(c.input) for c in task.shown], "hidden": [int(c.input) for c in task.hidden]}


# Not ours to reproduce: a seed size is a product in a paper, and answer diversity is a bonus that we left out.
LEFT_OUT = {"seed_size", "answer_diversity"}


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_reference_case(case, executor):
    if case["kind"] in LEFT_OUT:
        pytest.skip(f"{case['kind']} has no counterpart here")
    assert FUNCTIONS[case["kind"]](executor, case["input"]) == case["expected"], case["why"]
