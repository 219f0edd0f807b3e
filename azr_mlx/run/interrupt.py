"""Ctrl-C and SIGTERM: the first one stops a run at the next safe place, the second one at once."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from types import FrameType


class Interrupted(Exception):
    """The person asked the run to stop; raised at a safe place, where nothing is half done."""


class Interrupt:
    """A signal handler that remembers. `check` is called at safe places and raises Interrupted once it was asked."""

    def __init__(self) -> None:
        self.asked = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        sys.stderr.write("\nstopping: the step under way is given up, everything before it is saved ...\n")

    def check(self) -> None:
        if self.asked:
            raise Interrupted

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM within the block."""
        former = {number: signal.signal(number, self) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)
