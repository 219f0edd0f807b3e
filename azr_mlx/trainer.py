"""One step of training, where the environments and the model meet: ask, judge, score, learn.

The collaborators come in as arguments: who generates and who judges never hold each other, and anything with the same
methods can take their place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from azr_mlx.config import Config
from azr_mlx.environment import Environment
from azr_mlx.generation import Group, PhaseTimer, RolloutStream, TrainablePolicy, untimed
from azr_mlx.types import Experience, Kind, Step, Task

PHASES = ("seed", "write", "probe")  # the position of a phase is part of the key of its draws


@dataclass
class Trainer:
    """The policy of one run and its environments: self-play, the user's rows, or both."""

    config: Config
    policy: TrainablePolicy
    environments: Sequence[Environment]
    phase: PhaseTimer = untimed

    # A step -----------------------------------------------------------------------------------------------------

    def train_step(self, step: int) -> Step:
        """Every environment asks, all of it is written in one generation session and judged; one update follows."""
        with self.generate("write", step) as stream:
            for environment in self.environments:
                environment.ask(stream, step)
        groups = self.judge("execute", stream)
        return self.learn(step, [environment.score(step, groups) for environment in self.environments])

    def learn(self, step: int, parts: Sequence[Experience]) -> Step:
        """One update of the policy on what the environments make of the step, each with its own advantages."""
        rollouts = [one.rollout for part in parts for one in part.trained]
        with self.phase("update", len(rollouts)):
            update = self.policy.update(rollouts, [value for part in parts for value in part.advantages])
        return Step.joined(step, parts, update)

    @contextmanager
    def generate(self, phase: str, step: int) -> Iterator[RolloutStream]:
        """A generation session; everything that was submitted is written to its end when the block is left."""
        sampling = self.config.sampling
        stop = tuple(dict.fromkeys(text for environment in self.environments for text in environment.stop))
        with self.phase(phase, 0) as progress:
            session = self.policy.generate(
                seed=(self.config.seed, step + 1, PHASES.index(phase)), temperature=sampling.temperature,
                top_p=sampling.top_p, stop=stop, progress=progress,
            )  # fmt: skip
            stream = RolloutStream(session)
            yield stream
            stream.drain()

    def judge(self, phase: str, stream: RolloutStream) -> list[Group]:
        """Everything that was written, judged."""
        with self.phase(phase, stream.size):
            return stream.groups()

    # Around the steps -------------------------------------------------------------------------------------------

    def prepare(self, say: Callable[[str], None] = lambda line: None) -> Counter[str]:
        """What the environments do before the first step, such as collecting seed tasks; why how much was refused."""
        refused = Counter[str]()
        for environment in self.environments:
            refused.update(environment.prepare(self, say))
        return refused

    def tasks(self) -> dict[Kind, Sequence[Task]]:
        """The tasks in memory, by kind."""
        return {kind: tasks for environment in self.environments for kind, tasks in environment.tasks().items()}

    def snapshot(self) -> list[Any]:
        """What the environments remember at this moment, for `restore`."""
        return [environment.snapshot() for environment in self.environments]

    def restore(self, remembered: Sequence[Any]) -> None:
        for environment, one in zip(self.environments, remembered, strict=True):
            environment.restore(one)
