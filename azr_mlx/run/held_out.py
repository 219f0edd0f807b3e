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
from azr_mlx.selfplay.task_buffer import program_key, read_tasks
from azr_mlx.trainer import PHASES
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


def programs(tasks: Sequence[Task]) -> set[str]:
    """Keys of the programs that the buffer must never take, whatever their inputs."""
    return {program_key(task) for task in tasks}


def measure(policy: TrainablePolicy, solver: Any, tasks: Sequence[Task], config: Config, phase: Any) -> Score:
    """Solve each task greedily, and `evaluation.samples` times at temperature 1 with the same draws each time."""
    prompts = [solver.ask(task) for task in tasks]
    rates: dict[float, list[float]] = {}
    for temperature, n in ((0.0, 1), (1.0, config.evaluation.samples)):
        right = [0] * len(tasks)
        with phase("probe", len(tasks) * n) as progress:
            session = policy.generate(
                seed=(config.seed, 0, PHASES.index("probe")), temperature=temperature, stop=solver.style.stop,
                progress=progress,
            )  # fmt: skip
            session.submit(prompts, n, max_tokens=config.sampling.solve_tokens)
            pending = [(i, solver.judge(rollout)) for i, _, rollout in session]
        for i, verdict in pending:
            right[i] += verdict().correct
        rates[temperature] = [count / n for count in right]
    solver.forget()
    parts = []
    for temperature in (0.0, 1.0):
        part: dict[Kind, list[float]] = {}
        for task, rate in zip(tasks, rates[temperature], strict=True):
            part.setdefault(task.kind, []).append(rate)
        parts.append(part)
    return Score(*parts)


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
