"""The panel that a terminal shows while a run goes on. It draws what it is given and decides nothing.

All text of the model goes through `printable` into rich Text objects, where neither control characters nor markup
mean anything. The drawing follows the width: 80 columns give one column of facts, 120 put the task beside them.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from azr_mlx.terminal import printable
from azr_mlx.types import Kind, Step

WIDE = 120  # columns from which the task stands beside the facts
RECENT = 5  # steps that a number in the panel is the mean of: single steps are noise
BEAT = 0.5  # seconds between drawings
ORDER = ("write", "update")  # the phases of a step in their order; execute runs in between


@dataclass(frozen=True)
class HighlightedTask:
    """The most interesting task of a step: the hardest one that was solved at least once."""

    step: int
    kind: Kind
    program: str
    case: tuple[str, str]
    solved: int
    tried: int


def highlight(step: Step) -> HighlightedTask | None:
    """The hardest fresh task that was solved, the longest program among equals; else one that nobody solved."""
    best: tuple[tuple[bool, float, int], HighlightedTask] | None = None
    for one in step.proposals:
        task = one.verdict.task
        if task is None or one.solve_rate is None:
            continue
        mine = [a.verdict.correct for a in step.attempts if a.rollout.prompt.task is task]
        case = (task.cases[-1].input, task.cases[-1].output)
        found = HighlightedTask(step.number, task.kind, task.program, case, sum(mine), len(mine))
        # Solved by somebody first, then rarely, then long.
        rank = (one.solve_rate > 0, -one.solve_rate, len(task.program))
        if best is None or rank > best[0]:
            best = rank, found
    return best[1] if best else None


@dataclass
class View:
    """What the panel shows. The tracker fills it in, the panel's own thread reads it."""

    name: str
    kinds: list[Kind]
    steps: int
    began: float = field(default_factory=time.monotonic)
    done: int = 0  # steps that are over
    spent: float = 0.0  # seconds of training in earlier processes
    minutes: float = 0.0  # limit of the run, 0 is none
    phase: str = ""
    finished: int = 0  # rollouts of the phase
    total: int = 0
    phase_began: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    task: HighlightedTask | None = None
    machines: Sequence[str] = ()  # a line for each machine that shares the work
    alarms: list[str] = field(default_factory=list)
    over: bool = False  # no more steps will come

    def left(self) -> float | None:
        """Seconds that remain, by the pace of the last steps; None before the first step."""
        times = [row["seconds/step"] for row in self.rows[-10:] if "seconds/step" in row]
        if not times:
            return None
        by_steps = fmean(times) * (self.steps - self.done)
        if not self.minutes:
            return by_steps
        return max(0.0, min(by_steps, 60 * self.minutes - self.spent))


def sparkline(values: Sequence[float], width: int = 60, low: float | None = None, high: float | None = None) -> str:
    """Values as blocks of eight heights, averaged to at most `width` columns; `low` and `high` fix the scale."""
    columns = min(width, len(values))
    if columns < 1:
        return ""
    edges = [len(values) * i // columns for i in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    low, high = min(means) if low is None else low, max(means) if high is None else high
    span = high - low
    return "".join("▁▂▃▄▅▆▇█"[min(7, max(0, int(7.999 * (value - low) / span))) if span > 0 else 0] for value in means)


def clock(seconds: float) -> str:
    """Seconds as 0:42, 12:07 or 3:05:00."""
    whole = round(seconds)
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def bar(share: float, width: int) -> Text:
    full = round(min(1.0, max(0.0, share)) * width)
    return Text("━" * full, style="cyan") + Text("─" * (width - full), style="dim")


def recent(rows: Sequence[dict[str, Any]], name: str, count: int = RECENT) -> float | None:
    """A metric's mean over the last steps that have it."""
    values = [row[name] for row in rows[-count:] if isinstance(row.get(name), int | float)]
    return fmean(values) if values else None


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f} %"


def trend(rows: Sequence[dict[str, Any]], name: str) -> str:
    """An arrow: the last 10 steps against the 10 before them."""
    new, old = recent(rows, name, 10), recent(rows[:-10], name, 10)
    if new is None or old is None:
        return " "
    return "↗" if new > old + 0.02 else "↘" if new < old - 0.02 else "→"


