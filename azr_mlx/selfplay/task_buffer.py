"""The memory of tasks: one ring for each kind, seeds that stay, no task twice.

Departs from AZR in five ways: the oldest item leaves when a ring is full (the released code drops the newest, so its
buffers freeze); seeds never leave; a task that differs from a stored one only in layout or in names of variables is
refused; so, if asked for, is one more task about a program that the ring knows well; and, if asked for, tasks that are
solved sometimes and not always are drawn more often.
"""

from __future__ import annotations

import heapq
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from azr_mlx.executor import boundary
from azr_mlx.executor.boundary import Refused
from azr_mlx.executor.rules import normalised_key
from azr_mlx.selfplay.kinds import KINDS, choosing
from azr_mlx.types import Case, Kind, Task

# Weight of every task in a draw that prefers learnable ones: what was too hard or too easy is looked at again.
EVERY_TASK = 0.02
# The same for a draw at the frontier, as a share of all weights: a long run gathers thousands of solved tasks.
REVIEW = 0.1
# Of nano's old tasks one that was never tried had attempts with different results in 45 of 100 groups, one with r = 3/8
# in 85 (docs/LOG.md), and fewer are wanted of it, because nothing is known of the others either.
UNTRIED = 0.2


def learnable(rates: Sequence[float | None]) -> list[float]:
    """Weights r(1 - r) + EVERY_TASK of the latest solve rates r. One that was never tried counts as half solved."""
    known = [0.5 if rate is None else rate for rate in rates]
    return [rate * (1.0 - rate) + EVERY_TASK for rate in known]


def frontier(rates: Sequence[float | None]) -> list[float]:
    """Weights that are largest at a solve rate of 1/3, r(1 - r)^2, and a share `REVIEW` that is the same for all.

    A rate was measured some steps ago by a solver that has got better since, so what it solved often then it always
    solves now, and what it seldom solved is in the middle.
    """
    weights = [UNTRIED if rate is None else 6.75 * rate * (1.0 - rate) ** 2 for rate in rates]
    same = REVIEW / (1.0 - REVIEW) * fmean(weights) or 1.0
    return [weight + same for weight in weights]


UNIFORM, FRONTIER = "uniform", "frontier"
PREFERENCES: Mapping[str, Callable[[Sequence[float | None]], list[float]]] = {
    "learnable": learnable,
    FRONTIER: frontier,
}


def seed_tasks(kinds: Iterable[Kind], cases: int) -> list[Task]:
    """The first tasks of each kind; where a task has several cases it gets as many as there are, up to `cases`."""
    return [task for kind in kinds for task in KINDS[kind].seeds(cases)]


def key(task: Task) -> str:
    """What makes a task that task: its kind, its normalised program and its inputs (sorted, spaces dropped)."""
    inputs = sorted("".join(case.input.split()) for case in task.cases)
    return f"{task.kind}|{program_key(task)}|{'|'.join(inputs)}"


