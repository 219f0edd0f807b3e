"""A Mac for the executor, on Linux: what macOS lacks is taken away, what it has is emulated, Seatbelt is evaluated.

Run in place of a zygote, as `python mac.py OPTIONS zygote.py SETTINGS`; also imported by tests, for `Mac` and `replay`.

- `os`, `select`, `mmap`, `signal`, `time` and `resource` lose what macOS does not have: waitid, pidfd_open, memfd,
  sched_getaffinity, prctl, unshare, extended attributes by name, POLLRDHUP, MADV_DONTFORK, RLIMIT_AS that holds; /proc
  is not there; poll() without events notices nothing; ru_maxrss counts bytes.
- libc has proc_pid_rusage, sysctl, minherit and sandbox_init_with_parameters. Once a profile has been entered, every
  access that Python's audit hooks show is judged by tests/executor/profile_language.py, and refused with EPERM.
- RLIMIT_NPROC 0 denies fork, as it does to every user but root on macOS.

What the interpreter does below Python (dlopen, time zones, page faults) is not seen: this is a test of our code against
our reading of Apple's rules, not of macOS.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib
import importlib.util
import json
import os
import resource
import runpy
import select
import stat
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
MISSING = {
    "os": """waitid pidfd_open memfd_create sched_getaffinity sched_setaffinity setresuid setresgid getresuid getresgid
        setxattr getxattr listxattr removexattr posix_fallocate unshare setns eventfd splice pipe2 O_PATH P_PIDFD
        copy_file_range fdatasync""",
    "select": "POLLRDHUP epoll EPOLLIN",
    "mmap": "MADV_DONTFORK MADV_DOFORK MADV_HUGEPAGE",
    "signal": "pidfd_send_signal sigtimedwait sigwaitinfo SIGSTKFLT SIGPWR SIGPOLL",
    "fcntl": "F_SETSIG F_GETSIG F_SETPIPE_SZ F_GETPIPE_SZ F_ADD_SEALS F_SETOWN_EX",
    "time": "CLOCK_BOOTTIME CLOCK_TAI pthread_getcpuclockid",
    "resource": "prlimit RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_RTPRIO RLIMIT_RTTIME RLIMIT_SIGPENDING",
}
SANDBOX_EXEC = "/usr/bin/sandbox-exec"
JUDGED_IN_LIBC = {
    "fork": "process-fork", "vfork": "process-fork", "ptrace": "mach-priv-task-port", "shmget": "ipc-sysv-shm",
    "semget": "ipc-sysv-sem", "msgget": "ipc-sysv-msg",
}  # fmt: skip
EMULATED_IN_LIBC = {
    "sandbox_init_with_parameters", "proc_pid_rusage", "proc_pidinfo", "mach_timebase_info", "sysctl", "minherit",
}  # fmt: skip
NOT_IN_LIBC = {"prctl", "unshare", "capset", "syscall", "mount", "umount2"}


class Mac:
    """The emulation in one process, and in what it forks.

    options: log (a file that every access is appended to, as a line of JSON); refuse (what the sandbox says instead
    of letting the process in); entry (False: no sandbox_init_with_parameters); usage (False: proc_pid_rusage is
    refused); unknown (a word that this system's compiler does not know); children (False: the scope `children`
    reaches nobody); deadly (True: entering ends the process); hangs (True: it never returns); patience (seconds that
    a rehearsal may take); narrow (True: a sandbox under which nothing can be read); wrapper (True: there is a
    sandbox-exec); entered (profile and parameters that hold from the first instruction, as under one).
    """

    def __init__(self, options: dict[str, Any], language: Any) -> None:
        self.options = options
        self.language = language
        self.profile: Any = None
        self.busy = False  # inside our own code, which nobody judges
        self.children: set[int] = set()
        self.no_fork = False
        self.open, self.fork, self.readlink, self.stat, self.execv = os.open, os.fork, os.readlink, os.stat, os.execv

    # -- judging --------------------------------------------------------------------------------------------

    def judge(self, operation: str, path: str = "", **about: str) -> None:
        """Log one access; refuse it if the profile does. Raises PermissionError."""
        access = self.language.Access(operation, path, **about)
        allowed = self.profile is None or self.profile.allows(access)
        self.note(
            {"operation": operation, "path": path, "entered": self.profile is not None, "allowed": allowed} | about
        )
        if not allowed:
            raise PermissionError(errno.EPERM, "Operation not permitted", path or about.get("name") or None)

    def note(self, record: dict[str, Any]) -> None:
        if self.options.get("log"):
            busy, self.busy = self.busy, True
            handle = self.open(self.options["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            os.write(handle, json.dumps(record).encode() + b"\n")
            os.close(handle)
            self.busy = busy

    def place(self, path: Any, folder: int = -1) -> str:
        """A real path, with the last part as it is: what Seatbelt sees."""
        if isinstance(path, int):
            return self.readlink(f"/proc/self/fd/{path}")
        text = os.fsdecode(path)
        if not text.startswith("/"):
            above = self.readlink(f"/proc/self/fd/{folder}") if folder is not None and folder >= 0 else os.getcwd()
            text = f"{above}/{text}"
        head, tail = os.path.split(os.path.normpath(text))
        return os.path.join(os.path.realpath(head), tail)

    def target(self, pid: int) -> str:
        if pid in (0, os.getpid()):
            return "self"
        if abs(pid) in self.children and self.options.get("children", True):
            return "child"
        if abs(pid) in self.children:
            return "same-sandbox"
        return "parent" if pid == os.getppid() else "others"

    def audited(self, event: str, given: tuple[Any, ...]) -> None:
        """Python's own audit hook: every event of the interpreter, of which few are accesses."""
        judge = self.JUDGES.get(event)
        if judge is None or self.busy:
            return
        self.busy = True
        try:
            judge(self, *given)
        finally:
            self.busy = False

    def kind(self, path: str) -> str:
        with contextlib.suppress(OSError):
            mode = self.stat(path).st_mode
            return "DIRECTORY" if stat.S_ISDIR(mode) else "CHARACTER-DEVICE" if stat.S_ISCHR(mode) else "REGULAR-FILE"
        return "REGULAR-FILE"

    def opened(self, path: Any, mode: Any, flags: int, folder: int = -1) -> None:
        if isinstance(path, int) or path is None:
            return
        where = os.path.realpath(self.place(path, folder))
        kind = self.kind(where)
        if flags & os.O_CREAT and not os.path.lexists(where):
            self.judge("file-write-create", where)
        if flags & os.O_ACCMODE != os.O_WRONLY:
            self.judge("file-read-data", where, kind=kind)
        if flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_TRUNC:
            self.judge("file-write-data", where, kind=kind)

    def forked(self) -> None:
        self.judge("process-fork")
        if self.no_fork:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def renamed(self, source: Any, target: Any, from_: int = -1, to: int = -1) -> None:
        self.judge("file-write-unlink", self.place(source, from_))
        self.judge("file-write-create", self.place(target, to))

    def linked(self, source: Any, path: Any, from_: int = -1, to: int = -1) -> None:
        self.judge("file-link", self.place(source, from_))
        self.judge("file-write-create", self.place(path, to))

    def connected(self, socket: Any, address: Any) -> None:
        where = f"unix-socket:{address!s}" if isinstance(address, (str, bytes)) else f"ip:{address[0]}:{address[1]}"
        self.judge("network-outbound", remote=where)

    def made_socket(self, socket: Any, family: int, *rest: Any) -> None:
        import socket as sockets

        self.judge("system-socket", domain=sockets.AddressFamily(family).name if family >= 0 else "AF_INET")

    def looked(self, path: Any, folder: int = -1) -> None:
        if not isinstance(path, int):
            self.judge("file-read-metadata", self.place(path, folder if folder is not None else -1))

    JUDGES: dict[str, Callable[..., None]] = {  # noqa: RUF012  filled in below
    }

    # -- taking away ----------------------------------------------------------------------------------------

    def install(self) -> None:
        """Make this process one of a Mac."""
        for name, words in MISSING.items():
            module = importlib.import_module(name)
            for word in words.split():
                if hasattr(module, word):
                    delattr(module, word)
        sys.platform = "darwin"
        os.open, os.stat, os.lstat = self.wrapped_open(os.open), self.wrapped(os.stat), self.wrapped(os.lstat)  # type: ignore[assignment]
        os.readlink, os.access = self.wrapped(os.readlink), self.wrapped_access(self.wrapped(os.access))
        os.execv = self.wrapped_execv
        if self.options.get("entered"):
            text, given = self.options["entered"]
            self.profile = self.language.Profile.parse(text, given)
        os.fork, os.wait4 = self.fake_fork, self.wrapped_wait4(os.wait4)
        resource.setrlimit = self.wrapped_setrlimit(resource.setrlimit)
        time.clock_gettime = self.wrapped_clock(time.clock_gettime)
        select.poll = Poll
        ctypes.CDLL = lambda *names, **words: Library(self)  # type: ignore[assignment, misc]
        sys.addaudithook(self.audited)

    def hidden(self, path: Any) -> None:
        if isinstance(path, (str, bytes)) and os.fsdecode(path).startswith(("/proc", "/sys/")) and not self.busy:
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    def wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def look(path: Any, *rest: Any, **words: Any) -> Any:
            if not self.busy:
                self.hidden(path)
                self.busy = True
                try:
                    self.looked(path, words.get("dir_fd") if words.get("dir_fd") is not None else -1)
                finally:
                    self.busy = False
            return function(path, *rest, **words)

        return look

    def wrapped_access(self, function: Callable[..., bool]) -> Callable[..., bool]:
        def access(path: Any, mode: int, **words: Any) -> bool:
            if path == SANDBOX_EXEC:
                return bool(self.options.get("wrapper"))
            return function(path, mode, **words)

        return access

    def wrapped_execv(self, path: str, words: list[str]) -> None:
        """`sandbox-exec -p PROFILE -D NAME=VALUE ... COMMAND`: this emulation again, with the profile in force."""
        if path != SANDBOX_EXEC:
            return self.execv(path, words)
        assert words[1] == "-p"
        text, given, rest = words[2], {}, words[3:]
        while rest[0] == "-D":
            name, _, value = rest[1].partition("=")
            given[name] = value
            rest = rest[2:]
        self.note({"operation": "enter", "profile": text, "given": given, "refused": ""})
        options = json.dumps(self.options | {"entered": [text, given]})
        script = next(place for place, word in enumerate(rest) if word.endswith("mac.py"))
        self.busy = True
        return self.execv(rest[0], [*rest[: script + 1], options, *rest[script + 2 :]])

    def wrapped_open(self, function: Callable[..., int]) -> Callable[..., int]:
        def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
            if self.busy:
                return function(path, flags, mode, dir_fd=dir_fd)
            self.hidden(path)
            self.busy = True
            try:
                self.opened(path, None, flags, -1 if dir_fd is None else dir_fd)
                return function(path, flags, mode, dir_fd=dir_fd)
            finally:
                self.busy = False

        return open_

    def fake_fork(self) -> int:
        pid = self.fork()
        if pid:
            self.children.add(pid)
        else:
            self.children = set()
        return pid

    def wrapped_wait4(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def wait4(pid: int, options: int) -> Any:
            found, status, usage = function(pid, options)
            values = list(usage)
            values[2] *= 1024
            return found, status, resource.struct_rusage(values)

        return wait4

    def wrapped_setrlimit(self, function: Callable[..., None]) -> Callable[..., None]:
        def setrlimit(number: int, limits: tuple[int, int]) -> None:
            if number in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
                raise ValueError("current limit exceeds maximum limit")
            if number == resource.RLIMIT_NPROC:
                self.no_fork = limits[0] == 0
                return
            function(number, limits)

        return setrlimit

    def wrapped_clock(self, function: Callable[[int], float]) -> Callable[[int], float]:
        def clock_gettime(number: int) -> float:
            if number < 0:
                raise OSError(errno.EINVAL, "Invalid argument")
            return function(number)

        return clock_gettime

    # -- libc -----------------------------------------------------------------------------------------------

    def sandbox_init_with_parameters(self, text: bytes, flags: int, parameters: Any, said: Any) -> int:
        refused = self.options.get("refuse", "")
        given = [word.decode() for word in parameters if word is not None]
        values = dict(zip(given[::2], given[1::2], strict=True))
        profile = None
        if self.options.get("unknown") and self.options["unknown"] in text.decode():
            refused = f"unbound variable: {self.options['unknown']}"
        if self.options.get("deadly"):
            os._exit(9)
        if self.options.get("hangs"):
            time.sleep(600)
        if not refused:
            try:
                profile = self.language.Profile.parse(text.decode(), values)
            except ValueError as error:
                refused = str(error)
        if self.profile is not None:
            refused = "Operation not permitted"  # no sandbox in a sandbox
        self.note({"operation": "enter", "profile": text.decode(), "given": values, "refused": refused})
        if refused:
            said._obj.value = refused.encode()
            return -1
        self.profile = profile
        if self.options.get("narrow"):
            self.profile = self.language.Profile.parse("(version 1)(deny default)(allow process-fork)(allow signal)")
        return 0

    def proc_pid_rusage(self, pid: int, flavour: int, words: Any) -> int:
        self.busy = True
        try:
            try:
                fields = _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
            except OSError:
                ctypes.set_errno(errno.ESRCH)
                return -1
            try:
                if not self.options.get("usage", True):
                    raise PermissionError
                self.judge("process-info-rusage", target=self.target(pid))
            except PermissionError:
                ctypes.set_errno(errno.EPERM)
                return -1
            ticks = os.sysconf("SC_CLK_TCK")
            words._obj[2], words._obj[3] = (int(int(fields[at]) / ticks * 1e9) for at in (11, 12))
            words._obj[9] = int(fields[21]) * resource.getpagesize()
            return 0
        finally:
            self.busy = False

    def proc_pidinfo(self, pid: int, flavour: int, argument: Any, words: Any, size: int) -> int:
        busy, self.busy = self.busy, True
        try:
            self.judge("process-info-pidinfo", target=self.target(pid))
            words._obj[12 + 9] = len(os.listdir(f"/proc/{pid}/task"))
        except OSError:
            return 0
        finally:
            self.busy = busy
        return size

    def mach_timebase_info(self, base: Any) -> int:
        base._obj[0] = base._obj[1] = 1
        return 0

    def sysctl(self, name: Any, count: int, buffer: Any, size: Any, new: Any, length: Any) -> int:
        try:
            self.judge("sysctl-read", name=f"kern.procargs2.{name[2]}" if name[1] == 49 else f"kern.{name[1]}")
        except PermissionError:
            ctypes.set_errno(errno.EPERM)
            return -1
        size._obj.value = 1
        return 0

    def refusing(self, operation: str, **about: str) -> Callable[..., int]:
        """A C function that the profile judges, and that answers -1 with EPERM (or EAGAIN, for a denied fork)."""

        def call(*given: Any) -> int:
            try:
                self.judge(operation, **about)
                number = errno.EAGAIN if self.no_fork else errno.ENOSYS
            except PermissionError:
                number = errno.EPERM
            ctypes.set_errno(number)
            return -1

        return call

    def minherit(self, start: Any, length: Any, how: int) -> int:
        self.note({"operation": "minherit", "path": "", "length": length.value, "how": how})
        return 0 if how == 2 else -1


class Library:
    """libc of a Mac: what it has beside Linux's, without what Linux's has beside it."""

    def __init__(self, mac: Mac) -> None:
        self._mac = mac
        self._real = _CDLL(None, use_errno=True)

    def __getattr__(self, name: str) -> Any:
        if name == "sandbox_init_with_parameters" and not self._mac.options.get("entry", True):
            raise AttributeError(name)
        made = getattr(self._mac, name, None)
        if name in EMULATED_IN_LIBC:
            return Function(made)
        if name in JUDGED_IN_LIBC:
            return Function(self._mac.refusing(JUDGED_IN_LIBC[name]))
        if name in NOT_IN_LIBC:
            raise AttributeError(name)
        return getattr(self._real, name)


class Function:
    """A C function, as far as ctypes' users see one."""

    def __init__(self, body: Any) -> None:
        self.body, self.argtypes, self.restype = body, None, None

    def __call__(self, *given: Any) -> Any:
        return self.body(*given)


class Poll:
    """poll() of XNU: a descriptor without events notices nothing, not even an end."""

    real_poll = staticmethod(select.poll)

    def __init__(self) -> None:
        self.real = self.real_poll()

    def register(self, fd: int, events: int = select.POLLIN) -> None:
        if events:
            self.real.register(fd, events)

    def unregister(self, fd: int) -> None:
        self.real.unregister(fd)

    def poll(self, patience: float | None = None) -> list[tuple[int, int]]:
        return self.real.poll(patience)


_CDLL = ctypes.CDLL


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _file(operation: str) -> Callable[..., None]:
    """An event about one path, which may come with the descriptor of a folder as its last argument."""

    def judge(mac: Mac, path: Any, *rest: Any) -> None:
        folder = rest[-1] if rest and isinstance(rest[-1], int) and operation not in ("file-write-data",) else -1
        mac.judge(operation, mac.place(path, folder))

    return judge


Mac.JUDGES = {
    "open": Mac.opened,
    "os.listdir": lambda mac, path: mac.judge(
        "file-read-data", mac.place("." if path is None else path), kind="DIRECTORY"
    ),
    "os.scandir": lambda mac, path: mac.judge(
        "file-read-data", mac.place("." if path is None else path), kind="DIRECTORY"
    ),
    "os.remove": _file("file-write-unlink"),
    "os.rmdir": _file("file-write-unlink"),
    "os.mkdir": lambda mac, path, mode, folder: mac.judge("file-write-create", mac.place(path, folder)),
    "os.chmod": lambda mac, path, mode, folder: mac.judge("file-write-mode", mac.place(path, folder)),
    "os.chown": lambda mac, path, uid, gid, folder: mac.judge("file-write-owner", mac.place(path, folder)),
    "os.utime": lambda mac, path, times, ns, folder: mac.judge("file-write-times", mac.place(path, folder)),
    "os.truncate": lambda mac, path, length: mac.judge("file-write-data", mac.place(path)),
    "os.chflags": lambda mac, path, flags: mac.judge("file-write-flags", mac.place(path)),
    "os.symlink": lambda mac, source, path, folder: mac.judge("file-write-create", mac.place(path, folder)),
    "os.link": Mac.linked,
    "os.system": lambda mac, command: mac.judge("process-exec", "/bin/sh"),
    "os.rename": Mac.renamed,
    "os.fork": Mac.forked,
    "os.forkpty": Mac.forked,
    "os.exec": lambda mac, path, *rest: mac.judge("process-exec", mac.place(path)),
    "os.posix_spawn": lambda mac, path, *rest: mac.judge("process-exec", mac.place(path)),
    "subprocess.Popen": lambda mac, path, *rest: mac.judge("process-exec", mac.place(path)),
    "os.kill": lambda mac, pid, number: mac.judge("signal", target=mac.target(pid)),
    "os.killpg": lambda mac, pid, number: mac.judge("signal", target=mac.target(pid)),
    "socket.connect": Mac.connected,
    "socket.sendto": Mac.connected,
    "socket.__new__": Mac.made_socket,
    "socket.bind": lambda mac, socket, address: mac.judge("network-bind", remote=f"ip:{address}"),
}


def load_language() -> Any:
    """tests/executor/profile_language.py, by its path: the zygote's interpreter has no other way to it."""
    name = "azr_profile_language"
    spec = importlib.util.spec_from_file_location(name, os.path.join(HERE, "profile_language.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def records(log: str | os.PathLike[str]) -> Iterator[dict[str, Any]]:
    """What a log holds."""
    for line in _read(os.fspath(log)).splitlines():
        yield json.loads(line)


def impatient(folder: str, seconds: float) -> None:
    """Import the zygote's sandbox module as the zygote will, and let its rehearsals take no longer than that."""
    for name, path in (("azr_mlx", os.path.dirname(folder)), ("azr_mlx.executor", folder)):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [path]
    importlib.import_module("azr_mlx.executor.seatbelt")._PATIENCE = seconds  # type: ignore[attr-defined]


def main() -> None:
    options, script, settings = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
    mac = Mac(options, load_language())
    sys.path[0] = os.path.dirname(script)
    sys.argv[:] = [script, settings]
    mac.note({"operation": "exec", "path": sys.executable})
    mac.install()
    if "patience" in options:
        impatient(os.path.dirname(script), options["patience"])
    runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
