"""Held-out evaluation: fixed tasks, solved before, during and after a run, and whether a difference is real.

All intervals are 95 % normal intervals with tasks as units; a difference is taken task by task (paired), which is what
makes a hundred tasks enough to see some points.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, stdev
from typing import Any, Protocol, TypeVar

from azr_mlx.config import Config
from azr_mlx.generation import Group, PhaseTimer, RolloutStream, SampleRequest, TrainablePolicy
from azr_mlx.run import metrics
from azr_mlx.run.held_out_tasks import HeldOutTasks, guess_rates, tasks_for
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.solver import Solver
from azr_mlx.selfplay.task_buffer import program_key
from azr_mlx.trainer import PHASES
from azr_mlx.types import Kind, Task

__all__ = [
    "HeldOut",
    "HeldOutScore",
    "HeldOutTasks",
    "Line",
    "compare",
    "compare_bands",
    "guess_rates",
    "half_width",
    "tasks_for",
]

T = TypeVar("T")
ROWS = "rows"  # the name under which rows of the user's stand among the kinds
GRAIN = 8  # tasks of each kind come in so many: two of each band


@dataclass(frozen=True)
class HeldOutScore:
    """Solve rates of the tasks of each kind: greedy (0 or 1 each), and at temperature 1 (means of samples).

    The user's rows stand beside the kinds under the name `rows`; what is theirs is the reward.
    """

    greedy: dict[str, list[float]]
    sampled: dict[str, list[float]]
    bands: dict[str, list[int]] = field(default_factory=dict)  # of the tasks, 1 the easiest; empty when they have none
    # Shares of the replies at temperature 1 that met the token limit, and that had no answer to be read; of this
    # measurement only, not kept.
    truncated: float = field(default=0.0, compare=False)
    malformed: float = field(default=0.0, compare=False)

    @property
    def mean(self) -> float:
        """The headline: solve rate at temperature 1, mean over the kinds."""
        return fmean(fmean(rates) for rates in self.sampled.values())

    @property
    def greedy_mean(self) -> float:
        return fmean(fmean(rates) for rates in self.greedy.values())

    def row(self) -> dict[str, float]:
        """Metrics of this score, by name."""
        rows = {f"probe/{kind}": fmean(rates) for kind, rates in self.sampled.items()}
        rows |= {f"probe_greedy/{kind}": fmean(rates) for kind, rates in self.greedy.items()}
        rows |= {"probe/mean": self.mean, "probe_greedy/mean": self.greedy_mean}
        for band in self.band_numbers():
            kinds = {str(kind): fmean(rates) for kind, rates in self.in_band(band).sampled.items()}
            rows |= {f"heldout/band{band}/{kind}": rate for kind, rate in kinds.items()}
            rows[f"heldout/band{band}/mean"] = fmean(kinds.values())
        return rows

    def band_numbers(self) -> list[int]:
        """The bands of its tasks, the easiest first; none when the tasks have none."""
        return sorted({band for bands in self.bands.values() for band in bands})

    def in_band(self, band: int) -> HeldOutScore:
        """The score on the tasks of one band; kinds without such a task are left out."""

        def part(rates: dict[str, list[float]]) -> dict[str, list[float]]:
            banded = [kind for kind in rates if kind in self.bands]  # rows have none
            mine = {k: [r for r, b in zip(rates[k], self.bands[k], strict=True) if b == band] for k in banded}
            return {kind: found for kind, found in mine.items() if found}

        return HeldOutScore(part(self.greedy), part(self.sampled))

    def state(self) -> dict[str, Any]:
        """As plain data, to be kept with a checkpoint."""
        parts: dict[str, dict[str, Any]] = {"greedy": self.greedy, "sampled": self.sampled}
        if self.bands:
            parts["bands"] = self.bands
        return {name: {str(kind): values for kind, values in part.items()} for name, part in parts.items()}

    @property
    def half_width(self) -> float:
        """Half of the 95 % interval of `mean`: kinds weigh alike, tasks are independent."""
        return math.sqrt(sum(half_width(rates) ** 2 for rates in self.sampled.values())) / len(self.sampled)

    def form_advice(self) -> list[str]:
        """What is to be said of the form of its replies, with the option to turn; the shares are those of the alarms.

        Worth saying at once: a model whose replies cannot be read learns nothing, however long a run takes.
        """
        lines = []
        if self.truncated > metrics.CUT_OFF:
            lines.append(f"{100 * self.truncated:.0f} % of the answers were cut off: {metrics.SOLUTIONS_CUT_OFF}")
        if self.malformed - self.truncated > metrics.MALFORMED:
            lines.append(f"{100 * self.malformed:.0f} % of the answers lack their form: {metrics.WRONG_STYLE}")
        return lines

    def line(self, when: str) -> str:
        """The score as the console prints it."""
        kinds = ", ".join(f"{kind} {100 * fmean(rates):.1f} %" for kind, rates in self.sampled.items())
        bands = [f"{100 * self.in_band(band).mean:.1f} %" for band in self.band_numbers()]
        return (
            f"probe {when}: {100 * self.mean:.1f} % at temperature 1 ({kinds}); greedy {100 * self.greedy_mean:.1f} %"
            + (f"; by band {', '.join(bands)}" if bands else "")
        )

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> HeldOutScore:
        def rates(part: str) -> dict[str, Any]:
            return {kind: list(values) for kind, values in state.get(part, {}).items()}

        return cls(rates("greedy"), rates("sampled"), rates("bands"))


class HeldOutRows(Protocol):
    """Rows of the user's that are held out: how they are asked, and what the answers are worth."""

    @property
    def held_out(self) -> Sequence[Any]: ...

    def held_out_requests(self, count: int) -> list[SampleRequest]: ...

    def held_out_rewards(self, groups: Sequence[Group]) -> list[float]: ...


