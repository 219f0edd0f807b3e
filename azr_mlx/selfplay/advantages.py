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
FORM = "/form"  # ends the names of the sets that compare the form of proposals


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

    Rollouts that share their prompt with others are centred by `attempts_baseline` (solver) or `proposals_baseline`,
    everything else by `baseline`. Sets of a (kind, role) with fewer than `small_set` rollouts use, and all of them
    move, the moments of `running`.

    With `proposal_signals` separate, a proposal has two advantages, which are added: its form, which compares the
    rewards of invalid proposals with 0 for valid ones, and its learnability, which compares valid ones with each other.
    Otherwise most of the spread of the rewards is that between valid and invalid, and hides the second.
    """
    group_sizes: dict[Hashable, int] = defaultdict(int)
    for one in scored:
        group_sizes[_prompt(one)] += 1
    # Of one signal and one baseline: which rollouts, and the value of each.
    sets: dict[tuple[Hashable, str], list[tuple[int, float]]] = defaultdict(list)
    for index, one in enumerate(scored):
        baseline = settings.baseline
        if group_sizes[_prompt(one)] > 1:
            baseline = settings.attempts_baseline if one.role is Role.SOLVE else settings.proposals_baseline
        for signal, value in _signals(one, settings):
            among = _prompt(one) if baseline == "by_prompt" else f"{one.kind}/{one.role}"
            sets[among, signal].append((index, value))
    result = [0.0] * len(scored)
    for (among, signal), members in sets.items():
        values = [value for _, value in members]
        lengths = [len(scored[i].rollout.completion.tokens) for i, _ in members]
        mean, variance = moments(values, lengths if settings.per == "token" else [1] * len(members))
        if isinstance(among, str):
            blended = running.blend(among + signal, mean, variance, settings.decay)
            if len(members) < settings.small_set:
                mean, variance = blended
        elif max(values) == min(values):
            continue  # a group of one prompt without a spread says nothing
        for (index, _), value in zip(members, _centred(values, mean, variance, settings.divide_by_std), strict=True):
            result[index] += settings.form_weight * value if signal == FORM else value
    for index, one in enumerate(scored):
        if settings.positive_only:
            result[index] = max(0.0, result[index])
        if one.role is Role.PROPOSE:
            result[index] *= settings.proposer_weight
    return result


def _signals(one: Scored, settings: config.AdvantageConfig) -> list[tuple[str, float]]:
    """What a rollout is compared by: the suffix of each set's name and the value."""
    if one.role is Role.SOLVE or settings.proposal_signals == "joint":
        return [("", one.reward)]
    if not one.verdict.valid:
        return [(FORM, one.reward)]
    return [(FORM, 0.0), ("/learnability", one.reward)]


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
