"""The probe: fixed held-out tasks, solved before, during and after a run, and whether a difference is real."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from azr_mlx import paths
from azr_mlx.config import Config
from azr_mlx.errors import AzrError
from azr_mlx.generation import TrainablePolicy
from azr_mlx.selfplay.solver import Solver
from azr_mlx.selfplay.task_buffer import program_key, read_tasks
from azr_mlx.trainer import PHASES, PhaseTimer
from azr_mlx.types import Kind, Task


@dataclass(frozen=True)
class Score:
    """Solve rates of the tasks of each kind: greedy (0 or 1 each), and at temperature 1 (means of samples)."""

    greedy: dict[Kind, list[float]]
    sampled: dict[Kind, list[float]]

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
        return rows | {"probe/mean": self.mean, "probe_greedy/mean": self.greedy_mean}

    def state(self) -> dict[str, Any]:
        """As plain data, to be kept with a checkpoint."""
        return {
            name: {str(kind): rates for kind, rates in part.items()}
            for name, part in (("greedy", self.greedy), ("sampled", self.sampled))
        }

    def line(self, when: str) -> str:
        """The score as the console prints it."""
        kinds = ", ".join(f"{kind} {100 * fmean(rates):.1f} %" for kind, rates in self.sampled.items())
        return (
            f"probe {when}: {100 * self.mean:.1f} % at temperature 1 ({kinds}); greedy {100 * self.greedy_mean:.1f} %"
        )

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Score:
        return cls(*({Kind(k): list(v) for k, v in state[name].items()} for name in ("greedy", "sampled")))


def tasks_for(config: Config, model_folder: Path | None) -> list[Task]:
    """The probe tasks of a run: `evaluation.probe`, else probe.jsonl beside the model, else none. Raises AzrError."""
    path: Path | None
    if config.evaluation.probe:
        path = paths.local(config.evaluation.probe)
        if path is None:
            raise AzrError(f"evaluation.probe: no file {config.evaluation.probe}")
    else:
        path = model_folder / "probe.jsonl" if model_folder else None
        if path is None or not path.is_file():
            return []
    try:
        found = read_tasks(path)
    except ValueError as error:
        raise AzrError(str(error)) from None
    chosen = []
    for kind in map(Kind, config.tasks.kinds):
        mine = [task for task in found if task.kind is kind]
        chosen += mine[: config.evaluation.probe_tasks or len(mine)]
    return chosen


@dataclass(frozen=True)
class HeldOut:
    """The held-out tasks of a run, and everything that it takes to measure a policy on them."""

    tasks: Sequence[Task]
    policy: TrainablePolicy
    solver: Solver
    config: Config
    phase: PhaseTimer

    def programs(self) -> set[str]:
        """Keys of the programs that the buffer must never take, whatever their inputs."""
        return {program_key(task) for task in self.tasks}

    def measure(self) -> Score:
        """Solve each task greedily, and `evaluation.samples` times at temperature 1 with the same draws each time."""
        greedy = self._solve_rates(0.0, 1)
        sampled = self._solve_rates(1.0, self.config.evaluation.samples)
        self.solver.forget()
        return Score(self._by_kind(greedy), self._by_kind(sampled))

    def _solve_rates(self, temperature: float, n: int) -> list[float]:
        """The share of n solutions of each task that are right."""
        right = [0] * len(self.tasks)
        with self.phase("probe", len(self.tasks) * n) as progress:
            session = self.policy.generate(
                seed=(self.config.seed, 0, PHASES.index("probe")), temperature=temperature,
                stop=self.solver.style.stop, progress=progress,
            )  # fmt: skip
            prompts = [self.solver.ask(task) for task in self.tasks]
            session.submit(prompts, n, max_tokens=self.config.sampling.solve_tokens)
            pending = [(i, self.solver.judge(rollout)) for i, _, rollout in session]
        for i, verdict in pending:
            right[i] += verdict().correct
        return [count / n for count in right]

    def _by_kind(self, rates: Sequence[float]) -> dict[Kind, list[float]]:
        found: dict[Kind, list[float]] = {}
        for task, rate in zip(self.tasks, rates, strict=True):
            found.setdefault(task.kind, []).append(rate)
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


def compare(before: Score, after: Score) -> list[Line]:
    """Before against after, task by task: each kind at temperature 1, their mean, and the greedy mean.

    The mean over kinds weighs each kind alike; its interval follows from the kinds' (independent tasks).
    """
    lines = []
    for part, label in (("sampled", "T=1"), ("greedy", "greedy")):
        old, new = getattr(before, part), getattr(after, part)
        changes = {kind: [b - a for a, b in zip(old[kind], new[kind], strict=True)] for kind in old}
        rows = [
            Line(f"{kind} {label}", fmean(old[kind]), fmean(new[kind]), fmean(d), half_width(d))
            for kind, d in changes.items()
        ]
        width = math.sqrt(sum(row.half_width**2 for row in rows)) / len(rows)
        lines += rows
        lines.append(
            Line(
                f"mean {label}",
                fmean(r.before for r in rows),
                fmean(r.after for r in rows),
                fmean(r.change for r in rows),
                width,
            )
        )
    return lines
