"""A limit of time for a call of the user's code, which runs in the trainer and so can only be asked to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType


class TimeLimitReached(BaseException):
    """The call took too long. No Exception: code that catches every Exception would swallow it."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within it, TimeLimitReached is raised after so many seconds of wall time.

    Python code and waiting system calls are interrupted; a call into C that never returns is not. Works in the main
    thread, where a run trains; elsewhere there is no limit. A timer that was set before goes on afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def reached(number: int, frame: FrameType | None) -> None:
        raise TimeLimitReached

    began = time.monotonic()
    handler = signal.signal(signal.SIGALRM, reached)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(0.001, left - (time.monotonic() - began)), interval)
