"""One slot: an exec'd, warm, clean interpreter that forks one confined child for every program.

Started by pool.py as `python -s -P -S zygote.py JSON` with a socket as standard input. It never reads a program:
the child that will run it takes it from the socket itself, so nothing of one program is ever in the memory that the
next one is forked from. What comes back passes through buffers that Linux does not copy on fork (MADV_DONTFORK).

    trainer --socket--> keeper --(new pid namespace)--> zygote --fork--> child 1, child 2, ...

The next child is forked and confined before its job arrives, so that an idle slot answers at once.
Replies go back on the same socket: a length, then four sections with a length each: an encoded tuple that begins with
"hello", "done" or "lost", what the child wrote to its result pipe, its stdout, its stderr.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import mmap
import os
import resource
import select
import signal
import struct
import sys
import time
import types
from typing import Any

if __name__ == "__main__":
    # A bare package of the same name: the front door, and whatever it imports, is never run in here.
    _here = os.path.dirname(os.path.abspath(__file__))
    for _name, _path in (("azr_mlx", os.path.dirname(_here)), ("azr_mlx.executor", _here)):
        _package = types.ModuleType(_name)
        _package.__path__ = [_path]
        sys.modules[_name] = _package

from azr_mlx.executor import child, confine
from azr_mlx.executor.values import encode

_HEADER = struct.Struct("<I")
_LIMITS = struct.Struct("<ddQQQ")  # wall s, cpu s, memory bytes, output bytes, result bytes
_START = struct.Struct("<cddQQQd")  # the mark S, the limits, and when the child had its job (monotonic clock, s)
_TICK = 0.05  # seconds between looks at a child that gives no sign
_IDLE_TICK = 1.0
_IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PRELOAD = (
    "abc bisect cmath collections collections.abc copy dataclasses datetime decimal enum fractions functools heapq "
    "itertools json math numbers operator random re statistics string textwrap time typing ast inspect keyword "
    "contextlib traceback weakref io codecs encodings.utf_8 encodings.latin_1 encodings.ascii linecache"
).split()


def setrlimit(kind: str, soft: int, hard: int | None = None) -> bool:
    """Lower one limit. False when this system does not have it or refuses: the others must not suffer from that."""
    number = getattr(resource, f"RLIMIT_{kind}", None)
    if number is None:
        return False
    hard = soft if hard is None else hard
    try:
        _, highest = resource.getrlimit(number)
        if highest != resource.RLIM_INFINITY:
            hard = min(hard, highest)
            soft = min(soft, hard)
        resource.setrlimit(number, (soft, hard))
    except (OSError, ValueError):
        return False
    return True


class Buffer:
    """Bytes from one pipe, in memory that children do not get to see (where the system offers that)."""

    def __init__(self) -> None:
        self._map = self._make(1 << 17)
        self.fill = 0

    @staticmethod
    def _make(size: int) -> mmap.mmap:
        made = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
        with contextlib.suppress(AttributeError, OSError):
            made.madvise(mmap.MADV_DONTFORK)
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


class Slot:
    """The zygote's side of one slot."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.without = set(settings["without"])
        self.layers: dict[str, str] = {}  # name -> "" when active, else why not
        self.box = settings["box"]
        self.level = settings["level"]
        self.uid: int | None = None  # that children still have to change to
        self.alone = False  # init of an own pid namespace: all other processes in it are ours to kill
        self.ruleset = -1  # that children still have to bind themselves to
        self.filter: confine.Seccomp | None = None
        self.trainer_fd = -1
        self.control = -1
        self.baseline = 0
        self.buffers: tuple[Buffer, ...] = ()

    # ------------------------------------------------------------------------------------------------- start

    def start(self) -> None:
        """Prepare this process; in a pid namespace only its first child returns from here."""
        self.control = os.dup(0)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        moved = os.dup2(self.control, 10, inheritable=False)
        os.closerange(3, moved)
        os.closerange(moved + 1, 4096)
        self.control = moved
        with contextlib.suppress(AttributeError, OSError):
            self.trainer_fd = os.dup2(os.pidfd_open(os.getppid()), 11, inheritable=False)
            os.closerange(3, moved)
        with contextlib.suppress(OSError):
            os.setsid()
        os.umask(0o077)
        for name in _PRELOAD:
            __import__(name)
        import site

        site.setquit()
        self._environment()
        if confine.LINUX:
            with open("/proc/self/statm") as file:
                self.baseline = int(file.read().split()[0]) * resource.getpagesize()
        sys.path[:] = [path for path in sys.path if "/" in path]
        if self.level != "off":
            if confine.LINUX:
                self._linux()
            elif confine.DARWIN:
                self.layers["seatbelt"] = self.settings.get("seatbelt", "no sandbox-exec")
        os.chdir(self.box)
        os.dup2(0, 2)
        for kind, most in (("CORE", 0), ("NOFILE", 64), ("MEMLOCK", 0), ("MSGQUEUE", 0), ("FSIZE", confine.BOX_BYTES)):
            setrlimit(kind, most)
        for name in [name for name in sys.modules if name.split(".")[0] == "azr_mlx"]:
            del sys.modules[name]
        gc.collect()
        gc.disable()
        gc.freeze()

    def _environment(self) -> None:
        # The hash seed is in force already; its variable would tell a program which of its two runs this is.
        os.environ.clear()
        os.environ.update(PATH="/usr/bin:/bin", LANG="C.UTF-8", HOME=self.box, TMPDIR=self.box, OMP_NUM_THREADS="1")

    def _try(self, layer: str, action: Any) -> bool:
        if layer in self.without:
            self.layers[layer] = "switched off"
            return False
        try:
            action()
        except (OSError, KeyError, ValueError) as error:
            self.layers[layer] = str(error)
            return False
        self.layers[layer] = ""
        return True

    def _linux(self) -> None:
        uid = confine.FIRST_UID + self.settings["slot"] if os.geteuid() == 0 else None
        self.alone = self._try("namespaces", confine.namespaces)
        if self.alone:
            first = os.fork()
            if first:
                self._keep(first)
            confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
            outside = self.box
            if self._try("root", lambda: confine.new_root(outside, self.settings["read"])):
                self.box = "/box"
                os.environ.update(HOME="/box", TMPDIR="/box")
        if uid is not None:
            self._try("uid", lambda: self._leave_root(uid))
        self._try("capabilities", self._leave_capabilities)
        confine.prctl(confine.PR_SET_NO_NEW_PRIVS, 1)
        if self.alone:
            confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of credentials resets it
        self._try("landlock", self._landlock)
        self._try("seccomp", self._seccomp)

    def _leave_root(self, uid: int) -> None:
        closed = "" if self.box == "/box" else _closed_to_others(sys.base_prefix) or _closed_to_others(self.box)
        if closed:
            raise OSError(f"{closed} is closed to other users")
        os.chown(self.box, uid, uid)
        if self.alone:
            confine.drop_uid(uid)  # signals from inside cannot end the init of a namespace, whoever it runs as
        else:
            self.uid = uid

    def _leave_capabilities(self) -> None:
        if self.uid is None:
            confine.drop_capabilities()

    def _landlock(self) -> None:
        read = ["/"]
        if self.box != "/box":
            read = [*confine.readable_paths(self.settings["read"]), "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"]
        ruleset, _ = confine.landlock_ruleset(read, [self.box, "/dev/null"])
        if self.alone:
            confine.landlock_restrict(ruleset)
            os.close(ruleset)
        else:
            self.ruleset = ruleset  # an own domain for each child keeps its signals from everybody else

    def _seccomp(self) -> None:
        if not confine.seccomp_supported():
            raise OSError("no table of system calls for this machine")
        confine.Seccomp(confine.zygote_filter()).install()
        self.filter = confine.Seccomp(confine.child_filter(self.alone))

    def _keep(self, first: int) -> None:
        """The keeper: lives as long as the zygote, and takes it along when it dies."""
        os.closerange(3, 64)
        with contextlib.suppress(OSError):
            os.waitpid(first, 0)
        os._exit(0)

    # -------------------------------------------------------------------------------------------------- serve

    def send(self, *items: Any, sections: tuple[memoryview, ...] = ()) -> None:
        """One reply. Raises BrokenPipeError when the trainer is gone."""
        parts: list[bytes | memoryview] = []
        for section in (encode(items, 1 << 16), *(sections or (b"", b"", b""))):
            parts += [_HEADER.pack(len(section)), section]
        size = sum(map(len, parts))
        parts.insert(0, _HEADER.pack(size))
        left = size + _HEADER.size
        while True:
            written = os.writev(self.control, parts)
            left -= written
            if not left:
                break
            while written:  # a large reply goes in pieces
                if written >= len(parts[0]):
                    written -= len(parts.pop(0))
                else:
                    parts[0] = memoryview(parts[0])[written:]
                    written = 0
        for section in sections:
            section.release()

    def serve(self) -> None:
        """Fork, watch, report, clean; until the trainer is gone."""
        self.buffers = (Buffer(), Buffer(), Buffer())  # not before: the keeper's fork would have left them behind
        self.send("hello", self.layers, sys.version.split()[0])
        while self._one():
            pass

    def _one(self) -> bool:
        pipes = [os.pipe() for _ in range(3)]
        pid = os.fork()
        if not pid:
            self._child([write for _, write in pipes])
        for _, write in pipes:
            os.close(write)
        readers = [read for read, _ in pipes]
        watch = Watch(self, pid, readers)
        try:
            there = watch.run()
        finally:
            for read in readers:
                os.close(read)
        if not there:
            return False
        self._clean()
        return watch.reply()

    def kill(self, pid: int) -> None:
        """Kill the child and everything that came from it."""
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        if not self.alone:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)

    def sweep(self) -> None:
        """Whatever else lives in this pid namespace came from the program, however it hid itself."""
        if self.alone:
            with contextlib.suppress(OSError):
                os.kill(-1, signal.SIGKILL)
        with contextlib.suppress(OSError):
            while True:
                os.waitpid(-1, 0)

    def _clean(self) -> None:
        with contextlib.suppress(OSError):
            if os.listdir(self.box):
                clean(self.box)

    # --------------------------------------------------------------------------------------------------- child

    def _child(self, writers: list[int]) -> None:
        try:
            self._confine(writers)
            job = self._read_job()
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(child.RESULT_FD, b"E" + repr(error).encode()[:500])
            os._exit(70)
        child.work(job)
        os._exit(0)

    def _confine(self, writers: list[int]) -> None:
        if confine.LINUX and not self.alone:
            confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.setsid()
        for number in _IGNORED:
            signal.signal(number, signal.SIG_DFL)
        output, errors, result = writers
        high = os.dup2(result, 20, inheritable=False)  # the pipes have small numbers, like the places they go to
        os.dup2(output, 1)
        os.dup2(errors, 2)
        os.dup2(high, child.RESULT_FD, inheritable=False)
        if self.uid is not None:
            confine.drop_uid(self.uid)
            confine.drop_capabilities()
            confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of credentials resets it
        if self.ruleset >= 0:
            confine.landlock_restrict(self.ruleset)
        os.closerange(4, self.control)
        os.closerange(self.control + 1, 64)
        if self.filter is not None:
            setrlimit("NPROC", 128)  # threads; new processes are denied by the filter
            self.filter.install()
        elif self.level != "off":
            setrlimit("NPROC", 0)

    def _read_job(self) -> bytes:
        header = self._read(_LIMITS.size + _HEADER.size)
        limits = _LIMITS.unpack_from(header)
        cpu, memory = limits[1:3]
        (length,) = _HEADER.unpack_from(header, _LIMITS.size)
        job = self._read(length)
        os.close(self.control)
        os.write(child.RESULT_FD, _START.pack(b"S", *limits, time.monotonic()))
        seconds = max(1, math.ceil(cpu))
        setrlimit("CPU", seconds, seconds + 1)
        if confine.LINUX:
            setrlimit("AS", self.baseline + memory)
        return job

    def _read(self, length: int) -> bytes:
        parts = bytearray()
        while len(parts) < length:
            piece = os.read(self.control, min(length - len(parts), 1 << 20))
            if not piece:
                os._exit(0)  # the trainer is gone
            parts += piece
        return bytes(parts)


