"""What a run leaves behind and what one sees of it: metrics, rollouts, the console, sinks.

Only this module formats. On a terminal a live panel shows the run (`azr_mlx.run.console`); piped, on a dumb terminal
or into a file there is one aligned row of at most 80 columns a step.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from azr_mlx.config import Config
from azr_mlx.run import metrics
from azr_mlx.run.console import LivePanel, View, draw, highlight, sparkline
from azr_mlx.run.folder import RunFolder
from azr_mlx.run.held_out import Line
from azr_mlx.run.sinks import Sinks, open_sinks
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.types import Kind, Step


class Tracker:
    """Watches phases, writes a row a step. `stop` is asked often and raises Interrupted when the run must end."""

    def __init__(
        self,
        run: RunFolder,
        config: Config,
        *,
        quiet: bool = False,
        stop: Callable[[], None] = lambda: None,
        console: Console | None = None,
    ) -> None:
        self.run = run
        self.config = config
        self.stop = stop
        self.console = console or Console(quiet=quiet, highlight=False, soft_wrap=True)
        self.seconds: dict[str, float] = defaultdict(float)
        self.sampled_tokens = 0
        self.view = View(run.name, self._kinds(), config.steps, minutes=config.minutes)
        self._header_every = 25
        self._printed = 0
        self._alarmed: set[str] = set()
        self._sinks = Sinks()
        self._panel: LivePanel | None = None
        # A panel needs a terminal that can move its cursor; it is gone once the run is closed.
        self._can_draw = self.console.is_terminal and not self.console.is_dumb_terminal and not self.console.quiet
        self._closed = False

    # Files ------------------------------------------------------------------------------------------------------

    def rewind(self, step: int) -> None:
        """Forget every row and rollout of `step` and later: they are about to be made again."""
        self.run.rewind(step)
        self.view.done, self.view.rows = step, self.run.rows()
        self.view.spent = sum(row.get("seconds/step", 0.0) for row in self.view.rows)

    def log_step(self, step: Step, row: dict[str, Any], memory: dict[str, int], machines: Sequence[str] = ()) -> None:
        """A step is over: write its metrics, timings and rollouts, show its line, and one for each of `machines`."""
        timing: dict[str, Any] = {"step": step.number}
        timing |= {f"seconds/{name}": round(value, 4) for name, value in sorted(self.seconds.items())}
        timing["seconds/step"] = round(sum(s for name, s in self.seconds.items() if name != "probe"), 4)
        sampling = self.seconds["write"]
        timing["tokens_per_second"] = round(self.sampled_tokens / sampling, 1) if sampling else 0.0
        timing |= {f"memory/{name}": size for name, size in memory.items()}
        timing |= step.update.work
        if self.config.tracking.rollouts:
            self.run.write_rollouts(step.number, self._rollout_rows(step))
        self.run.append(row, timing)
        self.view.rows.append({**row, **timing})
        self.view.done = step.number + 1
        self.view.spent += timing["seconds/step"]
        self.view.task = highlight(step) or self.view.task
        if self._panel is None:
            self._show(step, row, timing)
            for line in machines:
                self.print(f"       {line}")
        self.view.machines = machines
        self._watch()
        self._sinks.log({**row, **timing}, self._rollout_rows(step))
        self.seconds.clear()
        self.sampled_tokens = 0

    def _watch(self) -> None:
        """Say an alarm once when it begins: in the panel as long as it lasts, else as a line; on stderr if quiet."""
        self.view.alarms = metrics.alarms(self.view.rows)
        for line in self.view.alarms:
            if line not in self._alarmed:
                if self.console.quiet:
                    sys.stderr.write(f"alarm: {line}\n")
                elif self._panel is None:
                    self.print(f"alarm: {line}")
        self._alarmed = set(self.view.alarms)

    def _rollout_rows(self, step: Step) -> Iterator[dict[str, Any]]:
        weights = {id(one): value for one, value in zip(step.trained, step.advantages, strict=True)}
        for one in (*step.proposals, *step.attempts, *step.solutions):
            yield metrics.rollout_row(one, weights.get(id(one)), step.number)
        for answer in step.rows:
            yield metrics.answer_row(answer, weights.get(id(answer)), step.number)

    # Phases -----------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def phase(self, name: str, rows: int) -> Iterator[Callable[[int, int, int], None]]:
        """Time a phase and show how far it is: in the panel, or after the run as a bar when it takes a while."""
        self.stop()
        began = time.perf_counter()
        view = self.view
        view.phase, view.finished, view.total, view.phase_began = name, 0, rows, time.monotonic()
        if self._can_draw and not self._closed:
            if self._panel is None:
                self._panel = LivePanel(self.console, lambda width, height: draw(view, width, height))
            else:
                self._panel.refresh()
        shown: Progress | None = None
        task: Any = None
        written = 0

        def progress(done: int, total: int, tokens: int) -> None:
            nonlocal shown, task, written
            self.stop()
            written = tokens
            view.finished, view.total = done, total
            if shown is None and self._can_draw and self._closed and time.perf_counter() - began > 1.0:
                shown = Progress(
                    TextColumn(f"  {name}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
                    console=self.console, transient=True,
                )  # fmt: skip
                task = shown.add_task(name, total=total)
                shown.start()
            if shown is not None:
                shown.update(task, completed=done)

        try:
            yield progress
        finally:
            if shown is not None:
                shown.stop()
            self.seconds[name] += time.perf_counter() - began
            if name == "write":
                self.sampled_tokens += written

    # Console ----------------------------------------------------------------------------------------------------

    def print(self, text: str) -> None:
        """One plain line. Model text must not come here. On a terminal prose is folded at words; a command is not, so
        that it can be copied whole."""
        fold = self.console.is_terminal and "--" not in text
        self.console.print(text, markup=False, soft_wrap=not fold)

    def _show(self, step: Step, row: dict[str, Any], timing: dict[str, Any]) -> None:
        """One aligned row, at most 80 columns; phase times and the rest are in the files and in the report."""
        columns = self._columns(step, row, timing)
        if self._printed % self._header_every == 0:
            for line in (0, 1):
                self.print("  ".join(column[line] for column in columns))
        self._printed += 1
        self.print("  ".join(column[2] for column in columns))

    def _columns(self, step: Step, row: dict[str, Any], timing: dict[str, Any]) -> list[tuple[str, str, str]]:
        """The columns of a step's line: two lines of heading and the value, of equal width."""
        kinds, rows = self._kinds(), self.config.uses_rows
        found = [(f"{'':>5}", f"{'step':>5}", f"{step.number:>5}")]
        if kinds:
            width = 5 * len(kinds) - 1
            names = " ".join(f"{KINDS[kind].short:>4}" for kind in kinds)
            for title, name in (("solved", "solve"), *(() if rows else (("valid", "valid"),))):
                values = " ".join(_percent(row.get(f"{name}/{kind}")) for kind in kinds)
                found.append((f"{title:^{width}}", names, values))
            fresh = [one.solve_rate for one in step.proposals if one.solve_rate is not None]
            learnable = f"{sum(0 < rate < 1 for rate in fresh)}/{len(step.proposals)}"
            found.append((f"{'learn-':>6}", f"{'able':>6}", f"{learnable:>6}"))
        if rows:
            reward = row.get("rows/reward", float("nan"))
            found.append((f"{'rows:':>7}", f"{'reward':>7}", f"{reward:>7.3f}"))
            found.append((f"{'flat':>6}", f"{'groups':>6}", f"{_percent(row.get('rows/flat')):>6}"))
        return [
            *found,
            (f"{'entropy':>7}", f"{'nats':>7}", f"{row.get('entropy', float('nan')):>7.3f}"),
            (f"{'tokens':>6}", f"{'per s':>6}", f"{timing['tokens_per_second']:>6.0f}"),
            (f"{'time':>6}", f"{'s':>6}", f"{timing['seconds/step']:>6.1f}"),
            (f"{'mem':>5}", f"{'GB':>5}", f"{timing.get('memory/peak', 0) / 1e9:>5.2f}"),
        ]

    def _kinds(self) -> list[Kind]:
        return list(self.config.played_kinds)

    def print_table(self, lines: list[Line], title: str) -> None:
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

    def print_bands(self, bands: list[list[Line]], guesses: Mapping[str, Mapping[Kind, float]]) -> None:
        """The before/after table by band of difficulty and kind, and what guessing would get beside it."""
        if bands:
            table = Table(title="temperature 1, by band: before -> after (change, 95 % interval)", title_justify="left")
            table.add_column("band", justify="right")
            for line in bands[0]:
                table.add_column(line.name.split()[0], justify="right")
            for number, lines in enumerate(bands, 1):
                cells = [
                    f"{100 * one.before:.1f} -> {100 * one.after:.1f} "
                    f"({100 * one.change:+.1f} ± {100 * one.half_width:.1f})"
                    for one in lines
                ]
                table.add_row(str(number), *cells)
            self.console.print(table)
        for name, rates in guesses.items():
            if not rates:  # a run on rows has no such tasks
                continue
            kinds = ", ".join(f"{kind} {100 * rate:.1f} %" for kind, rate in rates.items())
            self.print(f"a guess ({name}) gets: {kinds}")

    def print_curves(self) -> None:
        """The run in lines of blocks: solve rates and length of answers (tokens) of each kind, entropy (nats)."""
        rows = self.run.rows()
        room = max(10, min(60, self.console.width - 41))
        kinds = self._kinds()
        of_kinds = [f"{name}/{kind}" for name in ("solve", "length/solve") for kind in kinds]
        for name in [*of_kinds, "rows/reward", "rows/length", "entropy"]:
            values = [row[name] for row in rows if name in row]
            if len(values) > 1:
                self.print(f"  {name:<22} {values[0]:>6.3g} {sparkline(values, room)} {values[-1]:.3g}")

    # Sinks ------------------------------------------------------------------------------------------------------

    def open_sinks(self, resolved: dict[str, Any], identity: str | None) -> str | None:
        """Open the sinks that the configuration names (or go on with them); returns the W&B run's identity, if any."""
        self._sinks = open_sinks(self.run, self.config.tracking, resolved, self.view.done, identity)
        for sink in self._sinks.open:
            self.print(f"metrics also go to {sink.where}")
        return self._sinks.identity

    def publish(self, report: Path | None) -> None:
        """Hand the report to the sinks and close them. An interrupted run's end with the process."""
        self._sinks.finish(report)

    def close(self) -> None:
        """No more steps: the panel leaves, and what it showed last stays as text. May be called again."""
        self._closed = True
        if self._panel is not None:
            self._panel.stop()
            self._panel = None
            if self.view.rows:
                self.view.over = True
                self.console.print(draw(self.view, self.console.width), soft_wrap=False)


def _percent(value: float | None) -> str:
    return "   -" if value is None else f"{100 * value:>3.0f}%"