def draw(view: View, width: int, height: int = 100) -> RenderableType:
    """The panel at a terminal's size."""
    inner = width - 4
    wide = width >= WIDE
    facts_width = inner - inner * 2 // 5 - 3 if wide else inner
    task_width = inner - facts_width - 3 if wide else inner
    facts: list[RenderableType] = [] if view.over else [_phases(view, facts_width), Text()]
    if view.rows:
        tables = [_kinds(view, facts_width)] if view.kinds else []
        tables += [_rows(view, facts_width)] if "rows/reward" in view.rows[-1] else []
        facts += [*tables, Text(), _lines(view, facts_width)]
    if view.task and height >= 20:
        task = _task(view.task, task_width, most=9 if wide else max(2, min(6, height - 21)))
        if wide:
            beside = Table.grid(padding=(0, 3, 0, 0), expand=True)
            beside.add_column(width=facts_width)
            beside.add_column(width=task_width)
            beside.add_row(Group(*facts), task)
            facts = [beside]
        else:
            facts += [Text(), task]
    facts += [Text(line, style="dim", no_wrap=True, overflow="ellipsis") for line in view.machines]
    facts += [Text(f"! {line}", style="yellow", overflow="fold") for line in view.alarms[:2]]
    if view.over:
        over, when = f"{view.done} of {view.steps} steps", f"{clock(view.spent)} of training"
    else:
        left = view.left()
        over = f"step {min(view.done + 1, view.steps)} of {view.steps}" if view.phase != "seed" else "collecting seeds"
        when = f"{clock(view.spent)} gone" + (f" · about {clock(left)} left" if left is not None else "")
        when += " · Ctrl-C saves and stops"
    title = Text.assemble((f" {_cut(printable(view.name), 24)} ", "bold"), (f"· {over} ", ""))
    return Panel(
        Group(*facts), title=title, title_align="left", subtitle=Text(f" {when} "),
        subtitle_align="right", width=width, border_style="dim", padding=(0, 1),
    )  # fmt: skip


def _cut(text: str, width: int) -> str:
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def _phases(view: View, width: int) -> Text:
    """Where the step is: its phases in order, and how far the present one has come."""
    line = Text(no_wrap=True, overflow="crop")
    for name in ORDER if view.phase in (*ORDER, "execute", "") else (view.phase,):
        here = view.phase == name
        line.append(f"{'●' if here else '○'} {name}  ", style="bold cyan" if here else "dim")
    if view.phase and view.phase_began:
        took = f" {view.finished}/{view.total}" if view.total else ""
        took += f" {time.monotonic() - view.phase_began:.0f}s"
        room = width - cell_len(line.plain) - len(took)
        if view.total and room >= 6:
            line.append_text(bar(view.finished / view.total, min(room, 40)))
        line.append(took, style="dim")
    return line


def _kinds(view: View, width: int) -> Table:
    """A line for each kind: solve rate and its story, then what its proposals are worth."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    spark = min(60, max(6, width - 60))
    for name, side in (
        ("", "left"), ("solved", "right"), ("so far".ljust(spark), "left"), ("valid", "right"), ("learnable", "right"),
        ("new", "right"), ("difficulty", "right"),
    ):  # fmt: skip
        table.add_column(Text(name), justify=side, no_wrap=True)  # type: ignore[arg-type]
    for kind in view.kinds:
        story = [row[f"solve/{kind}"] for row in view.rows if f"solve/{kind}" in row]
        difficulty = recent(view.rows, f"difficulty/{kind}")
        table.add_row(
            Text(kind), Text(percent(recent(view.rows, f"solve/{kind}")), style="bold"),
            Text(sparkline(story, spark), style="cyan"), percent(recent(view.rows, f"valid/{kind}")),
            percent(recent(view.rows, f"learnable/{kind}")), percent(recent(view.rows, f"novel/{kind}")),
            f"{percent(difficulty)} {trend(view.rows, f'difficulty/{kind}')}",
        )  # fmt: skip
    return table


def _rows(view: View, width: int) -> Table:
    """A line for the user's rows: reward and its story, then how many groups teach, and each reward function."""
    rows = view.rows
    functions = [name for name in rows[-1] if name.startswith("rows/reward/")]
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    spark = min(40, max(6, width - 44 - 12 * len(functions)))
    names = [name.rpartition("/")[2] for name in functions] if len(functions) > 1 else []
    for name in ("", "reward", "so far".ljust(spark), "flat", "tokens", *names):
        table.add_column(Text(_cut(printable(name), max(spark, 10))), no_wrap=True)
    values = [(recent(rows, name) or 0.0) for name in functions] if names else []
    story = [row["rows/reward"] for row in rows if "rows/reward" in row]
    table.add_row(
        Text("rows"), Text(f"{recent(rows, 'rows/reward') or 0.0:.3f}", style="bold"),
        Text(sparkline(story, spark), style="cyan"), percent(recent(rows, "rows/flat")),
        f"{recent(rows, 'rows/length') or 0.0:.0f}", *(f"{value:.3f}" for value in values),
    )  # fmt: skip
    return table