def program_key(task: Task) -> str:
    """What makes its program that program: layout, comments and names of variables do not count."""
    return normalised_key(task.program) or task.program


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a buffer holds: tasks by kind and key, oldest first, and the latest solve rate of those that were solved."""

    rings: dict[Kind, dict[str, Task]]
    solved: dict[str, float]


class Buffer:
    """Tasks by kind, in the order in which they came.

    `capacity` bounds each ring. `forbidden` holds keys of programs that are never taken (those of held-out tasks).
    `per_program` bounds how many tasks of a kind may share a program (0: any number), where the kind's proposer chooses
    the program and is not given one.
    """

    def __init__(self, capacity: int, forbidden: Iterable[str] = (), per_program: int = 0) -> None:
        if capacity < 1:
            raise ValueError(f"a buffer needs room for at least one task, not {capacity}")
        self.capacity = capacity
        self.forbidden = frozenset(forbidden)
        self.per_program = per_program
        self._rings: dict[Kind, dict[str, Task]] = {kind: {} for kind in Kind}  # key -> task, oldest first
        self._uses: dict[Kind, Counter[str]] = {kind: Counter() for kind in Kind}  # program key -> tasks in the ring
        self._solved: dict[str, float] = {}  # key -> share of its latest solutions that were right

    def __len__(self) -> int:
        return sum(len(ring) for ring in self._rings.values())

    def tasks(self, kind: Kind) -> list[Task]:
        return list(self._rings[kind].values())

    def refusal(self, task: Task) -> str | None:
        """Why `add` would refuse the task: "held out", "duplicate", "program known", or None."""
        program = program_key(task)
        if program in self.forbidden:
            return "held out"
        if key(task) in self._rings[task.kind]:
            return "duplicate"
        chosen = KINDS[task.kind].chooses_program
        return "program known" if chosen and 0 < self.per_program <= self._uses[task.kind][program] else None

    def add(self, task: Task) -> bool:
        """Take a task; False when it is refused. Past the capacity the oldest that is no seed leaves.

        Raises ValueError for a number of cases that the kind cannot have.
        """
        KINDS[task.kind].check(task)
        if self.refusal(task) is not None:
            return False
        ring, uses = self._rings[task.kind], self._uses[task.kind]
        ring[key(task)] = task
        uses[program_key(task)] += 1
        if len(ring) > self.capacity:
            leaving = next((k for k, old in ring.items() if old.step >= 0), next(iter(ring)))
            uses[program_key(ring.pop(leaving))] -= 1
            self._solved.pop(leaving, None)
        return True

    def references(self, kind: Kind, count: int, rng: random.Random, prefer: str = UNIFORM) -> list[Task]:
        """min(count, size) different tasks of a kind, uniformly (AZR section 3.3.2) or as `draw` prefers them."""
        ring = self._rings[kind]
        return self._chosen(ring, min(count, len(ring)), rng, prefer)

    def program(self, rng: random.Random, prefer: str = UNIFORM) -> Task:
        """The task whose program a proposal is to be about, of all tasks of the kinds that choose programs.

        Where only the other kinds are played, of theirs. Uniformly, or as `draw` prefers them.
        """
        # The last kind comes first, as in the released code: which task a random number picks depends on the order.
        sources = {name: task for kind in reversed(choosing()) for name, task in self._rings[kind].items()}
        sources = sources or {name: task for kind in Kind for name, task in self._rings[kind].items()}
        if not sources:
            raise ValueError("an empty buffer has no program to lend")
        # A single uniform draw is not a sample of one: it spends the randomness of a run differently.
        return rng.choice([*sources.values()]) if prefer == UNIFORM else self._chosen(sources, 1, rng, prefer)[0]

    def draw(
        self,
        kind: Kind,
        count: int,
        step: int,
        rng: random.Random,
        fresh_share: float = 1.0,
        prefer: str = UNIFORM,
    ) -> list[Task]:
        """`count` tasks to solve: those of `step` first, then older ones, without replacement.

        At most `fresh_share` of the count comes from the step (AZR's "max_new" has 1). Older ones are drawn uniformly,
        or with `prefer` by what `note` last recorded of them. A ring with too few tasks is drawn from again until the
        count is met; an empty one gives none.
        """
        ring = self._rings[kind]
        if not ring:
            return []
        recent = [task for task in ring.values() if task.step == step]
        drawn = rng.sample(recent, min(len(recent), int(fresh_share * count)))
        old = {name: task for name, task in ring.items() if task.step != step} or ring
        while len(drawn) < count:
            number = min(len(old), count - len(drawn))
            drawn += self._chosen(old, number, rng, prefer)
        return drawn

    def note(self, task: Task, solve_rate: float) -> None:
        """Remember which share of its latest solutions was right."""
        if key(task) in self._rings[task.kind]:
            self._solved[key(task)] = solve_rate

    def _chosen(self, tasks: Mapping[str, Task], count: int, rng: random.Random, prefer: str) -> list[Task]:
        """`count` of the tasks (by key) without replacement, uniformly or with weights.

        The `count` largest of u^(1/w) with uniform u are a draw with weights w (Efraimidis and Spirakis 2006).
        """
        if not tasks or prefer == UNIFORM:
            return rng.sample([*tasks.values()], count)
        weights = PREFERENCES[prefer]([self._solved.get(name) for name in tasks])
        # A draw's randomness is spent in the order of the tasks, so the places are computed before they are compared.
        places = {name: math.pow(rng.random(), 1.0 / weight) for name, weight in zip(tasks, weights, strict=True)}
        return [tasks[name] for name in heapq.nlargest(count, tasks, key=places.__getitem__)]

    def snapshot(self) -> Snapshot:
        """The content as it is now, for `restore`."""
        return Snapshot({kind: dict(ring) for kind, ring in self._rings.items()}, dict(self._solved))

    def restore(self, content: Snapshot) -> None:
        self._rings = {kind: dict(ring) for kind, ring in content.rings.items()}
        self._solved = dict(content.solved)
        self._uses = {kind: Counter(map(program_key, ring.values())) for kind, ring in self._rings.items()}

    def rows(self) -> list[dict[str, Any]]:
        """Every task with its latest solve rate, as plain data for JSON."""
        return [
            to_row(task) | ({"solved": self._solved[name]} if name in self._solved else {})
            for ring in self._rings.values()
            for name, task in ring.items()
        ]

    def load(self, rows: Iterable[dict[str, Any]]) -> Counter[str]:
        """Replace the content by saved rows, in their order; returns how many were left out, by reason.

        A row that is no task, or one whose output no answer could be compared with, is left out: an older version
        took what this one would refuse, and one task is no reason to lose a run.
        """
        content, left_out = Snapshot({kind: {} for kind in Kind}, {}), Counter[str]()
        for row in rows:
            try:
                task = from_row(row)
                solved = float(row["solved"]) if "solved" in row else None
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                left_out["no task"] += 1
                continue
            why = flaw(task)
            if why is not None:
                left_out[why] += 1
                continue
            content.rings[task.kind][key(task)] = task
            if solved is not None:
                content.solved[key(task)] = solved
        self.restore(content)
        return left_out


def flaw(task: Task) -> str | None:
    """Why a task cannot be worded or judged ("output is no literal", "not a text"), or None."""
    if not boundary.encodable(
        task.program, task.message, *(text for case in task.cases for text in (case.input, case.output))
    ):
        return "not a text"
    for case in task.cases:
        gold = boundary.check_gold(case.output)
        if isinstance(gold, Refused):
            return gold.why
    return None


def to_row(task: Task) -> dict[str, Any]:
    """A task as plain data for JSON."""
    return asdict(task)


def from_row(row: dict[str, Any]) -> Task:
    """The task of a row. Raises ValueError or KeyError when it is none."""
    cases = tuple(Case(str(case["input"]), str(case["output"])) for case in row["cases"])
    kind, message, step = Kind(row["kind"]), str(row.get("message", "")), int(row.get("step", -1))
    task = Task(kind, str(row["program"]), cases, message, step)
    KINDS[kind].check(task)
    return task


def read_tasks(path: Path) -> list[Task]:
    """Tasks of a JSONL file. Raises ValueError naming the line that is wrong."""
    tasks = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            tasks.append(from_row(json.loads(line)))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a task ({error})") from None
    return tasks


def distinct(tasks: Sequence[Task]) -> float:
    """Share of tasks whose normalised program occurs once among them: 1.0 when no program is repeated."""
    programs = [normalised_key(task.program) for task in tasks]
    return len(set(programs)) / len(programs) if programs else 0.0
