"""Advantages: by how much a rollout did better than its baseline, the set of rollouts that it is compared with.

`by_task_role` is Task-Relative REINFORCE++ (AZR section 3.3.5, eq. 8): one set for each kind and role. `by_prompt` is
GRPO (Shao et al. 2024, section 4.1): one set for each prompt. The set is the only difference.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from azr_mlx import config
from azr_mlx.types import Role, Scored

EPSILON = 1e-8  # under the root, as in the released code


@dataclass
class Running:
    """Running mean and variance of the reward of each (kind, role), for sets too small to have a spread."""

    moments: dict[str, tuple[float, float]] = field(default_factory=dict)

    def blend(self, name: str, mean: float, variance: float, decay: float) -> tuple[float, float]:
        """Move the moments of `name` towards those of a new set and return them; the first set starts them."""
        if name in self.moments:
            old_mean, old_variance = self.moments[name]
            mean, variance = decay * old_mean + (1 - decay) * mean, decay * old_variance + (1 - decay) * variance
        self.moments[name] = (mean, variance)
        return mean, variance

    def snapshot(self) -> dict[str, tuple[float, float]]:
        """The moments as they are now, for `restore`."""
        return dict(self.moments)

    def restore(self, moments: dict[str, tuple[float, float]]) -> None:
        self.moments = dict(moments)


def moments(rewards: Sequence[float], counts: Sequence[int]) -> tuple[float, float]:
    """Mean and variance over tokens: a reward counts once for each of its `counts` tokens (Bessel's n / (n - 1))."""
    total = sum(counts)
    if total == 0:
        return 0.0, 0.0
    mean = sum(n * r for n, r in zip(counts, rewards, strict=True)) / total
    variance = sum(n * (r - mean) ** 2 for n, r in zip(counts, rewards, strict=True)) / total
    return mean, variance * total / max(1, total - 1)


def whiten(rewards: Sequence[float], counts: Sequence[int]) -> list[float]:
    """(R - mean) / sqrt(variance + eps) over all tokens of one set (AZR eq. 8); all equal gives zeros."""
    mean, variance = moments(rewards, counts)
    return _centred(rewards, mean, variance, divide=True)


def advantages(scored: Sequence[Scored], settings: config.AdvantageConfig, running: Running) -> list[float]:
    """One advantage for each rollout, in order; the same for all of its tokens.

    Solver rollouts that share their prompt with others are centred by `attempts_baseline`, everything else by
    `baseline`. Sets of a (kind, role) with fewer than `small_set` rollouts use, and all of them move, the moments of
    `running`.
    """
    group_sizes: dict[Hashable, int] = defaultdict(int)
    for one in scored:
        group_sizes[_prompt(one)] += 1
    sets: dict[Hashable, list[int]] = defaultdict(list)
    for index, one in enumerate(scored):
        grouped = one.role is Role.SOLVE and group_sizes[_prompt(one)] > 1
        baseline = settings.attempts_baseline if grouped else settings.baseline
        sets[_prompt(one) if baseline == "by_prompt" else f"{one.kind}/{one.role}"].append(index)
    result = [0.0] * len(scored)
    for name, members in sets.items():
        rewards = [scored[i].reward for i in members]
        counts = [len(scored[i].rollout.completion.tokens) if settings.per == "token" else 1 for i in members]
        mean, variance = moments(rewards, counts)
        if isinstance(name, str):
            blended = running.blend(name, mean, variance, settings.decay)
            if len(members) < settings.small_set:
                mean, variance = blended
        elif max(rewards) == min(rewards):
            continue  # a group of one prompt without a spread says nothing
        for index, value in zip(members, _centred(rewards, mean, variance, settings.divide_by_std), strict=True):
            result[index] = max(0.0, value) if settings.positive_only else value
    return result


def _centred(rewards: Sequence[float], mean: float, variance: float, divide: bool) -> list[float]:
    scale = 1.0 / math.sqrt(variance + EPSILON) if divide else 1.0
    # Equal rewards leave rounding noise around their mean, which the division would blow up.
    return [0.0 if abs(r - mean) < 1e-9 else (r - mean) * scale for r in rewards]


def _prompt(one: Scored) -> Hashable:
    prompt = one.rollout.prompt
    return (prompt.role, prompt.kind, prompt.text)


def zero_signal_share(scored: Sequence[Scored]) -> float:
    """Share of the prompts with several solver rollouts whose rewards are all equal: they teach nothing."""
    groups: dict[Hashable, set[float]] = defaultdict(set)
    sizes: dict[Hashable, int] = defaultdict(int)
    for one in scored:
        if one.role is Role.SOLVE:
            groups[_prompt(one)].add(one.reward)
            sizes[_prompt(one)] += 1
    several = [len(rewards) == 1 for name, rewards in groups.items() if sizes[name] > 1]
    return sum(several) / len(several) if several else 0.0
