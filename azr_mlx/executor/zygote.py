"""One slot: an exec'd, warm, clean interpreter that forks one confined child for every program.

Started by pool.py as `python -s -P -S zygote.py JSON` with a socket as standard input. It never reads a program:
the child that will run it takes it from the socket itself, so nothing of one program is ever in the memory that the
next one is forked from. What comes back passes through a buffer that forks do not copy (MADV_DONTFORK).

    trainer --socket--> keeper --(new pid namespace)--> zygote --fork--> child 1, child 2, ...

Replies are frames on the same socket: length, then an encoded tuple whose first item is "hello", "done" or "lost".
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
import socket
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
_TICK = 0.05  # seconds between looks at a child that gives no sign
_IDLE_TICK = 1.0
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


class Slot:
    """The zygote's side of one slot."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.without = set(settings["without"])
        self.layers: dict[str, str] = {}  # name -> "" when active, else why not
        self.box = settings["box"]
        self.uid: int | None = None
        self.namespaced = False
        self.ruleset = -1
        self.filter = b""
        self.trainer_fd = -1
        self.control = -1
        self.baseline = 0

    # ------------------------------------------------------------------------------------------------- start

    def start(self) -> None:
        """Prepare this process; in a pid namespace only its first child returns from here."""
        self.control = os.dup(0)
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        if null > 2:
            os.close(null)
        if self.control < 10:
            moved = os.dup2(self.control, 10, inheritable=False)
            os.close(self.control)
            self.control = moved
        os.closerange(3, self.control)
        os.closerange(self.control + 1, 1024)
        with contextlib.suppress(AttributeError, OSError):
            self.trainer_fd = os.pidfd_open(os.getppid())
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
        if self.settings["level"] != "off":
            if confine.LINUX:
                self._linux()
            elif confine.DARWIN:
                self.layers["seatbelt"] = self.settings.get("seatbelt", "no sandbox-exec")
        os.chdir(self.box)
        sys.path[:] = [path for path in sys.path if "/" in path]
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
        root = os.geteuid() == 0
        self.namespaced = self._try("namespaces", confine.namespaces)
        if self.namespaced:
            keeper = os.getpid()
            first = os.fork()
            if first:
                self._keep(first)
            confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
            if self.trainer_fd < 0 and os.getppid() not in (0, keeper):
                os._exit(1)
            outside = self.box
            if self._try("root", lambda: confine.new_root(outside, self.settings["read"])):
                self.box = "/box"
                os.environ.update(HOME="/box", TMPDIR="/box")
        if root:
            if self._reachable():
                self._try("uid", lambda: os.chown(self.box, *(confine.FIRST_UID + self.settings["slot"],) * 2))
                if not self.layers["uid"]:
                    self.uid = confine.FIRST_UID + self.settings["slot"]
            else:
                self.layers["uid"] = f"{sys.base_prefix} is closed to other users"
        self._try("landlock", self._prepare_landlock)
        self._try("seccomp", self._prepare_seccomp)

    def _reachable(self) -> bool:
        if self.box == "/box":
            return True
        path = os.path.realpath(sys.base_prefix)
        while path != "/":
            if not os.stat(path).st_mode & 0o001:
                return False
            path = os.path.dirname(path)
        path = os.path.dirname(self.box)
        while path != "/":
            if not os.stat(path).st_mode & 0o001:
                return False
            path = os.path.dirname(path)
        return True

    def _prepare_landlock(self) -> None:
        if self.box == "/box":
            read = ["/"]
        else:
            read = [*confine._readable_paths(self.settings["read"]), "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random"]
        self.ruleset, _ = confine.landlock_ruleset(read, [self.box, "/dev/null"])

    def _prepare_seccomp(self) -> None:
        if not confine.seccomp_supported():
            raise OSError("no table of system calls for this machine")
        self.filter = confine.seccomp_filter()

    def _keep(self, first: int) -> None:
        """The keeper: lives as long as the zygote, and takes it along when it dies."""
        os.close(self.control)
        with contextlib.suppress(OSError):
            os.waitpid(first, 0)
        os._exit(0)

    # -------------------------------------------------------------------------------------------------- serve

    def send(self, *items: Any) -> None:
        body = encode(items, 1 << 31)
        data = memoryview(_HEADER.pack(len(body)) + body)
        while data:
            data = data[os.write(self.control, data) :]

    def serve(self) -> None:
        """Fork, watch, report, clean; until the trainer is gone."""
        self.send("hello", {name: why for name, why in self.layers.items()}, self.box, sys.version.split()[0])
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
        try:
            reply = Watch(self, pid, readers).run()
        finally:
            for read in readers:
                os.close(read)
        if reply is None:
            return False
        self._clean()
        self.send(*reply)
        return reply[0] != "lost"

    def kill(self, pid: int) -> Any:
        """End the child and everything that came from it, and return how it ended: (wait status, rusage)."""
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.killpg(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
        if self.namespaced:
            # Whatever else lives in this pid namespace came from the program, however it hid itself.
            with contextlib.suppress(OSError):
                os.kill(-1, signal.SIGKILL)
            while True:
                try:
                    os.waitpid(-1, 0)
                except OSError:
                    break
        return status, usage

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
        if confine.LINUX:
            confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.setsid()
        output, errors, result = writers
        os.dup2(output, 1)
        os.dup2(errors, 2)
        # The zygote's descriptors are all above 9 once these three are in place.
        if result != child.RESULT_FD:
            os.dup2(result, child.RESULT_FD, inheritable=False)
        confined = confine.LINUX and self.settings["level"] != "off"
        if confined:
            if self.ruleset >= 0 or self.filter or self.uid is not None:
                confine.prctl(confine.PR_SET_NO_NEW_PRIVS, 1)
            if self.uid is not None:
                # capabilities go with the uid, except the bounding set, which no_new_privs makes useless
                confine.drop_uid(self.uid)
            else:
                confine.drop_capabilities()
            confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of credentials resets it
            if self.ruleset >= 0:
                confine.landlock_restrict(self.ruleset)
        keep = {child.RESULT_FD, self.control}
        start = 4
        for fd in sorted(keep - {child.RESULT_FD}):
            os.closerange(start, fd)
            start = fd + 1
        os.closerange(start, 1024)
        setrlimit("CORE", 0)
        setrlimit("NOFILE", 64)
        setrlimit("MEMLOCK", 0)
        setrlimit("MSGQUEUE", 0)
        setrlimit("FSIZE", confine.BOX_BYTES)
        if confined and self.filter:
            setrlimit("NPROC", 64)  # threads; new processes are denied by the filter
            confine.seccomp_install(self.filter)
        elif self.settings["level"] != "off":
            setrlimit("NPROC", 0)

    def _read_job(self) -> bytes:
        header = self._read(_LIMITS.size + _HEADER.size)
        wall, cpu, memory, _, _ = _LIMITS.unpack_from(header)
        (length,) = _HEADER.unpack_from(header, _LIMITS.size)
        job = self._read(length)
        os.close(self.control)
        os.write(child.RESULT_FD, b"S" + header[: _LIMITS.size])
        seconds = max(1, math.ceil(cpu))
        setrlimit("CPU", seconds, seconds + 1)
        if memory and self.settings["level"] != "off" or memory:
            if confine.LINUX:
                setrlimit("AS", self.baseline + memory)
            else:
                setrlimit("AS", memory) or setrlimit("DATA", memory)
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
        self.output_fd, self.error_fd, self.result_fd = readers
        self.output, self.errors, self.result = bytearray(), bytearray(), bytearray()
        self.limits: tuple[Any, ...] | None = None
        self.started = 0.0
        self.poll = select.poll()
        self.verdict = ""
        self.detail = ""
        self.cpu = 0.0

    def run(self) -> tuple[Any, ...] | None:
        """The reply to send, or None when the trainer is gone."""
        slot = self.slot
        pidfd = -1
        hang = getattr(select, "POLLRDHUP", 0)
        self.poll.register(slot.control, hang)  # POLLHUP always counts; the data on it belongs to the child
        for fd in (self.output_fd, self.error_fd, self.result_fd):
            os.set_blocking(fd, False)
            self.poll.register(fd, select.POLLIN)
        if slot.trainer_fd >= 0:
            self.poll.register(slot.trainer_fd, select.POLLIN)
        with contextlib.suppress(AttributeError, OSError):
            pidfd = os.pidfd_open(self.pid)
            self.poll.register(pidfd, select.POLLIN)
        status, usage = None, None
        try:
            while not self.verdict:
                events = self.poll.poll(self._patience() * 1000)
                for fd, event in events:
                    if fd in (slot.control, slot.trainer_fd):
                        slot.kill(self.pid)
                        return None
                    if fd == pidfd:
                        self.verdict = self.verdict or "ended"
                    else:
                        self._take(fd)
                if not self.verdict:
                    self._look()
            ended = time.monotonic()
            if self.verdict == "ended":
                # Leave no doubt about a frame that was written just before the end.
                done, status, usage = os.wait4(self.pid, os.WNOHANG)
            if status is None or not done:
                mine = self.verdict != "ended"
                status, usage = slot.kill(self.pid)
            else:
                mine = False
                if slot.namespaced:
                    slot_pid = self.pid
                    with contextlib.suppress(OSError):
                        os.kill(-1, signal.SIGKILL)
                    while True:
                        try:
                            os.waitpid(-1, 0)
                        except OSError:
                            break
                    del slot_pid
            for fd in (self.output_fd, self.error_fd, self.result_fd):
                self._take(fd, last=True)
        finally:
            if pidfd >= 0:
                os.close(pidfd)
        return self._reply(status, usage, ended, mine)

    def _patience(self) -> float:
        if self.limits is None:
            return _IDLE_TICK
        wall, cpu = self.limits[0], self.limits[1]
        now = time.monotonic()
        return max(0.001, min(_TICK, self.started + wall - now, cpu - self.cpu + 0.001))

    def _look(self) -> None:
        """Deadlines, and the death of children where no pidfd reports it."""
        if self.limits is None:
            return
        wall, cpu = self.limits[0], self.limits[1]
        if time.monotonic() - self.started >= wall:
            self._read_cpu()
            # On a busy machine a spinning program gets less than a whole core.
            self.verdict = "timeout"
            self.detail = "cpu" if self.cpu >= 0.25 * wall else "wall"
            return
        self._read_cpu()
        if self.cpu >= cpu:
            self.verdict, self.detail = "timeout", "cpu"

    def _read_cpu(self) -> None:
        if confine.LINUX:
            with contextlib.suppress(OSError):
                self.cpu = time.clock_gettime((~self.pid << 3) | 2)

    def _take(self, fd: int, last: bool = False) -> None:
        buffer = {self.output_fd: self.output, self.error_fd: self.errors, self.result_fd: self.result}[fd]
        cap = 1 << 16
        if self.limits is not None:
            cap = int(self.limits[4]) + 65536 if fd == self.result_fd else int(self.limits[3])
        while True:
            try:
                piece = os.read(fd, 65536)
            except BlockingIOError:
                break
            except OSError:
                piece = b""
            if not piece:
                if not last:
                    with contextlib.suppress(KeyError):
                        self.poll.unregister(fd)
                break
            buffer += piece
            if fd == self.result_fd and self.limits is None and buffer[:1] == b"S" and len(buffer) > _LIMITS.size:
                self.limits = _LIMITS.unpack_from(buffer, 1)
                self.started = time.monotonic()
                cap = int(self.limits[4]) + 65536
            if len(buffer) > cap:
                del buffer[cap:]
                if not self.verdict or self.verdict == "ended":
                    kind = "output-limit" if fd != self.result_fd else "bad-result"
                    self.verdict, self.detail = kind, f"over {cap} bytes"
                break
        if fd == self.result_fd and not last and not self.verdict and self._frame() is not None:
            self.verdict = "frame"

    def _frame(self) -> bytes | None:
        start = 1 + _LIMITS.size
        if len(self.result) < start + 4:
            return None
        (length,) = _HEADER.unpack_from(self.result, start)
        if len(self.result) < start + 4 + length:
            return None
        return bytes(self.result[start + 4 :])

    def _reply(self, status: Any, usage: Any, ended: float, mine: bool) -> tuple[Any, ...]:
        if self.limits is None:
            why = bytes(self.result[:500]).decode("utf-8", "replace") if self.result else f"wait status {status}"
            return ("lost", f"the child ended before its program: {why}")
        frame = b""
        verdict, detail = self.verdict, self.detail
        if verdict in ("frame", "ended"):
            found = self._frame()
            if found is not None:
                verdict, frame = "frame", found
            elif os.WIFSIGNALED(status) and not mine:
                verdict, detail = self._signalled(os.WTERMSIG(status), usage)
            else:
                code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -1
                verdict, detail = "exited-early", f"exit code {code}"
        scale = 1 if confine.DARWIN else 1024
        return (
            "done",
            verdict,
            detail,
            frame,
            bytes(self.output),
            bytes(self.errors),
            ended - self.started,
            usage.ru_utime + usage.ru_stime,
            usage.ru_maxrss * scale,
        )

    def _signalled(self, number: int, usage: Any) -> tuple[str, str]:
        assert self.limits is not None
        if number == signal.SIGXCPU or (number == signal.SIGKILL and usage.ru_utime + usage.ru_stime >= self.limits[1]):
            return "timeout", "cpu"
        if number == getattr(signal, "SIGSYS", -1):
            return "forbidden", "system call"
        if number == signal.SIGXFSZ:
            return "output-limit", "file size"
        try:
            name = signal.Signals(number).name
        except ValueError:
            name = str(number)
        return "killed", name


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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
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
