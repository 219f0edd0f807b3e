"""The ladder of rewards, and what a rollout is compared with."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr_mlx import config
from azr_mlx.selfplay.advantages import Running, advantages, whiten, zero_signal_share
from azr_mlx.selfplay.rewards import learnability, propose_reward, solve_reward
from azr_mlx.types import Completion, Kind, Prompt, Role, Rollout, Scored, Stop, Verdict

VALID, INVALID = Verdict(True, True, "ok"), Verdict(False, False, "syntax error")


def scored(
    reward: float,
    tokens: int = 10,
    role: Role = Role.SOLVE,
    kind: Kind = Kind.DEDUCTION,
    prompt: str = "p",
    verdict: Verdict = VALID,
) -> Scored:
    completion = Completion((0,) * tokens, (0.0,) * tokens, "", Stop.EOS)
    return Scored(Rollout(Prompt(role, kind, prompt), (), completion), verdict, reward)


def proposal(reward: float, prompt: str = "p") -> Scored:
    """A proposal; below the reward of any valid one it is invalid."""
    return scored(reward, role=Role.PROPOSE, prompt=prompt, verdict=INVALID if reward == -1.0 else VALID)


RAW = {"divide_by_std": False, "small_set": 0}


# 1 - r inside (0, 1); both ends teach nothing.
@pytest.mark.parametrize(("solved", "reward"), [(0, -0.5), (1, 0.875), (4, 0.5), (7, 0.125), (8, -0.5)])
def test_the_hardest_task_that_is_still_solved_pays_best(solved, reward):
    assert learnability(solved / 8, config.RewardConfig()) == reward


def test_the_paper_gives_nothing_at_both_ends():
    assert learnability(0.0, config.RewardConfig(unlearnable=0.0)) == 0.0


def test_variance_pays_best_in_the_middle():
    settings = config.RewardConfig(learnability="variance")
    assert learnability(0.5, settings) == 1.0 > learnability(0.25, settings) == 0.75


def test_an_invalid_proposal_is_malformed_whatever_its_rate():
    assert propose_reward(INVALID, None, config.RewardConfig()) == -1.0


def test_a_valid_proposal_must_have_been_measured():
    with pytest.raises(ValueError, match="solve rate"):
        propose_reward(VALID, None, config.RewardConfig())


def test_a_solution_is_right_wrong_or_malformed():
    ladder = [solve_reward(v, config.RewardConfig()) for v in (VALID, Verdict(True, False, "wrong"), INVALID)]
    assert ladder == [1.0, -0.5, -1.0]


def test_long_rollouts_weigh_more_in_the_baseline():
    # mean = (100 - .5 * 10) / 110 = .863636; variance (n / (n - 1)) = .187656
    assert whiten([1.0, -0.5], [100, 10]) == pytest.approx([0.314787, -3.147871], abs=1e-6)


def test_a_set_counted_by_rollouts_ignores_length():
    settings = config.AdvantageConfig(per="rollout", small_set=0, divide_by_std=False)
    long_and_short = [scored(1.0, 100, prompt="a"), scored(0.0, 1, prompt="b")]
    assert advantages(long_and_short, settings, Running()) == [0.5, -0.5]


def test_equal_rewards_have_no_advantage():
    assert whiten([0.3, 0.3, 0.3], [1, 7, 2]) == [0.0, 0.0, 0.0]


def test_kinds_and_roles_are_never_compared_with_each_other():
    settings = config.AdvantageConfig(small_set=0, divide_by_std=False)
    rows = [
        scored(reward, role=role, kind=kind, prompt=f"{i}")
        for role in Role
        for kind in Kind
        for i, reward in enumerate((0.0, 1.0))
    ]
    assert advantages(rows, settings, Running()) == [-0.5, 0.5] * len(Role) * len(Kind)


def test_attempts_are_compared_with_attempts_of_the_same_task():
    easy = [scored(1.0, prompt="easy"), scored(1.0, prompt="easy")]
    hard = [scored(1.0, prompt="hard"), scored(-0.5, prompt="hard")]
    assert advantages(easy + hard, config.AdvantageConfig(divide_by_std=False), Running()) == [0.0, 0.0, 0.75, -0.75]


def test_a_small_set_is_compared_with_the_past():
    settings, running = config.AdvantageConfig(divide_by_std=False, small_set=8, decay=0.9), Running()
    advantages([scored(0.0, prompt=str(i)) for i in range(8)], settings, running)
    # The running mean is .9 * 0 + .1 * 1 = .1; a set of one would be its own mean.
    assert advantages([scored(1.0)], settings, running) == pytest.approx([0.9])


def test_positive_only_keeps_no_blame():
    rows = [scored(1.0), scored(-0.5)]
    assert advantages(rows, config.AdvantageConfig(divide_by_std=False, positive_only=True), Running()) == [0.75, 0.0]


@given(st.lists(st.tuples(st.sampled_from([1.0, -0.5, -1.0]), st.integers(1, 50)), min_size=2, max_size=40))
def test_whitened_rewards_have_mean_zero_and_variance_one_over_tokens(rows):
    rewards, counts = [r for r, _ in rows], [n for _, n in rows]
    values = whiten(rewards, counts)
    total = sum(counts)
    assert sum(n * a for n, a in zip(counts, values, strict=True)) / total == pytest.approx(0.0, abs=1e-6)
    if len(set(rewards)) > 1:
        variance = sum(n * a * a for n, a in zip(counts, values, strict=True)) / (total - 1)
        assert math.isclose(variance, 1.0, rel_tol=1e-4)


def test_proposals_of_one_prompt_are_compared_with_each_other_if_asked():
    both = [proposal(1.0, "easy"), proposal(0.5, "easy"), proposal(0.0, "hard"), proposal(-0.5, "hard")]
    settings = config.AdvantageConfig(**RAW)
    assert advantages(both, settings, Running()) == [0.75, 0.25, -0.25, -0.75]
    settings = config.AdvantageConfig(**RAW, proposals_baseline="by_prompt")
    assert advantages(both, settings, Running()) == [0.25, -0.25, 0.25, -0.25]


def test_form_and_learnability_of_a_proposal_are_two_signals_if_asked():
    rows = [proposal(-1.0), proposal(-1.0), proposal(1.0), proposal(-0.5)]
    # Together an unlearnable task is hardly worse than the mean of -0.375. Apart: the form is 0.5 from its mean, and
    # the learnability of the two valid ones 0.75 from theirs.
    assert advantages(rows, config.AdvantageConfig(**RAW), Running()) == [-0.625, -0.625, 1.375, -0.125]
    settings = config.AdvantageConfig(**RAW, proposal_signals="separate")
    assert advantages(rows, settings, Running()) == [-0.5, -0.5, 1.25, -0.25]
    settings = config.AdvantageConfig(**RAW, proposal_signals="separate", form_weight=0.5)
    assert advantages(rows, settings, Running()) == [-0.25, -0.25, 1.0, -0.5]


@given(st.lists(st.sampled_from([-1.0, -0.5, 0.25, 1.0]), min_size=1, max_size=12))
def test_separate_signals_never_blame_a_proposal_for_how_many_others_are_valid(rewards):
    settings = config.AdvantageConfig(**RAW, proposal_signals="separate")
    rows = [proposal(reward) for reward in rewards]
    valid = [i for i, reward in enumerate(rewards) if reward != -1.0]
    alone = advantages([rows[i] for i in valid], settings, Running())
    among = advantages(rows, settings, Running())
    # What sets valid proposals apart from each other is the same whatever stands beside them.
    for i, value in zip(valid, alone, strict=True):
        assert among[i] - among[valid[0]] == pytest.approx(value - alone[0], abs=1e-9)


def test_the_proposer_s_weight_leaves_the_solver_alone():
    rows = [proposal(1.0), proposal(-0.5), scored(1.0), scored(-0.5)]
    settings = config.AdvantageConfig(**RAW, proposer_weight=2.0)
    assert advantages(rows, settings, Running()) == [1.5, -1.5, 0.75, -0.75]


def test_flat_groups_are_counted():
    rows = [scored(1.0, prompt="a"), scored(1.0, prompt="a"), scored(1.0, prompt="b"), scored(-0.5, prompt="b")]
    assert zero_signal_share(rows) == 0.5