def _lines(view: View, width: int) -> Table:
    """Reasons, learning and machine: a word and what there is to say of it."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", width=8, no_wrap=True)
    table.add_column(width=width - 10, no_wrap=True, overflow="ellipsis")
    rows, last = view.rows, view.rows[-1]
    refused: Counter[str] = Counter()
    for row in rows[-10:]:
        for kind in view.kinds:
            refused.update(row.get(f"refused/{kind}") or {})
    if view.kinds:
        table.add_row("refused", Text(" · ".join(f"{why} {n}" for why, n in refused.most_common(4)) or "nothing"))
    entropy = [row["entropy"] for row in rows if "entropy" in row]
    learning = Text()
    if entropy:
        learning.append(f"entropy {entropy[-1]:.2f} ").append(sparkline(entropy, 10), style="cyan")
    if view.kinds:
        learning.append(f"  flat groups {percent(recent(rows, 'zero_signal'))}")
    if "delta_logp_mean" in last:
        learning.append(f"  |Δ logp| {last['delta_logp_mean']:.0e}")
    table.add_row("learning", learning)
    machine = f"{last.get('tokens_per_second', 0):.0f} tokens/s  {recent(rows, 'seconds/step') or 0:.1f} s a step"
    machine += f"  {last.get('memory/peak', 0) / 1e9:.2f} GB"
    timeouts, dropped = (sum(row.get(name, 0) for row in rows[-10:]) for name in ("timeouts", "dropped"))
    trouble = [f"{n} {word}" for n, word in ((timeouts, "timeouts"), (dropped, "lost")) if n]
    table.add_row("machine", f"{machine}  executor {', '.join(trouble) or 'fine'}")
    return table


def _task(found: HighlightedTask, width: int, most: int) -> Group:
    """A task as text; nothing that the model wrote is obeyed, and nothing is longer than the panel."""
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append("task     ", style="dim").append(f"{found.kind}, ").append(
        f"solved by {found.solved} of {found.tried}", style="bold"
    )
    head.append(f"  (step {found.step})", style="dim")
    lines = [_cut(line.expandtabs(4), width) for line in printable(found.program).split("\n")]
    if len(lines) > most:
        lines = [*lines[: most - 1], "…"]
    case = " ".join(f"f({printable(found.case[0])}) → {printable(found.case[1])}".split())
    code = Text("\n".join(lines), style="green", no_wrap=True, overflow="crop")
    return Group(head, code, Text(_cut(case, width), style="dim", no_wrap=True, overflow="crop"))


class LivePanel:
    """Keeps a panel at the foot of a terminal: drawn twice a second and whenever asked, cleared when the size changes.

    A terminal that gets narrower folds the lines that are already there, and the place where the panel began is lost;
    so a changed size clears the screen and begins anew (what had scrolled away stays in the scrollback).
    """

    def __init__(self, console: Console, render: Callable[[int, int], RenderableType]) -> None:
        self.console = console
        self._render = render
        self._lock = threading.RLock()
        self._over = threading.Event()
        self._size = console.size
        self._live = self._open()
        self._thread = threading.Thread(target=self._run, name="azr-panel", daemon=True)
        self._thread.start()

    def _open(self) -> Live:
        # Transient: whoever stops it prints what shall stay.
        live = Live(
            self._render(*self._size), console=self.console, auto_refresh=False, transient=True,
            vertical_overflow="crop",
        )  # fmt: skip
        live.start(refresh=True)
        return live

    def _run(self) -> None:
        while not self._over.wait(BEAT):
            self.refresh()

    def refresh(self) -> None:
        with self._lock:
            if self._over.is_set():
                return
            size = self.console.size
            if size != self._size:
                self._size = size
                self._live.stop()
                self.console.clear()
                self._live = self._open()
            else:
                self._live.update(self._render(*size), refresh=True)

    def stop(self) -> None:
        """Take the panel away. May be called again."""
        with self._lock:
            if not self._over.is_set():
                self._over.set()
                self._live.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join(2)
