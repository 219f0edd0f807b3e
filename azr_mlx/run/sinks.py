"""Weights & Biases: the metrics of a run under the names of docs/metrics.md, sampled rollouts, the report.

Nothing here is imported unless `tracking.wandb` is on. WANDB_MODE=offline keeps everything in the run folder.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from azr_mlx.errors import AzrError

COLUMNS = ("step", "role", "kind", "correct", "why", "reward", "solve_rate", "prompt", "reply")
EVERY = 10  # steps between tables of rollouts
ROLLOUTS = 24  # in a table


class WandbRun:
    """One open W&B run. `identity` is what a resumed run passes to go on in the same place."""

    def __init__(self, run: Path, project: str, resolved: dict[str, Any], identity: str | None) -> None:
        try:
            import wandb
        except ImportError:
            raise AzrError("tracking.wandb is on, but wandb is not installed: pip install wandb") from None
        self._wandb = wandb
        # console off: wandb would wrap the terminal that the panel draws on.
        self._run = wandb.init(
            project=project, name=run.name, config=resolved, id=identity, resume="allow", dir=str(run),
            settings=wandb.Settings(console="off"),
        )  # fmt: skip
        # The step is a metric of its own: a resumed run tells some steps again, and W&B's own counter only grows.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    @property
    def identity(self) -> str:
        return str(self._run.id)

    def log(self, row: dict[str, Any], rollouts: Iterable[dict[str, Any]]) -> None:
        """A step's metrics; dictionaries of counts become one metric for each key. Every tenth step has a table."""
        flat: dict[str, Any] = {}
        for name, value in row.items():
            if isinstance(value, dict):
                flat |= {f"{name}/{key}": count for key, count in value.items()}
            elif isinstance(value, int | float):
                flat[name] = value
        if row["step"] % EVERY == 0:
            every = list(rollouts)
            chosen = every[:: max(1, len(every) // ROLLOUTS)][:ROLLOUTS]
            table = self._wandb.Table(columns=list(COLUMNS))
            for one in chosen:
                table.add_data(*(one[name] for name in COLUMNS))
            flat["rollouts"] = table
        self._run.log(flat)

    def finish(self, report: Path | None) -> None:
        """Attach the report and close the run."""
        if report is not None and report.is_file():
            artifact = self._wandb.Artifact(f"report-{self._run.id}", type="report")
            artifact.add_file(str(report))
            self._run.log_artifact(artifact)
        self._run.finish()
