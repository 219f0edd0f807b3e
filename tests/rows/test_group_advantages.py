"""Advantages of groups: TRL's formulas, and what they have to do whatever the rewards are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx.rows.group_advantages import ALGORITHMS, advantages, loss_weights

GROUPS = st.lists(st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=6), min_size=1, max_size=5)


def test_the_formulas_on_one_example():
    groups = [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0]]
    spread, batch = 0.5, math.sqrt(0.3)  # sample deviations of the first group, and of all six
    assert advantages(groups, "grpo")[0] == pytest.approx([0.75 / (spread + 1e-4), *[-0.25 / (spread + 1e-4)] * 3])
    assert advantages(groups, "dr_grpo")[0] == [0.75, -0.25, -0.25, -0.25]
    assert advantages(groups, "reinforce++-baseline")[0][0] == pytest.approx(0.75 / (batch + 1e-4))
    assert advantages(groups, "reinforce++")[1] == pytest.approx([0.5 / (batch + 1e-4)] * 2)
    assert {name: advantages(groups, name)[1] for name in ("grpo", "dr_grpo")} == {"grpo": [0, 0], "dr_grpo": [0, 0]}


@given(GROUPS, st.sampled_from(ALGORITHMS))
def test_what_has_no_reward_has_no_advantage_and_moves_no_other(groups, algorithm):
    found = advantages(groups, algorithm)
    assert all(math.isfinite(value) for group in found for value in group)
    assert all(a == 0 for g, f in zip(groups, found, strict=True) for r, a in zip(g, f, strict=True) if math.isnan(r))
    without = advantages([[r for r in group if not math.isnan(r)] for group in groups], algorithm)
    kept = [[a for r, a in zip(g, f, strict=True) if not math.isnan(r)] for g, f in zip(groups, found, strict=True)]
    assert kept == without


@given(GROUPS, st.sampled_from(ALGORITHMS))
def test_advantages_of_what_is_compared_add_up_to_zero(groups, algorithm):
    found = advantages(groups, algorithm)
    sums = [sum(value for group in found for value in group)] if algorithm == "reinforce++" else map(sum, found)
    assert all(abs(total) < 1e-3 for total in sums)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.integers(0, 4))
def test_weights_turn_a_mean_over_tokens_into_each_loss(lengths, masked):
    """With a loss of c_i for every token of answer i: the mean over tokens of weight * c is the algorithm's loss."""
    costs, total, answers = [float(i + 1) for i in range(len(lengths))], sum(lengths), len(lengths) + masked

    def loss(algorithm):
        weights = loss_weights(lengths, answers, 50, algorithm)
        return sum(w * c * n for w, c, n in zip(weights, costs, lengths, strict=True)) / total

    assert loss("grpo") == pytest.approx(sum(costs) / answers)
    assert loss("dr_grpo") == pytest.approx(sum(c * n for c, n in zip(costs, lengths, strict=True)) / (50 * answers))
    assert loss("dapo") == pytest.approx(sum(c * n for c, n in zip(costs, lengths, strict=True)) / total)
