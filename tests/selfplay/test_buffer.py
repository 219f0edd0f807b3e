"""The memory of tasks."""

from __future__ import annotations

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.executor.literals import parse_arguments, parse_value
from azr_mlx.selfplay.task_buffer import Buffer, from_row, frontier, key, program_key, seed_tasks, to_row
from azr_mlx.types import Case, Kind, Task

PAPER = (Kind.DEDUCTION, Kind.ABDUCTION, Kind.INDUCTION)


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


def test_held_out_programs_are_never_taken_whatever_their_input():
    buffer = Buffer(10, forbidden=[program_key(task(1))])
    other = Task(Kind.ABDUCTION, "def f(number):\n    return number+1", (Case("5", "6"),))
    for one in (task(1), other):
        assert buffer.refusal(one) == "held out"
        assert not buffer.add(one)


def about(number: int, value: int, kind: Kind = Kind.DEDUCTION, step: int = 0) -> Task:
    """A task about the program `a + number`."""
    return Task(kind, task(number).program, (Case(str(value), str(value + number)),), step=step)


def test_a_program_that_has_its_share_of_tasks_is_known():
    buffer = Buffer(10, per_program=2)
    assert [buffer.add(about(1, value)) for value in (1, 2, 3)] == [True, True, False]
    assert buffer.refusal(about(1, 3)) == "program known"
    assert buffer.add(about(1, 3, Kind.ABDUCTION))  # each kind counts for itself
    assert buffer.add(about(2, 3))


def test_a_program_may_come_back_when_its_tasks_have_left():
    buffer = Buffer(2, per_program=1)
    assert buffer.add(about(1, 1))
    assert not buffer.add(about(1, 2))
    for number in (2, 3):
        buffer.add(about(number, 1))
    assert buffer.add(about(1, 2))


def test_a_restored_buffer_knows_its_programs():
    buffer, copy = Buffer(10, per_program=1), Buffer(10, per_program=1)
    buffer.add(about(1, 1))
    copy.load(buffer.rows())
    assert copy.refusal(about(1, 2)) == "program known"


def test_an_induction_task_does_not_answer_for_the_program_it_was_lent():
    buffer = Buffer(10, per_program=1)
    for values in ("12", "34"):
        cases = tuple(Case(value, str(int(value) + 1)) for value in values)
        assert buffer.add(Task(Kind.INDUCTION, task(1).program, cases, "add one"))


def test_references_are_different_tasks_and_at_most_all_of_them():
    buffer = Buffer(10)
    for number in range(3):
        buffer.add(task(number))
    assert sorted(t.program for t in buffer.references(Kind.DEDUCTION, 6, random.Random(0))) == [
        task(i).program for i in range(3)
    ]


@pytest.mark.parametrize("prefer", ["uniform", "learnable", "frontier"])
def test_references_and_lent_programs_prefer_what_is_solved_sometimes_if_asked(prefer):
    buffer, rng, shown, lent = Buffer(10), random.Random(0), Counter(), Counter()
    for number, rate in enumerate((0.0, 0.5, 1.0)):
        buffer.add(task(number))
        buffer.note(task(number), rate)
    for _ in range(300):
        shown.update(one.program[-1] for one in buffer.references(Kind.DEDUCTION, 1, rng, prefer))
        lent[buffer.program(rng, prefer).program[-1]] += 1
    for drawn in (shown, lent):
        assert max(drawn.values()) < 150 if prefer == "uniform" else drawn["1"] > 220


@pytest.mark.parametrize("prefer", ["uniform", "learnable", "frontier"])
def test_an_empty_ring_has_no_references(prefer):
    assert Buffer(10).references(Kind.DEDUCTION, 2, random.Random(0), prefer) == []


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
    for seed in seed_tasks(PAPER, pairs):
        for case in seed.cases:
            (value,), _ = parse_arguments(case.input)
            assert value == parse_value(case.output)
        assert len(seed.cases) == (pairs if seed.kind is Kind.INDUCTION else 1)


