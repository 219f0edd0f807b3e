"""What counts of passed samples say: unbiased pass@k, how sure one may be of it, and whether two runs differ."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_Z = 1.959963984540054  # two-sided 95 %


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that k of n samples, drawn without replacement, hold at least one of the c right ones.

    1 - C(n-c, k) / C(n, k), the unbiased estimator of Chen et al. 2021, eq. 1. Raises ValueError when n < k: fewer
    samples than k say nothing about pass@k without bias.
    """
    if not 0 <= c <= n:
        raise ValueError(f"{c} of {n} samples cannot be right")
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples of every task, there are {n}")
    if n - c < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over tasks, all shares of 1: value, standard error, and the ends of its 95 % interval."""

    value: float
    error: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of one value in [0, 1] a task. Tasks are the units, as in Miller 2024 (arXiv 2411.00640).

    The interval is Wilson's: it stays within [0, 1] and does not shrink to nothing at 0 of 164. For pass@k between 0
    and 1 within a task it is wider than need be, never narrower (such values vary less than zeros and ones).
    Raises ValueError without values.
    """
    n = len(values)
    if not n:
        raise ValueError("no tasks")
    mean = math.fsum(values) / n
    error = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n) if n > 1 else 0.0
    scale = 1.0 + _Z * _Z / n
    centre = (mean + _Z * _Z / (2 * n)) / scale
    half = _Z / scale * math.sqrt(max(0.0, mean * (1.0 - mean)) / n + _Z * _Z / (4 * n * n))
    low, high = max(0.0, centre - half), min(1.0, centre + half)
    return Estimate(mean, error, min(low, mean), max(high, mean))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs on the same tasks: which tasks the second won and lost, and how likely chance alone would do that.

    `p` is the exact two-sided probability (McNemar's test: under no difference each changed task is a coin).
    `change` is the difference of the means, second minus first, with the ends of its paired 95 % interval.
    """

    won: tuple[str, ...]
    lost: tuple[str, ...]
    p: float
    change: float
    low: float
    high: float
    tasks: int

    @property
    def real(self) -> bool:
        """Whether chance is an unlikely explanation (p < 0.05)."""
        return self.p < 0.05


def compare_rates(first: Mapping[str, float], second: Mapping[str, float]) -> Comparison:
    """Compare task by task: the mapping's values are shares of right samples, 0 or 1 with one sample.

    With one sample a task this is McNemar's exact test; with more it is the exact sign test on the tasks whose share
    changed. The interval is Agresti and Min's (2005): half a task is added to each of won, lost, both and neither, so
    that it does not shrink to nothing where no task changed. Tasks that only one run has are left out. Raises
    ValueError when no task is in both.
    """
    tasks = [task for task in first if task in second]
    if not tasks:
        raise ValueError("the two runs share no task")
    won = tuple(task for task in tasks if second[task] > first[task])
    lost = tuple(task for task in tasks if second[task] < first[task])
    changes = [second[task] - first[task] for task in tasks]
    mean = math.fsum(changes) / len(tasks)
    n = len(tasks) + 2
    centre = math.fsum(changes) / n
    half = _Z * math.sqrt(((math.fsum(d * d for d in changes) + 1) / n - centre * centre) / n)
    low, high = max(-1.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))
    return Comparison(won, lost, sign_test(len(won), len(lost)), mean, low, high, len(tasks))


def sign_test(won: int, lost: int) -> float:
    """Two-sided exact probability of a split at least this uneven of won + lost fair coins; 1 without any."""
    n, few = won + lost, min(won, lost)
    return float(min(1.0, 2 * sum(math.comb(n, i) for i in range(few + 1)) / 2**n))
