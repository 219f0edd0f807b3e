"""The memory of tasks."""

from __future__ import annotations

import random

import pytest

from azr_mlx.buffer import Buffer, from_row, key, seed_tasks, to_row
from azr_mlx.executor.literals import parse_arguments, parse_value
from azr_mlx.types import Case, Kind, Task


def task(number: int, step: int = 0, kind: Kind = Kind.DEDUCTION) -> Task:
    return Task(kind, f"def f(a):\n    return a + {number}", (Case("1", str(1 + number)),), step=step)


def test_the_oldest_that_is_no_seed_leaves():
    buffer = Buffer(3)
    for one in (task(0, step=-1), task(1), task(2), task(3)):
        buffer.add(one)
    assert buffer.tasks(Kind.DEDUCTION) == [task(0, step=-1), task(2), task(3)]


def test_a_task_in_other_words_is_the_same_task():
    buffer = Buffer(10)
    buffer.add(Task(Kind.DEDUCTION, "def f(a):\n    return a + 1", (Case("1, 2", "2"),)))
    renamed = Task(Kind.DEDUCTION, "def f(number):\n    # add one\n    return number+1", (Case("1,2", "2"),))
    assert buffer.refusal(renamed) == "duplicate"
    assert not buffer.add(renamed)


def test_the_same_program_with_another_input_is_another_task():
    one, other = task(1), Task(Kind.DEDUCTION, task(1).program, (Case("5", "6"),))
    assert key(one) != key(other)


def test_held_out_tasks_are_never_taken():
    buffer = Buffer(10, forbidden=[key(task(1))])
    assert buffer.refusal(task(1)) == "held out"
    assert not buffer.add(task(1))


def test_references_are_different_tasks_and_at_most_all_of_them():
    buffer = Buffer(10)
    for number in range(3):
        buffer.add(task(number))
    assert sorted(t.program for t in buffer.references(Kind.DEDUCTION, 6, random.Random(0))) == [
        task(i).program for i in range(3)
    ]


def test_fresh_tasks_are_drawn_first_up_to_their_share():
    buffer = Buffer(100)
    for number in range(40):
        buffer.add(task(number, step=9 if number < 10 else 1))
    everything = buffer.draw(Kind.DEDUCTION, 20, 9, random.Random(0), fresh_share=1.0)
    assert sum(t.step == 9 for t in everything[:10]) == 10
    assert len({t.program for t in everything}) == 20
    some = buffer.draw(Kind.DEDUCTION, 20, 9, random.Random(0), fresh_share=0.25)
    assert [t.step for t in some[:5]] == [9] * 5


def test_a_short_ring_is_drawn_from_again():
    buffer = Buffer(10)
    buffer.add(task(1))
    assert len(buffer.draw(Kind.DEDUCTION, 3, 0, random.Random(0))) == 3
    assert buffer.draw(Kind.INDUCTION, 3, 0, random.Random(0)) == []


def test_an_induction_proposer_borrows_a_program_from_the_other_kinds():
    buffer = Buffer(10)
    buffer.add(task(1, kind=Kind.ABDUCTION))
    assert buffer.program(random.Random(0)).kind is Kind.ABDUCTION


@pytest.mark.parametrize("pairs", [2, 6, 10])
def test_everything_starts_from_the_identity_function(pairs):
    for seed in seed_tasks(Kind, pairs):
        for case in seed.cases:
            (value,), _ = parse_arguments(case.input)
            assert value == parse_value(case.output)
        assert len(seed.cases) == (pairs if seed.kind is Kind.INDUCTION else 1)


def test_rows_bring_a_buffer_back():
    buffer, copy = Buffer(10), Buffer(10)
    for one in (*seed_tasks(Kind, 6), task(4), task(5, kind=Kind.ABDUCTION)):
        buffer.add(one)
    copy.load(buffer.rows())
    assert all(copy.tasks(kind) == buffer.tasks(kind) for kind in Kind)
    assert from_row(to_row(task(3))) == task(3)


def test_a_snapshot_undoes_what_came_after_it():
    buffer = Buffer(10)
    buffer.add(task(1))
    before = buffer.snapshot()
    buffer.add(task(2))
    buffer.restore(before)
    assert buffer.tasks(Kind.DEDUCTION) == [task(1)]
