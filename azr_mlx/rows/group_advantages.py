"""Advantages of groups: by how much an answer did better than the others to the same prompt, and what it weighs.

The formulas are those that TRL's GRPOTrainer computes (a check in tests/rows compares them number by number):

    grpo, dapo, gspo        (r - mean of the group) / (deviation of the group + 1e-4)       Shao et al. 2024
    dr_grpo                 r - mean of the group                                            Liu et al. 2025
    reinforce++-baseline    (r - mean of the group) / (deviation of the batch + 1e-4)        Hu et al. 2025
    reinforce++             (r - mean of the batch) / (deviation of the batch + 1e-4)        the same

Deviations are of samples (n - 1). An answer without a reward (nan) has no part in any mean, and no advantage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

EPSILON = 1e-4
ALGORITHMS = ("grpo", "dr_grpo", "dapo", "gspo", "reinforce++", "reinforce++-baseline")
# What one answer weighs in the loss, where not all tokens of the batch weigh alike: every answer alike, whatever its
# length; or every token by the longest length that an answer may have.
_WEIGHS = {"grpo": "sequence", "gspo": "sequence", "dr_grpo": "constant"}


def advantages(groups: Sequence[Sequence[float]], algorithm: str) -> list[list[float]]:
    """An advantage for each reward of each group; 0 where the reward is nan or nothing can be compared."""
    batch = [reward for group in groups for reward in group if not math.isnan(reward)]
    result = []
    for group in groups:
        own = [reward for reward in group if not math.isnan(reward)]
        if algorithm == "reinforce++":
            among, spread = batch, deviation(batch)
        else:
            among, spread = own, deviation(batch if algorithm == "reinforce++-baseline" else own)
        # Equal rewards leave rounding noise around their mean.
        flat = not among or max(among) == min(among)
        mean = fmean(among) if among else 0.0
        scale = 1.0 if algorithm == "dr_grpo" else 1.0 / (spread + EPSILON)
        result.append([0.0 if flat or math.isnan(reward) else (reward - mean) * scale for reward in group])
    return result


def deviation(values: Sequence[float]) -> float:
    """The deviation of a sample; 0 for fewer than two values."""
    if len(values) < 2:
        return 0.0
    mean = fmean(values)
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def loss_weights(lengths: Sequence[int], answers: int, longest: int, algorithm: str) -> list[float]:
    """The factor on each answer's advantage that turns a mean over the tokens of all answers into the algorithm's loss.

    lengths: tokens of the answers that are trained on; answers: how many there were, masked ones included; longest:
    tokens that an answer may have. grpo and gspo mean over each answer first, dr_grpo divides by the longest length.
    """
    total = sum(lengths)
    kind = _WEIGHS.get(algorithm, "token")
    if kind == "sequence":
        return [total / (answers * max(1, length)) for length in lengths]
    if kind == "constant":
        return [total / (answers * longest)] * len(lengths)
    return [1.0] * len(lengths)
