"""An environment: what a step of training asks the policy, who judges what it writes, and what that is worth.

Self-play (`azr_mlx.selfplay.environment`) and the user's own rows (`azr_mlx.rows.environment`) are environments. The
trainer writes and learns for any number of them at once and knows neither. An environment never holds the policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from azr_mlx.generation import Group, RolloutStream, Writer
from azr_mlx.types import Experience, Kind, Task


class Environment(Protocol):
    """One source of a step's rollouts and of their rewards."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end a completion, beside those of its prompt."""
        ...

    def prepare(self, writer: Writer, say: Callable[[str], None]) -> Mapping[str, int]:
        """What is done once, before the first step of a run; returns how much was refused, by reason.

        `say` takes a line for the console.
        """
        ...

    def ask(self, stream: RolloutStream, step: int) -> None:
        """Submit the step's requests. It may read proposals off the stream and submit what follows from them."""
        ...

    def score(self, step: int, groups: Sequence[Group]) -> Experience:
        """Rewards and advantages of its own groups: those whose requests have its purposes."""
        ...

    def tasks(self) -> Mapping[Kind, Sequence[Task]]:
        """The tasks in its memory by kind; empty for an environment without one."""
        ...

    # A step is given up, or kept --------------------------------------------------------------------------------

    def snapshot(self) -> Any:
        """What it remembers at this moment, for `restore`."""
        ...

    def restore(self, remembered: Any) -> None: ...

    def save(self, folder: Path) -> dict[str, Any]:
        """Write its files into a checkpoint's folder; returns its entries of state.json."""
        ...

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Put back what `save` wrote. Raises AzrError when the checkpoint does not belong to this run."""
        ...