class Watch:
    """Watches one child from fork to burial. Pipes are read up to their caps, and never waited for after its death."""

    def __init__(self, slot: Slot, pid: int, readers: list[int]) -> None:
        self.slot = slot
        self.pid = pid
        self.readers = readers
        self.buffers = dict(zip(readers, slot.buffers, strict=True))
        self.result_fd = readers[2]
        self.result = slot.buffers[2]
        for buffer in slot.buffers:
            buffer.clear()
        self.limits: list[Any] | None = None
        self.started = self.ended = 0.0
        self.cpu = 0.0
        self.poll = select.poll()
        self.verdict = ""
        self.detail = ""
        self.status: int | None = None
        self.usage: Any = None
        self.killed = False

    def run(self) -> bool:
        """Watch until the child is dead and buried. False when the trainer is gone."""
        slot, pidfd = self.slot, -1
        self.poll.register(slot.control, getattr(select, "POLLRDHUP", 0))  # what arrives there belongs to the child
        if slot.trainer_fd >= 0:
            self.poll.register(slot.trainer_fd, select.POLLIN)
        for fd in self.readers:
            os.set_blocking(fd, False)
            self.poll.register(fd, select.POLLIN)
        with contextlib.suppress(AttributeError, OSError):
            pidfd = os.pidfd_open(self.pid)
            self.poll.register(pidfd, select.POLLIN)
        try:
            while not self.verdict:
                events = self.poll.poll(self._patience() * 1000)
                for fd, _ in events:
                    if fd in self.buffers:
                        self._take(fd)
                    elif fd == pidfd:
                        self.verdict = self.verdict or "ended"
                    else:
                        slot.kill(self.pid)
                        slot.sweep()
                        return False
                if not self.verdict and (not events or self.limits is not None):
                    self._look()
            self.ended = time.monotonic()
            if self.verdict != "ended":
                # Dead already? Then its own end is the story, not our signal.
                self.killed = True
                slot.kill(self.pid)
            _, self.status, self.usage = os.wait4(self.pid, 0)
            if not slot.alone:
                slot.kill(self.pid)  # its process group may outlive it
            slot.sweep()
            for fd in self.readers:
                self._take(fd, last=True)
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        return True

    def _patience(self) -> float:
        if self.limits is None:
            return _IDLE_TICK
        wall, cpu = self.limits[0], self.limits[1]
        return max(0.001, min(_TICK, self.started + wall - time.monotonic(), cpu - self.cpu + 0.001))

    def _look(self) -> None:
        """Deadlines, memory where no limit of the system holds it, and deaths that no pidfd reports."""
        if self.limits is None:
            if os.getppid() == 1 and self.slot.trainer_fd < 0 and not self.slot.alone:
                self.slot.kill(self.pid)
                os._exit(0)
            return
        wall, cpu, memory = self.limits[:3]
        now = time.monotonic()
        self._measure()
        if now - self.started >= wall:
            # On a busy machine a spinning program gets less than a whole core.
            self.verdict, self.detail = "timeout", "cpu" if self.cpu >= 0.25 * wall else "wall"
        elif self.cpu >= cpu:
            self.verdict, self.detail = "timeout", "cpu"
        elif confine.DARWIN and confine.footprint(self.pid)[0] > memory:
            self.verdict, self.detail = "memory", f"over {memory >> 20} MB"
        elif not hasattr(os, "pidfd_open"):
            with contextlib.suppress(AttributeError, OSError):
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    self.verdict = "ended"

    def _measure(self) -> None:
        with contextlib.suppress(OSError):
            if confine.LINUX:
                self.cpu = time.clock_gettime((~self.pid << 3) | 2)  # clock_getcpuclockid(3)
            elif confine.DARWIN:
                self.cpu = confine.footprint(self.pid)[1]

    def _cap(self, fd: int) -> int:
        if self.limits is None:
            return 1 << 16
        return int(self.limits[4]) + (1 << 16) if fd == self.result_fd else int(self.limits[3])

    def _take(self, fd: int, last: bool = False) -> None:
        buffer = self.buffers[fd]
        try:
            while True:
                cap = self._cap(fd)
                if buffer.fill > cap:
                    if not self.verdict or self.verdict == "ended":
                        self.verdict = "bad-result" if fd == self.result_fd else "output-limit"
                        self.detail = f"over {cap} bytes"
                    return
                if not buffer.read(fd, cap):
                    break
                if fd == self.result_fd and self.limits is None and buffer.fill >= _START.size:
                    if buffer.view(0, 1) == b"S":  # written before the program runs, in one piece
                        _, *self.limits, self.started = _START.unpack(buffer.view(0, _START.size))
        except BlockingIOError:
            pass
        except OSError:
            pass
        else:
            if not last:
                self.poll.unregister(fd)
        if fd == self.result_fd and not last and not self.verdict and self._complete():
            self.verdict = "frame"

    def _complete(self) -> bool:
        start = _START.size + _HEADER.size
        if self.limits is None or self.result.fill < start:
            return False
        (length,) = _HEADER.unpack(self.result.view(start - _HEADER.size, start))
        return self.result.fill >= start + length

    def reply(self) -> bool:
        """Tell the trainer. False when this slot can no longer be relied on."""
        slot, status = self.slot, self.status
        assert status is not None
        if self.limits is None:
            why = bytes(self.result.view(0, 500)).decode("utf-8", "replace") or f"wait status {status}"
            slot.send("lost", f"the child ended before its program: {why}")
            return False
        verdict, detail = self.verdict, self.detail
        if verdict == "ended":
            if self._complete():
                verdict = "frame"
            elif os.WIFSIGNALED(status):
                verdict, detail = self._signalled(os.WTERMSIG(status))
            else:
                verdict, detail = "exited-early", f"exit code {os.WEXITSTATUS(status)}"
        slot.send(
            "done",
            verdict,
            detail,
            self.ended - self.started,
            self.usage.ru_utime + self.usage.ru_stime,
            self.usage.ru_maxrss * (1 if confine.DARWIN else 1024),
            sections=(
                self.result.view(_START.size + _HEADER.size) if verdict == "frame" else self.result.view(0, 0),
                slot.buffers[0].view(0, self.limits[3]),
                slot.buffers[1].view(0, self.limits[3]),
            ),
        )
        return True

    def _signalled(self, number: int) -> tuple[str, str]:
        assert self.limits is not None
        used = self.usage.ru_utime + self.usage.ru_stime
        if number == signal.SIGXCPU or (number == signal.SIGKILL and used >= self.limits[1]):
            return "timeout", "cpu"
        if number == getattr(signal, "SIGSYS", -1):
            return "forbidden", "system call"
        if number == signal.SIGXFSZ:
            return "output-limit", "file size"
        try:
            return "killed", signal.Signals(number).name
        except ValueError:
            return "killed", f"signal {number}"


