"""When a run ends early: on scores as they are compared, task by task."""

from __future__ import annotations

import random

import pytest

from azr_mlx.config import StopConfig
from azr_mlx.run.held_out import HeldOutScore
from azr_mlx.run.stopping import ended_by, headline, unreadable
from azr_mlx.types import Kind


def score(rates: list[float]) -> HeldOutScore:
    return HeldOutScore({Kind.DEDUCTION: rates}, {Kind.DEDUCTION: rates})


def drawn(rate: float, seed: int, tasks: int = 128, samples: int = 4) -> HeldOutScore:
    """Each task solved with the same probability."""
    rng = random.Random(seed)
    return score([sum(rng.random() < rate for _ in range(samples)) / samples for _ in range(tasks)])


HIGH, LOW = score([0.5, 0.75, 0.5, 1.0] * 20), score([0.25, 0.5, 0.25, 0.5] * 20)


def test_a_run_that_got_worse_than_before_training_ends_and_says_by_how_much() -> None:
    why = ended_by(StopConfig(), HIGH, LOW, LOW, 0)
    assert why.startswith("the held-out score is lower than before training: -31.2 points, ± 2.4")


def test_a_run_that_fell_from_its_best_ends_although_it_is_not_worse_than_before() -> None:
    assert "lower than at its best" in ended_by(StopConfig(), LOW, HIGH, LOW, 1)


def test_a_handful_of_tasks_ends_nothing() -> None:
    """Two tasks that both fell have an interval of no width."""
    assert ended_by(StopConfig(), score([1.0, 1.0]), score([1.0, 1.0]), score([0.0, 0.0]), 1) == ""


def test_what_lies_within_the_interval_ends_nothing() -> None:
    before = score([0.5, 0.5, 0.5, 0.5] * 20)
    now = score([0.25, 0.75, 0.5, 0.45] * 20)
    assert headline(before, now).change < 0
    assert ended_by(StopConfig(), before, before, now, 3) == ""


def test_a_better_run_goes_on_and_so_does_a_worse_one_where_that_is_wanted() -> None:
    assert ended_by(StopConfig(), LOW, HIGH, HIGH, 0) == ""
    assert ended_by(StopConfig(worse=False), HIGH, HIGH, LOW, 1) == ""


@pytest.mark.parametrize(("plateau", "without_better", "ends"), [(0, 99, False), (3, 2, False), (3, 3, True)])
def test_a_plateau_is_so_many_evaluations_without_a_better_one(plateau: int, without_better: int, ends: bool) -> None:
    why = ended_by(StopConfig(plateau=plateau), HIGH, HIGH, HIGH, without_better)
    assert ("no longer improves" in why) is ends


def test_chance_ends_few_runs_that_stand_still() -> None:
    """200 runs of five evaluations whose policy never changes: the best of several is no measure for the next."""
    ended = 0
    for run in range(200):
        scores = [drawn(0.3, 1000 * run + i) for i in range(6)]
        before, later = scores[0], scores[1:]
        ended += any(
            ended_by(StopConfig(), before, max(later[: i + 1], key=lambda one: one.mean), now, 0)
            for i, now in enumerate(later)
        )
    assert ended <= 30  # 2.5 % for each evaluation, less for their common start


def test_a_step_is_unreadable_when_no_reply_of_either_role_has_its_form() -> None:
    assert unreadable({"malformed/propose": 1.0, "malformed/solve": 1.0})
    assert unreadable({"malformed/solve": 1.0})  # nothing was proposed
    assert not unreadable({"malformed/propose": 1.0, "malformed/solve": 0.99})
    assert not unreadable({})
