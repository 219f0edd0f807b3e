"""The machine is kept awake by a process that ends with the run; what it slept all the same is told and not counted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from azr_mlx.run.wakefulness import SleepWatch, awake


def tool(folder: Path) -> Path:
    """A caffeinate that notes its words and waits, as the real one."""
    made = folder / "caffeinate"
    made.write_text(f'#!/bin/sh\necho "$@" > {folder}/words\nexec sleep 60\n')
    made.chmod(0o755)
    return made


def test_the_tool_runs_as_long_as_the_run(tmp_path: Path) -> None:
    before = _children()
    with awake(program=str(tool(tmp_path))) as held:
        assert held
        while not (tmp_path / "words").exists() or not (tmp_path / "words").read_text():
            pass
        assert (tmp_path / "words").read_text().split() == ["-i", "-s", "-w", str(os.getpid())]
    assert _children() == before


def _children() -> str:
    words = ["ps", "-o", "pid=,args=", "--ppid" if sys.platform != "darwin" else "-p", str(os.getpid())]
    said = subprocess.run(words, capture_output=True, text=True).stdout.splitlines()
    return "\n".join(line for line in said if "ps -o" not in line)


def test_where_it_is_not_wanted_or_not_there_nothing_happens(tmp_path: Path) -> None:
    with awake(False, program=str(tool(tmp_path))) as held:
        assert not held
    with awake(program=str(tmp_path / "nothing")) as held:
        assert not held


@pytest.mark.skipif(sys.platform == "darwin", reason="is about the other systems")
def test_elsewhere_the_system_tool_is_not_looked_for() -> None:
    with awake() as held:
        assert not held


def test_sleep_is_told_from_slowness() -> None:
    now = [100.0, 40.0]  # with sleep, without
    watch = SleepWatch(lambda: (now[0], now[1]))
    now[:] = [1000.0, 940.0]  # fifteen slow minutes
    assert watch.note() == ""
    now[:] = [1000.0 + 2580.0, 940.0 + 60.0]  # a minute of work and 42 of sleep
    assert watch.note() == "the machine slept for 42 minutes; no step counts them"
    assert watch.note() == ""
    now[0] += 20
    assert watch.note() == "the machine slept for 20 seconds; no step counts them"


def test_the_clocks_of_this_machine_agree_while_it_is_awake() -> None:
    watch = SleepWatch()
    assert watch.slept() < 1