@dataclass(frozen=True)
class HeldOut:
    """The held-out tasks and rows of a run, and everything that it takes to measure a policy on them."""

    tasks: Sequence[Task]
    policy: TrainablePolicy
    solver: Solver
    config: Config
    phase: PhaseTimer
    rows: HeldOutRows | None = None

    @property
    def size(self) -> int:
        """How many tasks and rows there are."""
        return len(self.tasks) + (len(self.rows.held_out) if self.rows is not None else 0)

    def first_look(self, each: int, clock: Callable[[], float] = time.monotonic) -> tuple[HeldOutScore, float]:
        """The score on the first `each` tasks of each kind, and the seconds that one task took."""
        few = self.limited_to(each)
        began = clock()
        score = few.measure()
        return score, (clock() - began) / len(few.tasks)

    def affordable(self, seconds: float) -> tuple[int, str]:
        """How many tasks of each kind one evaluation has time for (`evaluation.minutes`), and why, in words.

        seconds: what one task took in the first look. More tasks are solved together than there, so that the figure
        errs on the side of too few. 0 is all of them.
        """
        limit = 60.0 * self.config.evaluation.minutes
        kinds = Counter(task.kind for task in self.tasks)
        if not limit or not kinds or max(kinds.values()) <= GRAIN:
            return 0, ""
        each = max(GRAIN, int(limit / (seconds * len(kinds))) // GRAIN * GRAIN)
        if each >= max(kinds.values()):
            each = 0
        fits = (
            "all held-out tasks fit" if not each else f"{each} of {max(kinds.values())} held-out tasks of each kind fit"
        )
        if limit < seconds * len(kinds) * GRAIN:
            fits = f"the {each} held-out tasks of each kind that are the fewest do not fit"
        return each, f"{fits} into evaluation.minutes {limit / 60:g}: one takes {seconds:.2f} s"

    def limited_to(self, each: int) -> HeldOut:
        """The same with the first `each` tasks of each kind; 0 is all of them."""
        if not each:
            return self
        tasks = (
            self.tasks
            if isinstance(self.tasks, HeldOutTasks)
            else HeldOutTasks(tuple(self.tasks), (0,) * len(self.tasks))
        )
        return replace(self, tasks=tasks.chosen(dict.fromkeys(task.kind for task in tasks), each))

    def guess_rates(self) -> dict[str, dict[Kind, float]]:
        """What guessing would get: see `held_out_tasks.guess_rates`."""
        return guess_rates(self.tasks, self.solver.executor)

    def programs(self) -> set[str]:
        """Keys of the programs that the buffer must never take, whatever their inputs."""
        return {program_key(task) for task in self.tasks}

    def measure(self) -> HeldOutScore:
        """Solve each task greedily, and `evaluation.samples` times at temperature 1 with the same draws each time."""
        greedy, _, _ = self._solve_rates(0.0, 1)
        sampled, truncated, malformed = self._solve_rates(1.0, self.config.evaluation.samples)
        self.solver.forget()
        bands = self.tasks.bands if isinstance(self.tasks, HeldOutTasks) else ()
        of_rows: tuple[dict[str, list[float]], ...] = ({}, {})
        if self.rows is not None and self.rows.held_out:
            of_rows = {ROWS: self._rewards(0.0, 1)}, {ROWS: self._rewards(1.0, self.config.evaluation.samples)}
        return HeldOutScore(
            self._by_kind(greedy) | of_rows[0], self._by_kind(sampled) | of_rows[1],
            self._by_kind(bands) if any(bands) else {}, truncated, malformed,
        )  # fmt: skip

    def _rewards(self, temperature: float, n: int) -> list[float]:
        """The mean reward of n answers to each held-out row."""
        assert self.rows is not None
        requests = self.rows.held_out_requests(n)
        with self.phase("probe", len(requests) * n) as progress:
            session = self.policy.generate(
                seed=(self.config.seed, 0, PHASES.index("probe")), temperature=temperature, progress=progress
            )
            stream = RolloutStream(session)
            stream.submit(requests)
            stream.drain()
            return self.rows.held_out_rewards(stream.groups())

    def _solve_rates(self, temperature: float, n: int) -> tuple[list[float], float, float]:
        """The share of n solutions of each task that are right; shares of all that were cut off, and that lack the
        required form."""
        if not self.tasks:
            return [], 0.0, 0.0
        right, cut, malformed = [0] * len(self.tasks), 0, 0
        with self.phase("probe", len(self.tasks) * n) as progress:
            session = self.policy.generate(
                seed=(self.config.seed, 0, PHASES.index("probe")), temperature=temperature, progress=progress
            )
            prompts = [self.solver.ask(task) for task in self.tasks]
            session.submit(prompts, n, max_tokens=self.config.sampling.solve_tokens)
            pending = []
            for i, _, rollout in session:
                cut += rollout.completion.truncated
                pending.append((i, self.solver.judge(rollout)))
        for i, judge in pending:
            verdict = judge()
            right[i] += verdict.correct
            malformed += verdict.why in parsing.FORM_REASONS
        replies = max(1, len(pending))
        return [count / n for count in right], cut / replies, malformed / replies

    def _by_kind(self, values: Sequence[T]) -> dict[str, list[T]]:
        found: dict[str, list[T]] = {}
        for task, value in zip(self.tasks, values, strict=True):
            found.setdefault(task.kind, []).append(value)
        return found


def half_width(values: Sequence[float]) -> float:
    """Half of a 95 % normal interval of the mean; tasks are the units."""
    return 1.96 * stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.inf


@dataclass(frozen=True)
class Line:
    """One line of the before/after table: rates, and the paired difference with its 95 % interval (all shares)."""

    name: str
    before: float
    after: float
    change: float
    half_width: float

    @property
    def real(self) -> bool:
        """Whether the interval of the change leaves zero out."""
        return abs(self.change) > self.half_width


def compare(before: HeldOutScore, after: HeldOutScore) -> list[Line]:
    """Before against after, task by task: each kind at temperature 1, their mean, and the same greedily."""
    return [
        line
        for part, label in (("sampled", "T=1"), ("greedy", "greedy"))
        for line in _lines(getattr(before, part), getattr(after, part), label)
    ]


def compare_bands(before: HeldOutScore, after: HeldOutScore) -> list[list[Line]]:
    """The same at temperature 1 for each band: its kinds and their mean, which is the last line of each."""
    return [
        _lines(before.in_band(band).sampled, after.in_band(band).sampled, f"band {band}")
        for band in before.band_numbers()
    ]


def _lines(old: dict[str, list[float]], new: dict[str, list[float]], label: str) -> list[Line]:
    """A line for each kind and one for their mean.

    The mean over kinds weighs each kind alike; its interval follows from the kinds' (independent tasks).
    """
    changes = {kind: [b - a for a, b in zip(old[kind], new[kind], strict=True)] for kind in old}
    rows = [
        Line(f"{kind} {label}", fmean(old[kind]), fmean(new[kind]), fmean(d), half_width(d))
        for kind, d in changes.items()
    ]
    width = math.sqrt(sum(row.half_width**2 for row in rows)) / len(rows)
    before, after, change = (fmean(getattr(row, name) for row in rows) for name in ("before", "after", "change"))
    return [*rows, Line(f"mean {label}", before, after, change, width)]
