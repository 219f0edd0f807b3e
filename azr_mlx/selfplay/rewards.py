"""The ladder of rewards (AZR eq. 4-6, with the values of its released code as defaults)."""

from __future__ import annotations

from azr_mlx import config
from azr_mlx.types import Verdict


def learnability(solve_rate: float, settings: config.RewardConfig) -> float:
    """What a valid task is worth to its proposer, by the share r of attempts that solved it.

    r = 0 and r = 1 teach nothing: `unlearnable`. Between them `1 - r` (AZR eq. 4) or `4r(1 - r)`, which prefers the
    middle. Raises ValueError for a rate outside [0, 1].
    """
    if not 0.0 <= solve_rate <= 1.0:
        raise ValueError(f"a solve rate lies between 0 and 1, not at {solve_rate}")
    if solve_rate in (0.0, 1.0):
        return settings.unlearnable
    return 1.0 - solve_rate if settings.learnability == "one_minus" else 4.0 * solve_rate * (1.0 - solve_rate)


def propose_reward(
    verdict: Verdict, solve_rate: float | None, settings: config.RewardConfig, crowding: float = 0.0
) -> float:
    """AZR eq. 4 and 6: learnability for a valid task, `malformed` for anything else.

    From learnability goes a share `crowding` (`Archive.crowding`) of `crowded`, which the paper does not have.
    """
    if not verdict.valid:
        return settings.malformed
    if solve_rate is None:
        raise ValueError("a valid proposal needs the solve rate of its task")
    return learnability(solve_rate, settings) - settings.crowded * crowding


def solve_reward(verdict: Verdict, settings: config.RewardConfig) -> float:
    """AZR eq. 5 and 6: right, well formed but wrong, malformed. The form is looked at first."""
    if not verdict.valid:
        return settings.malformed
    return settings.correct if verdict.correct else settings.wrong
