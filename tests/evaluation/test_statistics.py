"""pass@k, its interval, and the comparison of two runs, against numbers worked out by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.evaluation import compare_rates, estimate, pass_at_k
from azr_mlx.evaluation.statistics import sign_test


@pytest.mark.parametrize(
    ("n", "c", "k", "value"),
    [(10, 3, 1, 0.3), (10, 3, 5, 1 - 21 / 252), (5, 0, 5, 0.0), (5, 4, 2, 1.0), (1, 1, 1, 1.0), (200, 1, 100, 0.5)],
)
def test_pass_at_k_is_the_chance_of_a_right_one_among_k_drawn(n: int, c: int, k: int, value: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(value)


@given(st.integers(1, 60), st.data())
def test_pass_at_k_equals_its_definition_with_binomials(n: int, data: st.DataObject) -> None:
    c, k = data.draw(st.integers(0, n)), data.draw(st.integers(1, n))
    assert pass_at_k(n, c, k) == pytest.approx(1 - math.comb(n - c, k) / math.comb(n, k))


def test_pass_at_k_is_refused_with_fewer_than_k_samples() -> None:
    with pytest.raises(ValueError, match="needs at least 5 samples"):
        pass_at_k(4, 1, 5)


def test_the_interval_does_not_vanish_at_zero_right() -> None:
    # Wilson at 0 of 164: z^2 / (n + z^2) = 3.8415 / 167.8415.
    found = estimate([0.0] * 164)
    assert (found.value, found.error, found.low) == (0, 0, 0)
    assert found.high == pytest.approx(3.8415 / 167.8415, abs=1e-4)


def test_the_standard_error_of_60_percent_on_164_tasks_is_3_8_points() -> None:
    found = estimate([1.0] * 98 + [0.0] * 66)
    assert found.error == pytest.approx(0.0384, abs=2e-4)
    assert found.low < 0.53 < 0.66 < found.high


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_an_interval_holds_its_value_and_stays_between_0_and_1(values: list[float]) -> None:
    found = estimate(values)
    assert 0 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(
    ("won", "lost", "p"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (6, 0, 2 / 64), (8, 2, 2 * (1 + 10 + 45) / 1024), (3, 3, 1.0)],
)
def test_mcnemar_is_exact(won: int, lost: int, p: float) -> None:
    assert sign_test(won, lost) == pytest.approx(p)
    assert sign_test(lost, won) == pytest.approx(p)


def test_a_comparison_names_what_was_won_and_lost() -> None:
    found = compare_rates({"a": 0, "b": 1, "c": 1, "only here": 1}, {"a": 1, "b": 0, "c": 1, "only there": 1})
    assert (found.won, found.lost, found.tasks) == (("a",), ("b",), 3)
    assert (found.change, found.p, found.real) == (0, 1.0, False)
    assert found.low < 0 < found.high


def test_that_no_task_changed_does_not_prove_that_none_would() -> None:
    """Agresti and Min: of 164 unchanged tasks the interval is that of one task more won and lost in 166."""
    same = {str(i): i % 2 for i in range(164)}
    found = compare_rates(same, same)
    assert (found.change, found.p) == (0, 1.0)
    assert found.high == pytest.approx(1.959964 * math.sqrt(1 / 166 / 166), abs=1e-6)
    assert found.low == -found.high


def test_runs_without_a_common_task_are_not_compared() -> None:
    with pytest.raises(ValueError, match="share no task"):
        compare_rates({"a": 1}, {"b": 1})