def test_rows_bring_a_buffer_back():
    buffer, copy = Buffer(10), Buffer(10)
    for one in (*seed_tasks(PAPER, 6), task(4), task(5, kind=Kind.ABDUCTION)):
        buffer.add(one)
    assert not copy.load(buffer.rows())
    assert all(copy.tasks(kind) == buffer.tasks(kind) for kind in Kind)
    assert from_row(to_row(task(3))) == task(3)


def test_saved_tasks_that_cannot_be_judged_are_left_out_and_counted():
    good, rows = task(3), [to_row(task(3))]
    for output in ("(1+infj)", "[" * 101 + "-1" + "]" * 101, "nan"):
        rows.append(to_row(Task(Kind.ABDUCTION, good.program, (Case("1", output),))))
    rows.append(to_row(Task(Kind.DEDUCTION, "def f(a):\n    return '\ud800'", (Case("1", "1"),))))
    rows += [{}, {"kind": "reduction"}, {**to_row(task(4)), "solved": "often"}, {**to_row(task(4)), "cases": None}]
    buffer = Buffer(10)
    assert buffer.load(rows) == {"output is no literal": 3, "not a text": 1, "no task": 4}
    assert [one for kind in Kind for one in buffer.tasks(kind)] == [good]


def test_tasks_that_are_solved_sometimes_are_drawn_most():
    buffer, rng, drawn = Buffer(10), random.Random(0), Counter()
    for number, rate in enumerate((0.0, 0.5, 1.0)):
        buffer.add(task(number))
        buffer.note(task(number), rate)
    for _ in range(1000):
        drawn.update(one.program[-1] for one in buffer.draw(Kind.DEDUCTION, 1, 1, rng, prefer="learnable"))
    # Weights r(1 - r) + 0.02: 0.02, 0.27, 0.02 of 0.31.
    assert 0.82 < drawn["1"] / 1000 < 0.92
    assert min(drawn["0"], drawn["2"]) > 30


def test_a_draw_at_the_frontier_prefers_what_is_seldom_solved():
    rates = [0.0, 0.125, 0.375, 0.625, 0.875, 1.0]
    weights = frontier(rates)
    ordered = sorted(rates, key=lambda rate: -weights[rates.index(rate)])
    assert ordered == [0.375, 0.125, 0.625, 0.875, 0.0, 1.0]
    assert frontier([0.25, None])[1] < frontier([0.25, None])[0]


@given(st.lists(st.one_of(st.none(), st.integers(0, 16).map(lambda right: right / 16)), min_size=1, max_size=50))
def test_a_tenth_of_a_draw_at_the_frontier_is_for_all_alike(rates):
    weights = frontier(rates)
    assert min(weights) > 0
    if any(rate in (0.0, 1.0) for rate in rates) and not all(rate in (0.0, 1.0) for rate in rates):
        assert len(rates) * min(weights) == pytest.approx(0.1 * sum(weights))


def test_a_preferring_draw_takes_no_task_twice_while_there_are_others():
    buffer = Buffer(10)
    for number in range(6):
        buffer.add(task(number))
    drawn = buffer.draw(Kind.DEDUCTION, 6, 1, random.Random(0), prefer="learnable")
    assert sorted(one.program for one in drawn) == [task(number).program for number in range(6)]


def test_no_fresh_task_is_drawn_where_none_is_wanted():
    buffer = Buffer(10)
    for number in range(4):
        buffer.add(task(number, step=number % 2))
    assert {one.step for one in buffer.draw(Kind.DEDUCTION, 4, 1, random.Random(0), fresh_share=0.0)} == {0}


def test_rows_bring_solve_rates_back():
    buffer, copy = Buffer(10), Buffer(10)
    buffer.add(task(1))
    buffer.note(task(1), 0.25)
    copy.load(json.loads(json.dumps(buffer.rows())))
    assert copy.snapshot() == buffer.snapshot()


def test_a_snapshot_undoes_what_came_after_it():
    buffer = Buffer(10)
    buffer.add(task(1))
    before = buffer.snapshot()
    buffer.add(task(2))
    buffer.restore(before)
    assert buffer.tasks(Kind.DEDUCTION) == [task(1)]
