"""Keeping a Mac awake while it trains, and telling sleep from slowness.

`caffeinate -i -s -w PID` is Apple's tool: no sleep for idleness, on mains power none at all, for as long as that
process lives. The display may sleep, which the GPU's watchdog likes (azr_mlx/model/metal.py). A closed lid and an empty
battery still send a laptop to sleep; the run goes on when it wakes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

CAFFEINATE = "/usr/bin/caffeinate"


@contextmanager
def awake(wanted: bool = True, program: str = CAFFEINATE) -> Iterator[bool]:
    """Hold the Mac awake inside; yields whether that worked. Does nothing elsewhere."""
    process = None
    if wanted and (sys.platform == "darwin" or program != CAFFEINATE) and shutil.which(program):
        # -w ends it with this process, also with one that is killed.
        words = [program, "-i", "-s", "-w", str(os.getpid())]
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError:
            process = None
    try:
        yield process is not None
    finally:
        if process is not None:
            process.terminate()
            process.wait()


def _clocks() -> tuple[float, float]:
    """Seconds with and without those in which the machine slept."""
    if sys.platform == "darwin":  # here CLOCK_MONOTONIC is the one that goes on
        return time.clock_gettime(time.CLOCK_MONOTONIC), time.clock_gettime(time.CLOCK_UPTIME_RAW)
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME), time.clock_gettime(time.CLOCK_MONOTONIC)
    return 0.0, 0.0


class SleepWatch:
    """How long the machine slept since the last look. Durations in the package come from clocks that leave it out."""

    def __init__(self, clocks: Callable[[], tuple[float, float]] = _clocks) -> None:
        self._clocks = clocks
        self._apart = self._now()

    def _now(self) -> float:
        whole, without = self._clocks()
        return whole - without

    def slept(self) -> float:
        """Seconds of sleep since the last call."""
        before, self._apart = self._apart, self._now()
        return max(0.0, self._apart - before)

    def note(self) -> str:
        """A line for the log when it was more than a second, else nothing."""
        seconds = self.slept()
        if seconds < 1:
            return ""
        long = f"{seconds / 60:.0f} minutes" if seconds >= 90 else f"{seconds:.0f} seconds"
        return f"the machine slept for {long}; no step counts them"
