"""Programs made by edits: other programs, of which the executor confirms a good part."""

from __future__ import annotations

import ast
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx import config
from azr_mlx.executor import Executor
from azr_mlx.executor.rules import normalised_key
from azr_mlx.selfplay import mutation
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.selfplay.mutation import mutate
from azr_mlx.selfplay.prompts import Compact
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.task_kind import Draft
from azr_mlx.types import Kind

sys.path.append(str(Path(__file__).resolve().parents[2] / "checkpoints" / "qwen3-nano"))

import grammar

seeds = st.integers(0, 10**9).map(random.Random)


def edited(name: str, source: str, others: list[str], seed: int = 0) -> str:
    tree = ast.parse(source)
    assert getattr(mutation, name)(tree, others, random.Random(seed))
    return ast.unparse(tree).removeprefix("def f(x):\n    return ")


@pytest.mark.parametrize(
    ("edit", "results"),
    [
        ("_change_constant", {"x + [4] + x[:3]", "x + [2] + x[:3]", "x + [3] + x[:4]", "x + [3] + x[:1]"}),
        ("_change_operator", {"x - [3] + x[:3]", "x + [3] - x[:3]", "x * [3] + x[:3]", "(x + [3]) * x[:3]"}),
        ("_graft", {"sorted(x)", "sorted(x) + x[:3]", "x + [3] + sorted(x)", "x + sorted(x) + x[:3]"}),
        ("_compose", {"sorted(x + [3] + x[:3])", "sorted(x + [3]) + x[:3]", "sorted(x) + [3] + x[:3]"}),
    ],
)
def test_each_edit_does_what_its_name_says(edit, results):
    source, others = "def f(x):\n    return x + [3] + x[:3]", ["def f(y):\n    return sorted(y)"]
    assert results <= {edited(edit, source, others, seed) for seed in range(80)}


@given(seeds)
def test_an_edited_program_parses_and_is_another_one(rng):
    source, others = grammar.Writer(rng).program().source, [grammar.Writer(rng).program().source for _ in range(3)]
    made = mutate(source, others, rng)
    if made is not None:
        assert ast.parse(made).body[0].name == "f"
        assert ast.unparse(ast.parse(made)) != ast.unparse(ast.parse(source))


@given(st.text(max_size=80), st.lists(st.text(max_size=40), max_size=2), seeds)
def test_any_text_is_edited_or_left(source, others, rng):
    assert mutate(source, others, rng) is None or isinstance(source, str)


@pytest.mark.parametrize("source", ["def f(x):\n    return " + "-" * 3000 + "x", "\ud800", "", "def f(x):\n    pass"])
def test_what_cannot_be_edited_is_left(source):
    assert mutate(source, [source], random.Random(0)) is None


def test_an_expression_is_not_blown_up():
    wide = "def f(x):\n    return " + "+".join(["x"] * 1500)
    for seed in range(20):
        made = mutate(wide, [wide], random.Random(seed))
        assert made is None or len(made) < 4 * len(wide)


def test_a_good_part_of_the_edits_are_tasks():
    rng, keys, valid = random.Random(0), set(), 0
    with Executor() as executor:
        proposer = Proposer(Compact(), executor, config.TasksConfig())
        pending = []
        for _ in range(60):
            program, cases = grammar.draw(rng, 1)
            made = mutate(program.source, [grammar.draw(rng, 1)[0].source for _ in range(4)], rng)
            if made is not None:
                keys.add(normalised_key(made))
                pending.append(proposer.check(KINDS[Kind.DEDUCTION], Draft(made, (cases[0].input,)), 3))
        for verdict in pending:
            task = verdict().task
            valid += task is not None and task.step == 3
    assert len(keys) >= 40
    assert valid >= 20
