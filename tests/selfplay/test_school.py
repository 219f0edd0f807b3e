"""The school of the embedded model: what its lessons say is true."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).resolve().parents[2] / "checkpoints" / "qwen3-nano"))

import beyond
import grammar

from azr_mlx.selfplay import parsing
from azr_mlx.types import Kind, Role

seeds = st.integers(0, 10**9).map(random.Random)


@given(seeds)
def test_working_out_ends_with_what_python_says(rng):
    program, cases = grammar.draw(rng, 2)
    for case in cases:
        names = program.source[len("def f(") : program.source.index(")")].split(", ")
        reader = grammar.Reader(dict(zip(names, eval(f"({case.input},)"), strict=True)))
        reader.follow(grammar.ast.parse(program.source).body[0].body)
        assert repr(reader.result) == case.output
        assert "".join(f"{line}\n" for line in reader.lines) == grammar.work_out(program.source, case.input)


def test_a_step_is_one_operation_on_values():
    source = "def f(x):\n    n = 0\n    for v in x:\n        if v > 2:\n            n = n + v\n    return [n] + x[1:]"
    assert grammar.work_out(source, "[1, 5]").splitlines() == [
        "1 > 2 = False",
        "5 > 2 = True",
        "0 + 5 = 5",
        "[1, 5][1:] = [5]",
        "[5] + [5] = [5, 5]",
    ]


@given(seeds)
def test_an_answer_that_is_worked_out_is_still_an_answer(rng):
    lesson = grammar.example(rng, Role.SOLVE, Kind.DEDUCTION, pairs=6, references=2, worked=1.0)
    for read, written in lesson.turns:
        assert len(parsing.blocks(written, "output")) == 1
        assert not read.endswith("```output\n")


@given(seeds)
def test_held_out_programs_are_never_taught(rng):
    for role in Role:
        for kind in grammar.KINDS:
            lesson = grammar.example(rng, role, kind, pairs=6, references=2, worked=0.5)
            for text in (part for turn in lesson.turns for part in turn):
                assert not any(map(grammar.held_out, parsing.blocks(text, "python")))


@given(seeds)
def test_no_lesson_has_as_many_operations_as_the_tasks_beyond_it(rng):
    assert beyond.operations(grammar.Writer(rng).program().source) <= beyond.MOST_TAUGHT < min(beyond.BANDS.values())[0]


@pytest.mark.parametrize(
    ("body", "operations"),
    [("x", 0), ("x[1:] + [2]", 2), ("[v + 2 for v in x[1:]]", 2), ("max(len(x), 3) > 2", 3), ("-1", 0)],
)
def test_an_operation_is_one_of_the_grammar(body, operations):
    assert beyond.operations(f"def f(x):\n    return {body}") == operations


@pytest.mark.parametrize("band", beyond.BANDS)
def test_tasks_beyond_the_lessons_are_in_their_band_and_true(band):
    found = beyond.tasks(0, band, 4)
    low, high = beyond.BANDS[band]
    assert [one.kind for one in found] == [kind for kind in grammar.KINDS for _ in range(4)]
    assert len({one.program for one in found}) == 12
    for one in found:
        assert low <= beyond.operations(one.program) <= high
        function = grammar.compile_program(one.program)
        assert all(grammar.run(function, case.input) == case.output for case in one.cases)
    assert found == beyond.tasks(0, band, 4)
