"""The archive: what keeps a program in its cell, what takes it out, and what a crowded cell costs."""

from __future__ import annotations

import ast
import json
import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx import config
from azr_mlx.executor import Executor
from azr_mlx.selfplay.archive import Archive, Signature, fixed_inputs, skeleton
from azr_mlx.selfplay.rewards import propose_reward
from azr_mlx.types import Case, Kind, Task, Verdict

sys.path.insert(0, str(Path(__file__).parents[2] / "checkpoints" / "qwen3-nano"))
import grammar


@pytest.fixture(scope="module")
def executor():
    with Executor() as running:
        yield running


def task(program: str, given: str = "[3, 1, 2]", step: int = 0) -> Task:
    return Task(Kind.DEDUCTION, program, (Case(given, "0"),), step=step)


class Disguise(ast.NodeTransformer):
    """The same program to look at: other names, other constants, commuting operands the other way round."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names = dict(zip("abstxynuzvc", rng.sample("defghijklmopqrw", 11), strict=True))

    def visit_Name(self, node):
        return ast.Name(self.names.get(node.id, node.id), node.ctx)

    def visit_arg(self, node):
        return ast.arg(self.names[node.arg])

    def visit_Constant(self, node):
        other = "".join(self.rng.choices("XYZ", k=2)) if isinstance(node.value, str) else self.rng.randint(0, 99)
        return ast.Constant(other)

    def visit_BinOp(self, node):
        self.generic_visit(node)
        swap = isinstance(node.op, ast.Add | ast.Mult) and self.rng.random() < 0.5
        return ast.BinOp(node.right, node.op, node.left) if swap else node

    def visit_Compare(self, node):
        self.generic_visit(node)
        mirrored = {ast.Gt: ast.Lt, ast.Lt: ast.Gt, ast.Eq: ast.Eq, ast.NotEq: ast.NotEq}[type(node.ops[0])]
        return ast.Compare(node.comparators[0], [mirrored()], [node.left]) if self.rng.random() < 0.5 else node


@given(st.integers(0, 10**6))
def test_other_names_other_constants_and_another_order_leave_the_skeleton(seed):
    rng = random.Random(seed)
    source = grammar.Writer(rng).program().source
    disguised = ast.unparse(ast.fix_missing_locations(Disguise(rng).visit(ast.parse(source))))
    assert skeleton(disguised) == skeleton(source)


DIFFERENT = [
    "x[::-1]", "x[1:]", "x[:-1]", "x[0]", "sorted(x)", "len(x)", "sum(x)", "x + x", "sum(x) - len(x)",
    "sum(x) * len(x)", "[v for v in x]", "[v for v in x if v > 1]", "max(x) if x else 0", "x + [1]", "x + [x[0]]",
    "'A' + str(x)",
]  # fmt: skip


def test_what_programs_are_made_of_tells_them_apart():
    assert len({skeleton(f"def f(x):\n    return {body}") for body in DIFFERENT}) == len(DIFFERENT)


@given(st.text(max_size=60))
def test_any_text_has_a_skeleton(text):
    assert isinstance(skeleton(text), str)


def test_a_nest_too_deep_to_walk_is_its_own_skeleton():
    assert skeleton(deep := "def f(x):\n    return " + "-" * 3000 + "x") in (deep, skeleton(deep))


# Ways to look new that change nothing: a branch that is never taken, twice the same, a name for the result.
SAME = [
    "    return x[::-1]",
    "    z = x[::-1]\n    return z",
    "    if len(x) + 1 == len(x):\n        return sorted(x)\n    return x[::-1]",
    "    return x[::-1][::-1][::-1]",
    "    z = []\n    for v in x:\n        z = [v] + z\n    return z",
]


def test_another_way_to_write_a_function_has_its_behaviour(executor):
    found = Archive(executor).signatures([task(f"def f(x):\n{body}") for body in SAME])
    assert len({one.behaviour for one in found}) == 1
    assert len({one.skeleton for one in found}) == len(SAME)


def test_functions_that_differ_on_the_fixed_inputs_have_their_own_behaviour(executor):
    bodies = ["x[::-1]", "sorted(x)", "x[1:]", "x[9]", "len(x)", "x[:1][0]", "None"]
    found = Archive(executor).signatures([task(f"def f(x):\n    return {body}") for body in bodies])
    assert len({one.behaviour for one in found}) == len(bodies)


@pytest.mark.parametrize(
    "example", ["1", "'A', [1]", "[[1], [2]], {'a': 1}", "(1, 'x'), {2, 3}", "True, 1.5, None, x=2", ""]
)
def test_fixed_inputs_are_of_the_types_of_the_example(example):
    def shape(text):
        positional, named = eval(f"(lambda *a, **k: (a, k))({text})")
        values = [*positional, *named.values()]
        return [(type(v), [type(item) for item in v] if isinstance(v, tuple) else None) for v in values]

    assert len(fixed_inputs(example)) == 6
    assert all(shape(text) == shape(example) for text in fixed_inputs(example))


def test_an_example_that_is_no_literal_is_the_only_input():
    assert fixed_inputs("list(range(3))") == ("list(range(3))",)


def test_hostile_programs_have_a_cell_and_nothing_more(executor):
    programs = [
        "def f(x):\n    raise SystemExit",
        "def f(x):\n    raise type('E' * 3000, (Exception,), {})()",
        "def f(x):\n    return 10 ** 9000",
        "def probe_of_behaviour(*a):\n    return 'mine'\ndef f(x):\n    return x",
        "def f(x):\n    return [x] * 10 ** 6",
        "class E(Exception):\n    pass\nE.__name__ = 'A\\nB'\ndef f(x):\n    raise E",
    ]
    archive = Archive(executor)
    assert archive.add([task(program) for program in programs]) == [0.0] * len(programs)
    assert 3 <= len(archive) <= len(programs)
    assert all(len(row["behaviour"]) == len(row["skeleton"]) == 16 for row in archive.rows())


def test_a_program_is_as_crowded_as_the_fuller_of_its_signatures(executor):
    archive = Archive(executor)
    reverse, drop = task("def f(x):\n    return x[::-1]"), task("def f(x):\n    return x[1:]")
    assert archive.add([reverse, reverse, reverse, drop]) == [0.0, 0.0, 0.0, 0.0]  # none was counted before
    assert len(archive) == 2
    # Two skeletons and two behaviours, of two programs on average: 3 / (3 + 2) and 1 / (1 + 2).
    constant, renamed = task("def f(y):\n    return y[::-2]"), task("def f(y):\n    return y[1:]")
    rewritten = task(f"def f(x):\n{SAME[4]}")
    assert archive.add([constant, renamed, rewritten]) == pytest.approx([3 / 5, 1 / 3, 3 / 5])


def test_a_crowded_program_pays_less_and_a_new_one_all():
    settings = config.RewardConfig(crowded=0.5)
    valid = Verdict(True, True, "ok")
    assert propose_reward(valid, 0.5, settings, 0.0) == 0.5
    assert propose_reward(valid, 0.5, settings, 0.8) == pytest.approx(0.1)
    assert propose_reward(Verdict(False, False, "no"), None, settings, 0.0) == -1.0


def test_rows_bring_an_archive_back_and_a_snapshot_undoes_what_came_after(executor):
    archive, copy = Archive(executor), Archive(executor)
    archive.add([task("def f(x):\n    return x[::-1]", step=3), task("def f(x):\n    return x[1:]", step=4)])
    rows = json.loads(json.dumps(archive.rows()))
    copy.load(rows)
    assert copy.rows() == rows
    again = task("def f(x):\n    return x[::-1]")
    before = copy.snapshot()
    assert copy.add([again]) == archive.add([again])
    copy.restore(before)
    assert copy.rows() == rows
    with pytest.raises(ValueError, match="not a cell"):
        copy.load([{"skeleton": 1}])
    assert isinstance(next(iter(copy.cells)), Signature)