def _closed_to_others(path: str) -> str:
    """The first folder above `path` that other users may not pass, or nothing."""
    path = os.path.dirname(os.path.realpath(path))
    while path != "/":
        if not os.stat(path).st_mode & 0o001:
            return path
        path = os.path.dirname(path)
    return ""


def clean(box: str, budget: int = 20000) -> None:
    """Empty the box without following a link, without recursion, and without trusting any mode. Raises OSError."""
    root = os.open(box, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for name in os.listdir(root):
            _remove(root, name, budget)
    finally:
        os.close(root)


def _remove(parent: int, name: str, budget: int) -> None:
    # Folders are lifted to the top one by one, so that their depth costs neither stack nor descriptors.
    waiting = [name]
    serial = 0
    while waiting and budget > 0:
        top = waiting.pop()
        budget -= 1
        try:
            os.unlink(top, dir_fd=parent)
            continue
        except (IsADirectoryError, PermissionError):
            pass
        except FileNotFoundError:
            continue
        with contextlib.suppress(OSError, NotImplementedError):
            os.chmod(top, 0o700, dir_fd=parent)
        folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            for inner in os.listdir(folder):
                budget -= 1
                try:
                    os.unlink(inner, dir_fd=folder)
                except OSError:
                    serial += 1
                    lifted = f".lifted-{os.getpid()}-{serial}-{time.monotonic_ns()}"
                    os.rename(inner, lifted, src_dir_fd=folder, dst_dir_fd=parent)
                    waiting.append(lifted)
        finally:
            os.close(folder)
        os.rmdir(top, dir_fd=parent)


def main() -> None:
    slot = Slot(json.loads(sys.argv[1]))
    sys.argv[:] = [""]
    for number in _IGNORED:
        # A Ctrl-C belongs to the trainer; it ends us by closing the socket.
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    try:
        slot.start()
        slot.serve()
    except (BrokenPipeError, ConnectionError):
        pass


if __name__ == "__main__":
    main()
