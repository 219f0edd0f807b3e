"""One slot: an exec'd, warm, clean interpreter that forks one confined child for every program.

Started by pool.py as `python -s -P -S zygote.py JSON` with a socket as standard input. It never reads a program:
the child that will run it takes it from the socket itself, so nothing of one program is ever in the memory that the
next one is forked from. What comes back passes through buffers that Linux does not copy on fork (MADV_DONTFORK).

    trainer --socket--> keeper --(new pid namespace)--> zygote --fork--> child 1, child 2, ...

The next child is forked and confined before its job arrives, so that an idle slot answers at once.
Replies go back on the same socket: a header of fixed size (wire.REPLY), then four sections: a text, what the child
wrote to its result pipe, its stdout, its stderr.

Descriptors: 0 /dev/null, 1 to 3 stdout, stderr and result pipe (the ends that children write to), 4 the socket,
above that what no child keeps.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import math
import mmap
import os
import resource
import select
import signal
import stat
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

from azr_mlx.executor import child, confine, wire

_TICK = 0.05  # seconds between looks at a child that gives no sign
_IDLE_TICK = 1.0
_MAXRSS = 1 if confine.DARWIN else 1024  # bytes of one unit of ru_maxrss
_GETPIPE_SZ = 1032  # F_GETPIPE_SZ of Linux; the only place where pipes are used twice
# What programs import most. Not more: the tables of every page here are copied for every program. `random` would
# reseed itself in every child; dataclasses alone (through inspect) is as large as the rest together.
_PRELOAD = """
abc bisect cmath collections collections.abc copy enum functools heapq itertools math operator re string typing
""".split()  # noqa: SIM905


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
        self.baseline = 0
        self.buffers: tuple[Buffer, ...] = ()
        self.readers: list[int] = []
        self.poll = select.poll()
        self.spoiled = False  # something may be left in a pipe
        self.on_tmpfs = False
        self.empty_size = 0
        self.pipe_size = 0
        self.above: list[int] = []
        self.names: list[str] = []

    # ------------------------------------------------------------------------------------------------- start

    def start(self) -> None:
        """Prepare this process; in a pid namespace only its first child returns from here."""
        os.set_inheritable(0, False)
        os.dup2(0, 9, inheritable=False)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2, 3, wire.CONTROL_FD):
            if fd != null:
                os.dup2(null, fd, inheritable=False)
        os.dup2(9, wire.CONTROL_FD, inheritable=False)
        os.closerange(wire.CONTROL_FD + 1, 4096)
        with contextlib.suppress(AttributeError, OSError):
            self.trainer_fd = os.pidfd_open(os.getppid())
        with contextlib.suppress(OSError):
            os.setsid()  # a Ctrl-C belongs to the trainer; it ends us by closing the socket
        # Inside a pid namespace its init is safe from signals, except those that it has a handler for.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
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
        # Held open, since the way to them by name is cut off; whoever ends last removes the box by them.
        folder = os.path.dirname(self.box)
        self.above = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (folder, os.path.dirname(folder))]
        self.names = [os.path.basename(self.box), os.path.basename(folder)]
        if self.level != "off":
            if confine.LINUX:
                self._linux()
            elif confine.DARWIN:
                self.layers["seatbelt"] = self.settings.get("seatbelt", "no sandbox-exec")
        os.chdir(self.box)
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
            for above in self.above:
                os.close(above)  # a way out of the root to come
            self.above = []
            outside = self.box
            if self._try("root", lambda: confine.new_root(outside, self.settings["read"])):
                self.box = "/box"
                os.environ.update(HOME="/box", TMPDIR="/box")
                self.on_tmpfs, self.empty_size = True, os.stat("/box").st_size
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
            read = [
                *confine.readable_paths(self.settings["read"]),
                "/dev/null",
                "/dev/zero",
                "/dev/urandom",
                "/dev/random",
            ]
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
        os.closerange(3, min(self.above))
        os.closerange(max(self.above) + 1, 64)
        with contextlib.suppress(OSError):
            os.waitpid(first, 0)
        self.remove_box()
        os._exit(0)

    def remove_box(self) -> None:
        """Remove the box's folder, and the executor's if it was the last: a trainer that was killed cannot."""
        for name, above in zip(self.names, self.above, strict=True):
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=above)

    # -------------------------------------------------------------------------------------------------- serve

    def send(self, verdict: int, text: str, numbers: tuple[float, float, int], sections: list[memoryview]) -> None:
        """One reply. Raises BrokenPipeError when the trainer is gone."""
        note = text[:1000].encode("utf-8", "backslashreplace")
        lengths = [len(section) for section in sections]
        parts: list[bytes | memoryview] = [wire.REPLY.pack(verdict, *numbers, len(note), *lengths), note, *sections]
        left = wire.REPLY.size + len(note) + sum(lengths)
        while True:
            written = os.writev(wire.CONTROL_FD, parts)
            left -= written
            if not left:
                return
            while written:  # a large reply goes in pieces
                if written >= len(parts[0]):
                    written -= len(parts.pop(0))
                else:
                    parts[0] = memoryview(parts[0])[written:]
                    written = 0

    def serve(self) -> None:
        """Fork, watch, report, clean; until the trainer is gone."""
        self.buffers = (Buffer(), Buffer(), Buffer())  # not before: the keeper's fork would have left them behind
        nothing = memoryview(b"")
        self.send(wire.HELLO, json.dumps(self.layers), (0.0, 0.0, 0), [nothing] * 3)
        self.poll.register(wire.CONTROL_FD, getattr(select, "POLLRDHUP", 0))  # what arrives there belongs to the child
        if self.trainer_fd >= 0:
            self.poll.register(self.trainer_fd, select.POLLIN)
        while True:
            if not self.alone or self.spoiled or not self.readers or self._tampered():
                self._pipes()
            pid = os.fork()
            if not pid:
                self._child()
            watch = Watch(self, pid)
            if not watch.run():
                return
            clean_again = self._clean()
            if not watch.reply() or not clean_again:
                return  # the trainer starts another slot, with a box of its own

    def _tampered(self) -> bool:
        """Whether the last program changed what it shared with the next: the state of the pipes."""
        for place in (1, 2, wire.RESULT_FD):
            if fcntl.fcntl(place, fcntl.F_GETFL) != os.O_WRONLY or fcntl.fcntl(place, _GETPIPE_SZ) != self.pipe_size:
                return True
        return False

    def _pipes(self) -> None:
        """Fresh pipes. Alone in a namespace all that ever wrote to the old ones is dead, and they are used again."""
        for fd in self.readers:
            with contextlib.suppress(KeyError):
                self.poll.unregister(fd)
            os.close(fd)
        self.readers = []
        self.spoiled = False
        for place in (1, 2, wire.RESULT_FD):
            read, write = os.pipe()
            os.dup2(write, place, inheritable=False)
            os.close(write)
            os.set_blocking(read, False)
            self.poll.register(read, select.POLLIN)
            self.readers.append(read)
        if self.alone:
            self.pipe_size = fcntl.fcntl(1, _GETPIPE_SZ)

    def kill(self, pid: int) -> None:
        """Kill the child and everything that came from it."""
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        if not self.alone:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)

    def sweep(self) -> None:
        """Whatever else lives in this pid namespace came from the program, however it hid itself."""
        if self.filter is not None:
            return  # no program can have made a process
        try:
            if self.alone:
                os.kill(-1, signal.SIGKILL)
        except OSError:
            pass
        try:
            while True:
                os.waitpid(-1, 0)
        except OSError:
            pass

    def _clean(self) -> bool:
        """Empty the box. False when something in it could not be removed."""
        try:
            state = os.stat(self.box)
            if state.st_mode & 0o7777 != 0o700:
                os.chmod(self.box, 0o700)
            # The size of a folder on tmpfs counts its entries; elsewhere it says little.
            if state.st_size != self.empty_size or not self.on_tmpfs:
                clean(self.box)
                return not os.listdir(self.box)
            return True
        except OSError:
            return False

    # --------------------------------------------------------------------------------------------------- child

    def _child(self) -> None:
        try:
            self._confine()
            job = self._read_job()
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(wire.RESULT_FD, b"E" + repr(error).encode()[:500])
            os._exit(70)
        child.work(job)
        os._exit(0)

    def _confine(self) -> None:
        if not self.alone:
            if confine.LINUX:
                confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
            with contextlib.suppress(OSError):
                os.setsid()
            if self.uid is not None:
                confine.drop_uid(self.uid)
                confine.drop_capabilities()
                confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of credentials resets it
            if self.ruleset >= 0:
                confine.landlock_restrict(self.ruleset)
            if self.level != "off":
                setrlimit("NPROC", 0 if self.filter is None else 128)  # 128 threads, as new processes are denied
        os.closerange(wire.CONTROL_FD + 1, 64)
        if self.filter is not None:
            self.filter.install()

    def _read_job(self) -> bytes:
        data = os.read(wire.CONTROL_FD, 1 << 18)
        while len(data) < wire.JOB.size or len(data) < wire.JOB.size + wire.JOB.unpack_from(data)[-1]:
            piece = os.read(wire.CONTROL_FD, 1 << 20)
            if not piece:
                os._exit(0)  # the trainer is gone
            data += piece
        wall, cpu, memory, output, result, _ = wire.JOB.unpack_from(data)
        os.close(wire.CONTROL_FD)
        os.write(wire.RESULT_FD, wire.START.pack(wire.START_MARK, wall, cpu, memory, output, result, time.monotonic()))
        seconds = max(1, math.ceil(cpu))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        if confine.LINUX:
            resource.setrlimit(resource.RLIMIT_AS, (self.baseline + memory, self.baseline + memory))
        return data[wire.JOB.size :]


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
        self.verdict = 0
        self.detail = ""
        self.status = 0
        self.usage: Any = None

    def run(self) -> bool:
        """Watch until the child is dead and buried. False when the trainer is gone."""
        slot, readers, poll = self.slot, self.readers, self.slot.poll
        turn = 0
        pidfd = _pidfd(self.pid)
        if pidfd >= 0:
            poll.register(pidfd, select.POLLIN)
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
                    elif fd == pidfd:
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
            if pidfd >= 0:
                poll.unregister(pidfd)
                os.close(pidfd)
        self.ended = time.monotonic()
        if self.verdict != wire.ENDED:
            slot.kill(self.pid)
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
        """Deadlines, memory where no limit of the system holds it, and deaths that no pidfd reports."""
        if self.limits is None:
            if os.getppid() == 1 and self.slot.trainer_fd < 0 and not self.slot.alone:
                self.slot.kill(self.pid)
                os._exit(0)
            return
        wall, cpu, memory = self.limits[:3]
        late = time.monotonic() - self.started >= wall
        try:
            if confine.LINUX:
                self.cpu = time.clock_gettime((~self.pid << 3) | 2)  # clock_getcpuclockid(3)
            elif confine.DARWIN:
                size, self.cpu = confine.footprint(self.pid)
                if size > memory:
                    self.verdict, self.detail = wire.MEMORY, f"over {memory >> 20} MB"
                    return
        except OSError:
            pass
        if late:
            # On a busy machine a spinning program gets less than a whole core.
            self.verdict, self.detail = wire.TIMEOUT, "cpu" if self.cpu >= 0.25 * wall else "wall"
        elif self.cpu >= cpu:
            self.verdict, self.detail = wire.TIMEOUT, "cpu"
        elif not hasattr(os, "pidfd_open"):
            with contextlib.suppress(AttributeError, OSError):
                if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                    self.verdict = wire.ENDED

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
            self.slot.spoiled = True
            return False
        if buffer.fill > cap and (
            not self.verdict or self.verdict == wire.ENDED or (self.verdict == wire.FRAME and not is_result)
        ):
            self.verdict = wire.BAD_RESULT if is_result else wire.OUTPUT
            self.detail = f"over {cap} bytes"
            self.slot.spoiled = True
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


def _pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


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
        _open_up(top, parent)
        folder = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            for inner in os.listdir(folder):
                budget -= 1
                try:
                    os.unlink(inner, dir_fd=folder)
                except OSError:
                    # A folder that moves has its own ".." rewritten, so it must be writable itself.
                    _open_up(inner, folder)
                    serial += 1
                    lifted = f".lifted-{os.getpid()}-{serial}-{time.monotonic_ns()}"
                    os.rename(inner, lifted, src_dir_fd=folder, dst_dir_fd=parent)
                    waiting.append(lifted)
        finally:
            os.close(folder)
        os.rmdir(top, dir_fd=parent)


def _open_up(name: str, parent: int) -> None:
    """Make a folder passable. chmod follows links, hence the look first; nobody is left who could swap the two."""
    with contextlib.suppress(OSError, NotImplementedError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.chmod(name, 0o700, dir_fd=parent)


def main() -> None:
    slot = Slot(json.loads(sys.argv[1]))
    sys.argv[:] = [""]
    try:
        slot.start()
        slot.serve()
    except (BrokenPipeError, ConnectionError):
        pass
    if not slot.alone:
        slot.remove_box()


if __name__ == "__main__":
    main()
