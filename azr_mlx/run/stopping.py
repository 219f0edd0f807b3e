"""When a run ends before its steps and minutes are over: its score has fallen, it rises no more, nothing can be read.

Scores are compared task by task (`held_out.compare`), with the mean over kinds at temperature 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from azr_mlx.config import StopConfig
from azr_mlx.run.held_out import HeldOutScore, Line, compare

# The best of several scores is too good by chance, so a later one is lower by chance: it has to fall further. In half
# widths of a 95 % interval; about 3 standard errors.
BELOW_BEST = 1.5
LEAST_TASKS = 24  # of all kinds together: an interval of fewer says nothing


def ended_by(
    settings: StopConfig, before: HeldOutScore, best: HeldOutScore, now: HeldOutScore, without_better: int
) -> str:
    """Why a run ends after this evaluation, in words; empty when it goes on.

    before: the score before training. best: the best since. without_better: evaluations in a row that were not better
    than it, this one included.
    """
    if settings.worse and sum(map(len, now.sampled.values())) >= LEAST_TASKS:
        for earlier, when, widths in ((before, "before training", 1.0), (best, "at its best", BELOW_BEST)):
            change = headline(earlier, now)
            if change.change < -widths * change.half_width:
                return f"the held-out score is lower than {when}: {points(change)} (stop.worse=false goes on)"
    if settings.plateau and without_better >= settings.plateau:
        times = "the last evaluation was" if without_better == 1 else f"{without_better} evaluations in a row were"
        return f"the run no longer improves: {times} not better than the best (stop.plateau={settings.plateau})"
    return ""


def headline(before: HeldOutScore, after: HeldOutScore) -> Line:
    """The change of the mean over the kinds at temperature 1."""
    return next(line for line in compare(before, after) if line.name == "mean T=1")


def points(change: Line) -> str:
    """A change in percentage points with its 95 % interval."""
    return f"{100 * change.change:+.1f} points, ± {100 * change.half_width:.1f}"


def unreadable(row: Mapping[str, Any]) -> bool:
    """Whether a step's replies all lack the required form, in both roles: every reward is then the same."""
    shares = [row[name] for name in ("malformed/propose", "malformed/solve") if name in row]
    return bool(shares) and min(shares) == 1
