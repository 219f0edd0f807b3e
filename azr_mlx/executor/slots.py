"""What the trainer holds of its slots: a process, a socket and a box each, in one folder. Decides nothing."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
import time
from typing import Any

from azr_mlx.executor import cleaning, trial

# Whether the kernel ends what a killed keeper leaves behind. Elsewhere the lifeline does, which takes a moment.
ENDS_ORPHANS = sys.platform.startswith("linux")
_LAST_BUDGET = 2_000_000  # entries that closing removes of one box: nobody waits for a slot any more
PREFIX = "azr-executor-"  # of the folder's name
_FRESH = 60.0  # seconds in which a folder may be somebody's who has not locked it yet, or who is just ending


class Folder:
    """The executor's folder, with a box for each slot; made again should something have removed it.

    It outlives every slot while the trainer lives. When the trainer is killed, the last slot removes it; when all are
    killed at once, the next executor does, which knows by the lock that nobody holds any more.
    """

    def __init__(self) -> None:
        self.path = ""
        self.kept: dict[str, str] = {}  # boxes that could not be removed, and why
        self._lock = -1

    def make_box(self, prefix: str) -> str:
        """A fresh folder for one slot. Raises OSError."""
        if not self.path or not os.path.isdir(self.path):
            sweep(tempfile.gettempdir())
            self.path = os.path.realpath(tempfile.mkdtemp(prefix=PREFIX))
            os.chmod(self.path, 0o711)
            self._unlock()
            self._lock = _locked(self.path)
        canary = os.path.join(self.path, trial.FILE)
        if not os.path.exists(canary):
            with open(canary, "wb") as file:
                file.write(b"what no program may touch\n")
            os.chmod(canary, 0o666)
        return tempfile.mkdtemp(prefix=prefix, dir=self.path)

    def remove_box(self, box: str) -> str:
        """Remove a box, or keep it aside and say why."""
        why = cleaning.remove(box) if box else ""
        if why:
            self.kept[box] = why
        return why

    def close(self) -> dict[str, str]:
        """Remove everything; what could not be, and why."""
        left = {}
        boxes = {box for box in self.kept if os.path.dirname(box) != self.path}  # of one that was lost
        if self.path:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.path, trial.FILE))
            with contextlib.suppress(OSError):
                boxes |= {os.path.join(self.path, name) for name in os.listdir(self.path)}
        for box in sorted(boxes):
            if why := cleaning.remove(box, _LAST_BUDGET):
                left[box] = why
        if self.path and not left and (why := cleaning.remove(self.path)):
            left[self.path] = why
        self._unlock()
        return left

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def sweep(place: str) -> None:
    """Remove what executors left in `place` that were killed together with all their slots. Raises nothing.

    A folder goes only when it is ours, when nothing was made in it for a while, and when its lock is free: the system
    frees the lock of a process that ends, however it ends. Where folders cannot be locked, none goes.
    """
    with contextlib.suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if not entry.name.startswith(PREFIX):
                continue
            state = entry.stat(follow_symlinks=False)
            ours = stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid()
            if ours and time.time() - state.st_mtime > _FRESH and (lock := _locked(entry.path)) >= 0:
                cleaning.remove(entry.path)
                os.close(lock)


def _locked(path: str) -> int:
    """A descriptor that holds the lock of a folder, -1 where another one does or there are no locks."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return -1
    return lock


class SlotHandle:
    """The trainer's end of one zygote."""

    def __init__(self, number: int, seed: int) -> None:
        self.number = number
        self.seed = seed
        self.process: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | None = None
        self.lifeline = -1  # the end that only the trainer holds
        self.box = ""
        self.work: Any = None  # the job that it runs
        self.unsent: memoryview | None = None
        self.writing = False
        self.received = bytearray()
        self.deadline = 0.0  # monotonic time by which it must have said something, 0 for never
        self.start_at: float | None = 0.0  # when it is to be started, None once it is
        self.ready = False  # has said hello
        self.failures = 0  # starts in a row that came to nothing
        self.losses = 0  # deaths in a row without an outcome in between
        self.idle_since = 0.0

    def launch(self, folder: Folder, settings: dict[str, Any]) -> socket.socket:
        """Start the process; its socket. Raises OSError; what was made until then is for `discard` to remove."""
        self.ready = self.writing = False
        self.received.clear()
        self.unsent = None
        self.box = folder.make_box(f"slot-{self.seed}-{self.number}-")
        self.socket, theirs = socket.socketpair()
        try:
            self.socket.setblocking(False)
            reading, self.lifeline = os.pipe()
            try:
                self.process = _spawn(settings | {"box": self.box}, self.seed, theirs.fileno(), reading)
            finally:
                os.close(reading)
        finally:
            theirs.close()
        return self.socket

    def kill(self) -> None:
        """End the process and all below it: the keeper takes the zygote along, the zygote its child."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None
        if self.lifeline >= 0:
            os.close(self.lifeline)  # zygote and keeper see it, and leave nobody behind
            self.lifeline = -1
        if self.process is not None and ENDS_ORPHANS:
            self.process.kill()

    def discard(self, folder: Folder) -> str:
        """Kill, bury, and remove the box. Why the box had to be kept aside, or nothing."""
        self.kill()
        process, self.process = self.process, None
        if process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5.0)
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5.0)
        self.ready, self.deadline = False, 0.0
        box, self.box = self.box, ""
        return folder.remove_box(box)


def private_file() -> str:
    """A file in the user's home folder, for the trial to fail to read; where there is none, one that is not there."""
    home = os.path.expanduser("~")
    with contextlib.suppress(OSError), os.scandir(home) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_file(follow_symlinks=False) and os.access(entry.path, os.R_OK):
                return entry.path
    return os.path.join(home, "nothing")


def command(settings: dict[str, Any]) -> list[str]:
    """The words that start a zygote."""
    here = os.path.dirname(os.path.abspath(__file__))
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    return [python, "-s", "-P", "-S", "-B", "-X", "utf8", os.path.join(here, "zygote.py"), json.dumps(settings)]


def _spawn(settings: dict[str, Any], seed: int, control: int, lifeline: int) -> subprocess.Popen[bytes]:
    environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": str(seed)}
    environment["MALLOC_ARENA_MAX"] = "1"  # or each thread of a program takes 64 MB of its address space
    environment["LD_BIND_NOW"] = "1"  # or every child looks up the same symbols again
    return subprocess.Popen(
        command(settings),
        stdin=control,
        stdout=lifeline,  # to read from: standard descriptors are handed on by every way to start a process
        stderr=subprocess.DEVNULL if not os.environ.get("AZR_EXECUTOR_DEBUG") else None,
        env=environment,
        close_fds=False,  # ours are not inheritable; this lets macOS use posix_spawn
    )
