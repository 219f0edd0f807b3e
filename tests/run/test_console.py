"""The console: a panel on a terminal, aligned rows in a pipe, silence when asked; the model's text is only text."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.console import Console

from azr_mlx import config
from azr_mlx.run import metrics
from azr_mlx.run.console import View, clock, draw, highlight, sparkline
from azr_mlx.run.folder import RunFolder
from azr_mlx.run.interrupt import Interrupted
from azr_mlx.run.tracker import Tracker
from tests.report.runs import PLAYED, make_step

STEPS = 12


def play(tracker: Tracker, steps: int = STEPS, hostile: bool = False, first: int = 0) -> None:
    """Tell a tracker of a made-up run, from its step `first` on."""
    rng, known = random.Random(0), set[str]()
    tracker.rewind(first)
    for number in range(first, steps):
        for name in ("write", "execute", "update"):
            with tracker.phase(name, 4) as progress:
                progress(4, 4, 0)
        step = make_step(number, steps, rng, tracker.config, hostile)
        row = metrics.row(step, known, dict.fromkeys(PLAYED, 160))
        tracker.log_step(step, row, {"active": 1, "peak": 6 * 10**8, "cache": 0})


def settings() -> config.Config:
    return replace(config.load("nano"), steps=STEPS)


def screen(width: int, terminal: bool = False, **options: object) -> Console:
    return Console(file=io.StringIO(), width=width, height=40, force_terminal=terminal, soft_wrap=True, **options)  # type: ignore[arg-type]


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    """What a panel would show after twelve steps of a hostile run."""
    tracker = Tracker(RunFolder(tmp_path_factory.mktemp("view")), settings(), console=screen(80))
    play(tracker, hostile=True)
    tracker.view.alarms = ["memory is rising: checkpoint, stop and resume"]
    return tracker.view


@pytest.mark.parametrize("width", [40, 60, 80, 119, 120, 200])
@pytest.mark.parametrize("height", [10, 24, 60])
def test_the_panel_is_as_wide_as_the_terminal_and_no_wider(view: View, width: int, height: int) -> None:
    console = screen(width)
    console.print(draw(view, width, height), soft_wrap=False)
    lines = text_of(console).rstrip("\n").split("\n")
    assert {cell_len(line) for line in lines} == {width}
    if width >= 80:
        assert any("deduction" in line and " %" in line for line in lines)
        assert any("memory is rising" in line for line in lines)


def test_the_panel_tells_what_matters(view: View) -> None:
    console = screen(200)
    console.print(draw(view, 200), soft_wrap=False)
    text = text_of(console)
    words = ("step 12 of 12", "gone", "left", "solved", "valid", "learnable", "new", "difficulty", "refused", "entropy",
             "flat groups", "tokens/s", "GB", "executor", "solved by", "of 8", "Ctrl-C")  # fmt: skip
    assert [word for word in words if word not in text] == []


@pytest.mark.parametrize("seed", range(8))
def test_the_models_text_cannot_command_the_terminal(tmp_path: Path, seed: int) -> None:
    step = make_step(0, 2, random.Random(seed), settings(), hostile=True)
    view = View("[bold]\x1b[2J", list(PLAYED), 2, task=highlight(step))
    console = screen(80, no_color=True)
    console.print(draw(view, 80), soft_wrap=False)
    assert not [mark for mark in text_of(console) if mark != "\n" and not mark.isprintable()]
    assert "[bold]" in text_of(console), "markup is shown, not obeyed"


def test_the_star_is_the_hardest_task_that_was_solved() -> None:
    step = make_step(3, 9, random.Random(1), settings())
    rates = [one.solve_rate for one in step.proposals if one.solve_rate]
    star = highlight(step)
    assert star is not None
    assert star.tried == 8
    assert star.solved / star.tried == min(rates)


def test_piped_there_is_one_aligned_row_a_step_within_80_columns(tmp_path: Path) -> None:
    console = screen(80)
    play(Tracker(RunFolder(tmp_path), settings(), console=console))
    lines = text_of(console).rstrip("\n").split("\n")
    assert len(lines) == STEPS + 2
    assert {len(line) for line in lines} == {77}
    assert "\x1b" not in text_of(console)
    # The right edge of each column is the same in every row.
    edges = [[i for i in range(76) if line[i] != " " and line[i + 1] == " "] for line in lines[2:]]
    assert all(edge == edges[0] for edge in edges)


def test_the_last_screen_has_a_line_of_blocks_for_each_curve_within_80_columns(tmp_path: Path) -> None:
    console = screen(80)
    tracker = Tracker(RunFolder(tmp_path), settings(), console=console)
    play(tracker)
    before = len(text_of(console))
    tracker.print_curves()
    lines = text_of(console)[before:].splitlines()
    names = [f"{what}/{kind}" for what in ("solve", "length/solve") for kind in PLAYED]
    assert [line.split()[0] for line in lines] == [*names, "entropy"]
    assert {len(line.split()[2]) for line in lines} == {STEPS}
    assert max(map(cell_len, lines)) <= 80
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for name, line in zip(names, lines, strict=False):
        first, last = (float(line.split()[i]) for i in (1, 3))
        assert [first, last] == pytest.approx([rows[0][name], rows[-1][name]], rel=5e-3)


def test_quiet_says_nothing_but_alarms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tracker = Tracker(RunFolder(tmp_path), settings(), quiet=True)
    play(tracker)
    said = capsys.readouterr()
    assert said.out == said.err == ""
    tracker.view.rows[-1]["ratio_outside"] = 0.5
    tracker._watch()
    tracker._watch()
    assert capsys.readouterr().err.count("alarm: sampler and trainer disagree: ") == 1


def test_on_a_terminal_the_panel_leaves_its_last_picture_behind(tmp_path: Path) -> None:
    console = screen(80, terminal=True)
    tracker = Tracker(RunFolder(tmp_path), settings(), console=console)
    play(tracker, 3)
    assert "\x1b[?25l" in text_of(console), "a panel hides the cursor"
    tracker.close()
    tracker.close()
    end = text_of(console)[text_of(console).rindex("\x1b[?25h") :]
    assert "3 of 12 steps" in end
    assert "Ctrl-C" not in end


def test_a_dumb_terminal_gets_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    console = screen(80, terminal=True)
    play(Tracker(RunFolder(tmp_path), settings(), console=console), 3)
    assert "\x1b[?25l" not in text_of(console)
    assert len(text_of(console).splitlines()) == 5


def test_a_failure_in_a_phase_passes_through_and_the_panel_can_still_be_closed(tmp_path: Path) -> None:
    tracker = Tracker(RunFolder(tmp_path), settings(), console=screen(80, terminal=True))
    with pytest.raises(Interrupted), tracker.phase("write", 3):
        raise Interrupted
    tracker.close()


def test_what_is_left_follows_steps_and_clock() -> None:
    rows = [{"seconds/step": 6.0}] * 5
    assert View("r", [], 100, done=40, rows=rows).left() == 6.0 * 60
    assert View("r", [], 100, done=40, rows=rows, minutes=5, spent=240).left() == 60
    assert View("r", [], 100).left() is None
    assert [clock(s) for s in (0, 42.4, 727, 11100)] == ["0:00", "0:42", "12:07", "3:05:00"]


def test_sparklines() -> None:
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert sparkline([1, 1, 1]) == "▁▁▁"
    assert sparkline([]) == ""
    assert len(sparkline(list(range(1000)), 20)) == 20


def test_rewinding_forgets_steps_and_their_time(tmp_path: Path) -> None:
    tracker = Tracker(RunFolder(tmp_path), settings(), console=screen(80))
    play(tracker, 5)
    (tmp_path / "timings.jsonl").write_text(
        "".join(json.dumps({"step": i, "seconds/step": 2.0}) + "\n" for i in range(5)) + '{"step": 5, "sec'
    )
    tracker.rewind(3)
    assert [row["step"] for row in tracker.view.rows] == [0, 1, 2]
    assert tracker.view.spent == 6.0
    assert sorted(path.name for path in (tmp_path / "rollouts").iterdir())[-1] == "step-000002.jsonl"


# A real terminal.

pytest_tmux = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")


class Tmux:
    """A terminal of a given size that runs the demo."""

    def __init__(self, folder: Path, width: int, height: int, words: str = "", environment: str = "") -> None:
        self.name = f"azr-{folder.name}"
        root = Path(__file__).resolve().parents[2]
        command = f"cd {root} && {environment} {sys.executable} -m tests.run.demo {folder} {words}; sleep 60"
        size = ("-x", str(width), "-y", str(height))
        # The environment is given in words: readline, once imported, puts COLUMNS into the one that is inherited.
        subprocess.run(
            ["tmux", "-f", "/dev/null", "-L", self.name, "new-session", "-d", *size, command],
            check=True,
            env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")},
        )

    def do(self, *words: str) -> str:
        return subprocess.run(["tmux", "-L", self.name, *words], check=True, capture_output=True, text=True).stdout

    def wait_for(self, word: str, seconds: float = 60) -> str:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            shown = self.do("capture-pane", "-p", "-t", "0")
            if word in shown:
                return shown
            time.sleep(0.1)
        raise AssertionError(f"{word!r} did not appear in:\n{shown}")

    def panel(self) -> list[str]:
        """The lines of the panel once there is exactly one, whole: a picture may fall into the middle of a drawing."""
        for _ in range(30):
            shown = self.do("capture-pane", "-p", "-t", "0")
            if shown.count("╭") == shown.count("╯") == 1:
                return [line for line in shown.split("\n") if line[:1] in "╭│╰" and line]
            time.sleep(0.1)
        raise AssertionError(f"no single whole panel in:\n{shown}")

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self.name, "kill-server"], check=False, capture_output=True)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[type[Tmux]]:
    opened: list[Tmux] = []

    class Opened(Tmux):
        def __init__(self, width: int, height: int, words: str = "", environment: str = "") -> None:
            super().__init__(tmp_path, width, height, words, environment)
            opened.append(self)

    yield Opened  # type: ignore[misc]
    for one in opened:
        one.close()


@pytest_tmux
@pytest.mark.parametrize("width", [80, 200])
def test_a_terminal_of_this_width_shows_one_whole_panel(terminal: type[Tmux], width: int) -> None:
    tmux = terminal(width, 40, "--steps 30 --pause 0.01 --hostile")  # type: ignore[arg-type,call-arg]
    tmux.wait_for("step 4 of 30")
    assert {len(line) for line in tmux.panel()} == {width}


@pytest_tmux
def test_a_panel_survives_being_resized(terminal: type[Tmux]) -> None:
    tmux = terminal(150, 40, "--steps 60 --pause 0.01")  # type: ignore[arg-type,call-arg]
    tmux.wait_for("step 3 of 60")
    tmux.do("resize-window", "-x", "80", "-y", "24")
    time.sleep(1.5)
    assert {len(line) for line in tmux.panel()} == {80}
    tmux.do("resize-window", "-x", "130", "-y", "40")
    time.sleep(1.5)
    assert {len(line) for line in tmux.panel()} == {130}


@pytest_tmux
def test_without_colour_there_is_none(terminal: type[Tmux]) -> None:
    tmux = terminal(80, 40, "--steps 30 --pause 0.01", environment="NO_COLOR=1")  # type: ignore[arg-type,call-arg]
    tmux.wait_for("step 3 of 30")
    coloured = tmux.do("capture-pane", "-e", "-p", "-t", "0")
    assert not [code for code in range(31, 38) if f"\x1b[{code}m" in coloured or f";{code}m" in coloured]
