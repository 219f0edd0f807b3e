"""Watching one child of a slot: its pipes, its deadlines, what it takes of the machine, and how it ended.

Imports the standard library and modules of the same kind only: the zygote loads it.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import time
from typing import Any, Protocol

from azr_mlx.executor import cleaning, confine, system, wire

THREADS = 128  # of one program
FILES = 4096  # entries in its box, as in the box's own file system where there is one
_TICK = 0.05  # seconds between looks at a child that gives no sign
_IDLE_TICK = 1.0
_MAXRSS = 1 if confine.DARWIN else 1024  # bytes of one unit of ru_maxrss
# A program that got less than this share of a processor for that long slept. One that waits for its turn gets more,
# even at a low priority on a busy machine.
_STILL, _STRETCH = 0.002, 1.0


class PipeBuffer:
    """Bytes from one pipe, in memory that children do not get to see (where the system offers that)."""

    def __init__(self) -> None:
        self._map = self._make(1 << 17)
        self.fill = 0

    @staticmethod
    def _make(size: int) -> mmap.mmap:
        made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
        system.hide_from_children(made)
        return made

    def read(self, fd: int, cap: int) -> int:
        """Read at most up to one byte beyond `cap`; 0 at the end of the pipe. Raises BlockingIOError, OSError."""
        want = min(1 << 16, cap + 1 - self.fill)
        if self.fill + want > len(self._map):
            larger = self._make(2 * len(self._map))
            larger[: self.fill] = self._map[: self.fill]
            self._map.close()
            self._map = larger
        with memoryview(self._map) as whole, whole[self.fill : self.fill + want] as part:
            count = os.readv(fd, [part])
        self.fill += count
        return count

    def view(self, start: int = 0, end: int | None = None) -> memoryview:
        return memoryview(self._map)[start : self.fill if end is None else min(end, self.fill)]

    def clear(self) -> None:
        self.fill = 0
        if len(self._map) > 1 << 22:  # do not keep what one talkative program needed
            self._map.close()
            self._map = self._make(1 << 17)


class Slot(Protocol):
    """What a watch needs of its slot (zygote.py)."""

    alone: bool
    on_tmpfs: bool
    box: str
    buffers: tuple[PipeBuffer, ...]
    readers: list[int]
    poll: select.poll

    def kill(self, pid: int) -> None: ...
    def sweep(self) -> None: ...
    def trainer_ended(self) -> bool: ...
    def send(self, verdict: int, text: str, numbers: tuple[float, float, int], sections: list[memoryview]) -> None: ...


class Watch:
    """Watches one child from fork to burial. Pipes are read up to their caps, and never waited for after its death."""

    def __init__(self, slot: Slot, pid: int) -> None:
        self.slot = slot
        self.pid = pid
        self.readers = slot.readers
        self.result_fd = slot.readers[2]
        self.result = slot.buffers[2]
        for buffer in slot.buffers:
            buffer.clear()
        self.limits: list[Any] | None = None
        self.started = self.ended = 0.0
        self.cpu = 0.0
        self.asleep = 0.0  # seconds in which it neither ran nor waited for a processor
        self.mark = (0.0, 0.0)  # clock and processor time at the last count of them
        self.verdict = 0
        self.detail = ""
        self.status = 0
        self.usage: Any = None  # what wait4 said, once it did
        self.handle = -1

    def run(self) -> bool:
        """Watch until the child is dead and buried. False when the trainer is gone."""
        slot, readers, poll = self.slot, self.readers, self.slot.poll
        turn = 0
        handle = self.handle = system.exit_handle(self.pid)
        if handle >= 0:
            poll.register(handle, select.POLLIN)
        try:
            while not self.verdict:
                events = poll.poll(self._patience() * 1000)
                for fd, _ in events:
                    if fd in readers:
                        if self.limits is None:
                            # It has begun to write, so the mark with its limits is there: read that first.
                            self._take(self.result_fd)
                        if fd != self.result_fd or not self._complete():
                            self._take(fd)
                    elif fd == handle:
                        self.verdict = self.verdict or wire.ENDED
                    else:
                        slot.kill(self.pid)
                        slot.sweep()
                        return False
                turn += 1
                if not self.verdict and (
                    not events or turn & 7 == 0
                ):  # a program that drips output must not put it off
                    self._look()
        finally:
            if handle >= 0:
                poll.unregister(handle)
                os.close(handle)
        self.ended = time.monotonic()
        if self.verdict != wire.ENDED:
            slot.kill(self.pid)
        if self.usage is None:
            _, self.status, self.usage = os.wait4(self.pid, 0)
        if not slot.alone:
            slot.kill(self.pid)  # its process group may outlive it
        slot.sweep()
        waiting = set(readers)
        while waiting:
            # poll() says what is left, where read() would raise BlockingIOError for what is not
            ready = [fd for fd, _ in poll.poll(0) if fd in waiting]
            if not ready:
                break
            for fd in ready:
                if not self._take(fd):
                    waiting.remove(fd)
        return True

    def _patience(self) -> float:
        if self.limits is None:
            return _IDLE_TICK
        wall: float = self.limits[0]
        cpu: float = self.limits[1]
        return max(0.001, min(_TICK, self.started + wall - time.monotonic(), cpu - self.cpu + 0.001))

    def _look(self) -> None:
        """Deadlines, what no limit of the system holds, and deaths that no handle reports."""
        if self.limits is None:
            if not self.slot.alone and self.slot.trainer_ended():
                self.slot.kill(self.pid)
                os._exit(0)
            self._reap()
            return
        wall, cpu, memory = self.limits[:3]
        now = time.monotonic()
        late = now - self.started >= wall
        held = 0
        with contextlib.suppress(OSError):  # it may be gone just now; a system that never says was told of at the start
            self.cpu = system.cpu_seconds(self.pid)
            held = system.memory_bytes(self.pid)
        self._count_sleep(now)
        if late:
            # On a busy machine a spinning program gets less than a whole core.
            self.verdict, self.detail = wire.TIMEOUT, "cpu" if self.cpu >= 0.25 * wall else "wall"
        elif self.cpu >= cpu:
            self.verdict, self.detail = wire.TIMEOUT, "cpu"
        elif self.cpu + self.asleep >= cpu:
            self.verdict, self.detail = wire.TIMEOUT, "wall"
        elif held > memory:
            self.verdict, self.detail = wire.MEMORY, f"over {memory >> 20} MB"
        elif not self.slot.on_tmpfs and self._over():
            pass
        else:
            self._reap()

    def _count_sleep(self, now: float) -> None:
        """Tell a program that sleeps from one that waits for a processor: only the second is owed more wall time."""
        then, cpu = self.mark if self.mark[0] else (self.started, 0.0)
        if now - then < _STRETCH:
            self.mark = (then, cpu)
            return
        if self.cpu and self.cpu - cpu < _STILL * (now - then):  # of a system that never says, it is 0
            self.asleep += now - then
        self.mark = (now, self.cpu)

    def _over(self) -> bool:
        """Where the box is a folder of the machine's: files and threads beyond what a program may have."""
        why = cleaning.usage(self.slot.box, confine.BOX_BYTES, FILES)
        if not why and not self.slot.alone:  # in an own pid namespace the numbers of processes are others
            if system.unlinked_bytes(self.pid) > confine.BOX_BYTES:
                why = f"over {confine.BOX_BYTES >> 20} MB of files"
            elif system.threads(self.pid) > THREADS:
                self.verdict, self.detail = wire.FORBIDDEN, f"over {THREADS} threads"
                return True
        if why:
            self.verdict, self.detail = wire.OUTPUT, why
        return bool(why)

    def _reap(self) -> None:
        """See whether the child has ended, on systems without a handle for that."""
        if self.handle < 0:
            pid, self.status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.usage, self.verdict = usage, wire.ENDED

    def _take(self, fd: int) -> bool:
        """Read once from a pipe that has something. False when nothing more is to be read from it."""
        is_result = fd == self.result_fd
        buffer = self.slot.buffers[self.readers.index(fd)]
        limits = self.limits
        cap = 1 << 16 if limits is None else limits[4] + (1 << 16) if is_result else limits[3]
        try:
            more = buffer.fill <= cap and buffer.read(fd, cap)
        except BlockingIOError:
            return True
        if not more:
            self.slot.poll.unregister(fd)  # over its cap (said below, when it went over), or closed
            return False
        if buffer.fill > cap and (
            not self.verdict or self.verdict == wire.ENDED or (self.verdict == wire.FRAME and not is_result)
        ):
            self.verdict = wire.BAD_RESULT if is_result else wire.OUTPUT
            self.detail = f"over {cap} bytes"
        if is_result:
            if limits is None and buffer.fill >= wire.START.size:
                mark, *limits, started = wire.START.unpack(buffer.view(0, wire.START.size))
                if mark == wire.START_MARK:  # written before the program runs, in one piece
                    self.limits, self.started = limits, started
            if not self.verdict and self._complete():
                self.verdict = wire.FRAME
        return True

    def _complete(self) -> bool:
        start = wire.START.size + wire.HEADER.size
        if self.limits is None or self.result.fill < start:
            return False
        (length,) = wire.HEADER.unpack(self.result.view(start - wire.HEADER.size, start))
        return bool(self.result.fill >= start + length)

    def reply(self) -> bool:
        """Tell the trainer. False when this slot can no longer be relied on."""
        slot = self.slot
        if self.limits is None:
            why = bytes(self.result.view(0, 500)).decode("utf-8", "replace") or f"wait status {self.status}"
            slot.send(wire.LOST, f"the child ended before its program: {why}", (0.0, 0.0, 0), [memoryview(b"")] * 3)
            return False
        if self.verdict == wire.ENDED:
            if self._complete():
                self.verdict = wire.FRAME
            elif os.WIFSIGNALED(self.status):
                self.verdict, self.detail = self._signalled(os.WTERMSIG(self.status))
            else:
                self.verdict, self.detail = wire.EXITED, f"exit code {os.WEXITSTATUS(self.status)}"
        usage, output = self.usage, self.limits[3]
        frame = self.result.view(wire.START.size + wire.HEADER.size if self.verdict == wire.FRAME else self.result.fill)
        slot.send(
            self.verdict,
            self.detail,
            (self.ended - self.started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * _MAXRSS),
            [frame, slot.buffers[0].view(0, output), slot.buffers[1].view(0, output)],
        )
        return True

    def _signalled(self, number: int) -> tuple[int, str]:
        assert self.limits is not None
        used = self.usage.ru_utime + self.usage.ru_stime
        if number == signal.SIGXCPU or (number == signal.SIGKILL and used >= self.limits[1]):
            return wire.TIMEOUT, "cpu"
        if number == getattr(signal, "SIGSYS", -1):
            return wire.FORBIDDEN, "system call"
        if number == signal.SIGXFSZ:
            return wire.OUTPUT, "file size"
        try:
            return wire.KILLED, signal.Signals(number).name
        except ValueError:
            return wire.KILLED, f"signal {number}"
