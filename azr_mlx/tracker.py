"""What a run leaves behind and what one sees of it: metrics, rollouts, the console, Weights & Biases.

The trainer tells; only this room formats.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from azr_mlx import metrics
from azr_mlx.checkpoint import plain_errors, write_text
from azr_mlx.config import Config
from azr_mlx.probe import Line
from azr_mlx.types import Kind, Step

SHORT = {Kind.DEDUCTION: "ded", Kind.ABDUCTION: "abd", Kind.INDUCTION: "ind"}


class Interrupted(Exception):
    """The person asked the run to stop; raised at a safe place."""


class Tracker:
    """Watches phases, writes a row a step. `stop` is asked often and raises Interrupted when the run must end."""

    def __init__(
        self, run: Path, config: Config, *, quiet: bool = False, stop: Callable[[], None] = lambda: None
    ) -> None:
        self.run = run
        self.config = config
        self.stop = stop
        self.console = Console(quiet=quiet, highlight=False, soft_wrap=True)
        self.seconds: dict[str, float] = defaultdict(float)
        self.sampled_tokens = 0
        self._header_every = 25
        self._told = 0
        self._wandb: Any = None
        with plain_errors(f"run folder {run}"):
            (run / "rollouts").mkdir(parents=True, exist_ok=True)

    # Files ------------------------------------------------------------------------------------------------------

    def rewind(self, step: int) -> None:
        """Forget every row and rollout of `step` and later: they are about to be lived again."""
        with plain_errors(f"run folder {self.run}"):
            for name in ("metrics.jsonl", "timings.jsonl"):
                path = self.run / name
                rows = []
                for line in path.read_text().splitlines() if path.exists() else ():
                    with contextlib.suppress(ValueError):  # a line that a kill cut in two
                        row = json.loads(line)
                        if row["step"] < step:
                            rows.append(line)
                write_text(path, "".join(row + "\n" for row in rows))
            for path in (self.run / "rollouts").glob("step-*.jsonl*"):
                if int(path.name.removeprefix("step-").split(".")[0]) >= step:
                    path.unlink()

    def tell(self, step: Step, row: dict[str, Any], memory: dict[str, int]) -> None:
        """A step is over: write its metrics, timings and rollouts, show its line."""
        timing: dict[str, Any] = {"step": step.number}
        timing |= {f"seconds/{name}": round(value, 4) for name, value in sorted(self.seconds.items())}
        timing["seconds/step"] = round(sum(self.seconds.values()), 4)
        sampling = sum(self.seconds[name] for name in ("propose", "attempt", "solve"))
        timing["tokens_per_second"] = round(self.sampled_tokens / sampling, 1) if sampling else 0.0
        timing |= {f"memory/{name}": size for name, size in memory.items()}
        with plain_errors(f"metrics of step {step.number}"):
            if self.config.tracking.rollouts:
                self._write_rollouts(step)
            for name, content in (("metrics.jsonl", row), ("timings.jsonl", timing)):
                with (self.run / name).open("a") as file:
                    file.write(json.dumps(content) + "\n")
        if self._wandb is not None:
            flat = {k: v for k, v in {**row, **timing}.items() if isinstance(v, int | float)}
            self._wandb.log(flat, step=step.number)
        self._show(step, row, timing)
        self.seconds.clear()
        self.sampled_tokens = 0

    def _write_rollouts(self, step: Step) -> None:
        worth = {id(one): value for one, value in zip(step.trained, step.advantages, strict=True)}
        rows = (
            metrics.rollout_row(one, worth.get(id(one)), step.number)
            for one in (*step.proposals, *step.attempts, *step.solutions)
        )
        write_text(
            self.run / "rollouts" / f"step-{step.number:06d}.jsonl", "".join(json.dumps(row) + "\n" for row in rows)
        )

    # Phases -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def phase(self, name: str, rows: int) -> Iterator[Callable[[int, int, int], None]]:
        """Time a phase; on a terminal, show a bar with the time left when it takes longer than a moment."""
        self.stop()
        began = time.perf_counter()
        bar: Progress | None = None
        task: Any = None
        written = 0

        def progress(done: int, total: int, tokens: int) -> None:
            nonlocal bar, task, written
            self.stop()
            written = tokens
            if (
                bar is None
                and self.console.is_terminal
                and not self.console.quiet
                and time.perf_counter() - began > 1.0
            ):
                bar = Progress(
                    TextColumn(f"  {name}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                    console=self.console, transient=True,
                )  # fmt: skip
                task = bar.add_task(name, total=total)
                bar.start()
            if bar is not None:
                bar.update(task, completed=done)

        try:
            yield progress
        finally:
            if bar is not None:
                bar.stop()
            self.seconds[name] += time.perf_counter() - began
            self.sampled_tokens += written

    # Console ----------------------------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """One plain line. Model text must not come here."""
        self.console.print(text, markup=False)

    def _show(self, step: Step, row: dict[str, Any], timing: dict[str, Any]) -> None:
        if self._told % self._header_every == 0:
            self.say(
                f"{'step':>5} {'solve rate':^17} {'valid':^17} {'learnable':>9} {'entropy':>7} {'tok/s':>6} "
                f"{'propose':>7} {'attempt':>7} {'solve':>6} {'execute':>7} {'update':>6} {'mem GB':>6}"
            )
            names = " ".join(f"{SHORT[kind]:>5}" for kind in self._kinds())
            self.say(f"{'':5} {names} {names}")
        self._told += 1
        solve = " ".join(_percent(row.get(f"solve/{kind}")) for kind in self._kinds())
        valid = " ".join(_percent(row.get(f"valid/{kind}")) for kind in self._kinds())
        fresh = [one.solve_rate for one in step.proposals if one.solve_rate is not None]
        learnable = f"{sum(0 < rate < 1 for rate in fresh)}/{len(step.proposals)}"
        times = [timing.get(f"seconds/{name}", 0.0) for name in ("propose", "attempt", "solve", "execute", "update")]
        self.say(
            f"{step.number:>5} {solve} {valid} {learnable:>9} {row.get('entropy', float('nan')):>7.3f} "
            f"{timing['tokens_per_second']:>6.0f} {times[0]:>6.1f}s {times[1]:>6.1f}s {times[2]:>5.1f}s "
            f"{times[3]:>6.1f}s {times[4]:>5.1f}s {timing.get('memory/peak', 0) / 1e9:>6.2f}"
        )

    def _kinds(self) -> list[Kind]:
        return [Kind(name) for name in self.config.tasks.kinds]

    def table(self, lines: list[Line], title: str) -> None:
        """The before/after table."""
        table = Table(title=title, title_justify="left")
        for name in ("held-out tasks", "before", "after", "change (points)", "95 % interval"):
            table.add_column(name, justify="left" if name == "held-out tasks" else "right")
        for line in lines:
            low, high = 100 * (line.change - line.half_width), 100 * (line.change + line.half_width)
            style = "bold" if line.name.startswith("mean") else None
            table.add_row(
                line.name, f"{100 * line.before:.1f} %", f"{100 * line.after:.1f} %", f"{100 * line.change:+.1f}",
                f"{low:+.1f} to {high:+.1f}", style=style,
            )  # fmt: skip
        self.console.print(table)

    def curves(self) -> None:
        """The solve rates of the run as one line of blocks for each kind."""
        rows = [json.loads(line) for line in (self.run / "metrics.jsonl").read_text().splitlines()]
        for name in [*(f"solve/{kind}" for kind in self._kinds()), "entropy"]:
            values = [row[name] for row in rows if name in row]
            if len(values) > 1:
                self.say(f"  {name:<17} {values[0]:.2f} {sparkline(values)} {values[-1]:.2f}")

    # Weights & Biases -------------------------------------------------------------------------------------------

    def start_wandb(self, resolved: dict[str, Any], run_id: str | None) -> str | None:
        """Open (or go on with) a W&B run if the configuration asks for one; returns its id."""
        if not self.config.tracking.wandb:
            return None
        import wandb

        self._wandb = wandb.init(
            project=self.config.tracking.wandb_project, name=self.run.name, config=resolved, id=run_id, resume="allow",
            dir=str(self.run),
        )  # fmt: skip
        return str(self._wandb.id)

    def close(self) -> None:
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None


def _percent(value: float | None) -> str:
    return "    -" if value is None else f"{100 * value:>4.0f}%"


def sparkline(values: list[float], width: int = 60) -> str:
    """Values as blocks of eight heights, averaged to at most `width` columns."""
    columns = min(width, len(values))
    edges = [len(values) * i // columns for i in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means), max(means)
    return "".join("▁▂▃▄▅▆▇█"[int(7.999 * (value - low) / (high - low)) if high > low else 0] for value in means)
