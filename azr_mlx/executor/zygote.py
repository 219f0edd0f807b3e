"""One slot: an exec'd, warm, clean interpreter that forks one confined child for every program.

Started by pool.py as `python -s -P -S zygote.py JSON` with a socket as standard input. It never reads a program:
the child that will run it takes it from the socket itself, so nothing of one program is ever in the memory that the
next one is forked from. What comes back passes through buffers that Linux does not copy on fork (MADV_DONTFORK).

    trainer --socket--> keeper --(confinement)--> zygote --fork--> child 1, child 2, ...

The keeper stays outside of what confines the zygote, and ends with it: on Linux as the parent of a new pid namespace,
elsewhere also as the one that ends an orphan, since no other system ends a child together with its parent.

The next child is forked and confined before its job arrives, so that an idle slot answers at once.
Replies go back on the same socket: a header of fixed size (wire.REPLY), then four sections: a text, what the child
wrote to its result pipe, its stdout, its stderr.

Descriptors: 0 /dev/null, 1 to 3 stdout, stderr and result pipe (the ends that children write to), 4 the socket,
above that what no child keeps: first of all the lifeline, a pipe that ends with the trainer.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import os
import resource
import select
import signal
import struct
import sys
import time
import types
from collections.abc import Callable
from typing import Any

if __name__ == "__main__":
    # A bare package of the same name: the front door, and whatever it imports, is never run in here.
    _here = os.path.dirname(os.path.abspath(__file__))
    for _name, _path in (("azr_mlx", os.path.dirname(_here)), ("azr_mlx.executor", _here)):
        _package = types.ModuleType(_name)
        _package.__path__ = [_path]
        sys.modules[_name] = _package

from azr_mlx.executor import child, cleaning, confine, seatbelt, system, trial, wire
from azr_mlx.executor.watch import THREADS, PipeBuffer, Watch

_OTHERS = 1024  # tasks that other programs of the user may start while one of ours runs
_BOX_TIME = 10**18  # of the empty box, ns: the same for every program (9 September 2001)
_PID = struct.Struct("<i")  # of the child that runs, as the keeper is told it; 0 for none
_FAREWELL = 1.0  # seconds that a zygote has to end by itself once the trainer is gone
_FORK_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8)  # seconds between tries while the system is short of processes
# What programs import most. Not more: the tables of every page here are copied for every program. `random` would
# reseed itself in every child; dataclasses alone (through inspect) is as large as the rest together.
_PRELOAD = """
abc bisect cmath collections collections.abc copy enum functools heapq itertools math operator re string typing
""".split()  # noqa: SIM905


class Slot:
    """The zygote's side of one slot."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.without: dict[str, str] = settings["without"]  # layers to do without, and why
        self.layers: dict[str, str] = {}  # name -> "" when active, else why not
        self.box = settings["box"]
        self.level = settings["level"]
        self.uid: int | None = None  # that children still have to change to
        self.alone = False  # init of an own pid namespace: all other processes in it are ours to kill
        self.ruleset = -1  # that children still have to bind themselves to
        self.scoped = False  # landlock keeps signals and abstract sockets inside
        self.own_uid = False  # this slot has a user id that nobody else has
        self.folder = ""  # the executor's, where the box is
        self.filter: confine.Seccomp | None = None
        self.trainer_fd = -1
        self.alive_fd = -1  # ends with a keeper that this process does not end with by itself
        self.keeper_fd = -1  # to tell that keeper which child runs
        self.open: dict[str, str] = {}  # what the layers leave open though they are active
        self.tasks = 0  # processes and threads of the user, where a limit counts them all
        self.counted = 0.0  # when that was
        self.baseline = 0
        self.buffers: tuple[PipeBuffer, ...] = ()
        self.readers: list[int] = []
        self.poll = select.poll()
        self.on_tmpfs = False  # the box is a file system of its own
        self.pristine: tuple[int, ...] = ()
        self.above: list[int] = []
        self.names: list[str] = []

    # ------------------------------------------------------------------------------------------------- start

    def start(self) -> None:
        """Prepare this process; in a pid namespace only its first child returns from here."""
        os.dup2(0, 9, inheritable=False)
        os.dup2(1, 10, inheritable=False)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2, 3, wire.CONTROL_FD):
            if fd != null:
                os.dup2(null, fd, inheritable=False)
        os.dup2(9, wire.CONTROL_FD, inheritable=False)
        os.dup2(10, wire.LIFELINE_FD, inheritable=False)
        os.closerange(wire.LIFELINE_FD + 1, 4096)
        self.trainer_fd = system.exit_handle(self.settings["trainer"])
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
        # (Not inside `sandbox-exec`, which would have to let programs list them too.)
        above = [folder, os.path.dirname(folder)] if not self.settings.get("wrapped") else []
        self.above = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in above]
        self.names = [os.path.basename(self.box), os.path.basename(folder)]
        self.folder = folder
        if self.level != "off" and confine.LINUX:
            self._linux()
        if not confine.LINUX:
            self._leave_keeper()
        os.chdir(self.box)
        self._fresh_box()
        self.pristine = self._box_state()
        for kind, most in (("CORE", 0), ("NOFILE", 64), ("MEMLOCK", 0), ("MSGQUEUE", 0), ("FSIZE", confine.BOX_BYTES)):
            system.limit(kind, most)
        if self.level != "off" and confine.DARWIN:
            self._try("seatbelt", self._seatbelt)
        for name in [name for name in sys.modules if name.split(".")[0] == "azr_mlx"]:
            del sys.modules[name]
        gc.collect()
        gc.disable()
        gc.freeze()

    def _environment(self) -> None:
        # The hash seed is in force already; its variable would tell a program which of its two runs this is.
        os.environ.clear()
        os.environ.update(PATH="/usr/bin:/bin", LANG="C.UTF-8", HOME=self.box, TMPDIR=self.box, OMP_NUM_THREADS="1")
        if not confine.LINUX:  # a new root has no time zone, and programs are to answer the same everywhere
            os.environ["TZ"] = "UTC0"
            time.tzset()

    def _try(self, layer: str, action: Any) -> bool:
        if layer in self.without:
            self.layers[layer] = self.without[layer]
            return False
        try:
            action()
        except (OSError, KeyError, ValueError) as error:
            self.layers[layer] = str(error)
            return False
        self.layers[layer] = ""
        return True

    def _linux(self) -> None:
        uid = confine.FIRST_UID + self.settings["identity"] if os.geteuid() == 0 else None
        self.alone = self._try("namespaces", lambda: self._prove("namespaces", confine.namespaces))
        if self.alone:
            root = self._try("root", lambda: self._prove("root", self._new_root))
            confine.namespaces()
            alive, held = os.pipe()
            first = os.fork()
            if first:
                os.close(alive)
                self._keep(first, held)
            os.close(held)
            confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)
            if select.select([alive], [], [], 0)[0]:
                os._exit(0)  # the keeper was gone before it could be tied to us
            os.close(alive)
            for above in self.above:
                os.close(above)  # a way out of the root to come
            self.above = []
            confine.scatter_pids()
            if root:
                confine.new_root(self.box, self.settings["read"])
                self.box = "/box"
                os.environ.update(HOME="/box", TMPDIR="/box")
                self.on_tmpfs = True
        if uid is not None:
            self._try("uid", lambda: self._leave_root(uid))
        self._try("capabilities", self._leave_capabilities)
        confine.prctl(confine.PR_SET_NO_NEW_PRIVS, 1)
        if self.alone:
            confine.prctl(confine.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of credentials resets it
        self._try("landlock", self._landlock)
        self._try("seccomp", self._seccomp)

    def _prove(self, layer: str, action: Callable[[], object]) -> None:
        """Try what may fail halfway, with no way back, in a process to throw away; once for each executor."""
        if layer not in self.settings["proven"]:
            confine.attempt(action)

    def _new_root(self) -> None:
        confine.namespaces()
        confine.new_root(self.box, self.settings["read"])

    def _leave_root(self, uid: int) -> None:
        closed = "" if self.box == "/box" else _closed_to_others(sys.base_prefix) or _closed_to_others(self.box)
        if closed:
            raise OSError(f"{closed} is closed to other users")
        os.chown(self.box, uid, uid)
        self.own_uid = True
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
        ruleset, version = confine.landlock_ruleset(read, [self.box, "/dev/null"])
        if self.alone:
            confine.landlock_restrict(ruleset)
            os.close(ruleset)
        else:
            self.scoped = version >= 6
            self.ruleset = ruleset  # an own domain for each child keeps its signals from everybody else

    def _seccomp(self) -> None:
        if not confine.seccomp_supported():
            raise OSError("no table of system calls for this machine")
        confine.Seccomp(confine.zygote_filter()).install()
        self.filter = confine.Seccomp(confine.child_filter(self.alone, self.on_tmpfs))

    def _keep(self, first: int, held: int) -> None:
        """The keeper: lives as long as the zygote, and takes it along when it dies."""
        self._hold_only(held)
        with contextlib.suppress(OSError):
            os.waitpid(first, 0)
        self.leave()
        os._exit(0)

    def _hold_only(self, *kept: int) -> None:
        for fd in range(3, 64):
            if fd not in (*kept, *self.above):
                with contextlib.suppress(OSError):
                    os.close(fd)

    def _leave_keeper(self) -> None:
        """Go on in a new process, and leave this one behind as its keeper, where the kernel ends no orphans."""
        alive, held = os.pipe()
        told, keeper = os.pipe()
        first = os.fork()
        if first:
            self._guard(first, held, told)
        os.close(held)
        os.close(told)
        for above in self.above:
            os.close(above)
        self.above = []
        self.alive_fd, self.keeper_fd = alive, keeper

    def _guard(self, first: int, held: int, told: int) -> None:
        """The keeper where nobody else sees to it that zygote, child and box end with the trainer."""
        self._hold_only(held, told, wire.LIFELINE_FD)
        poll = select.poll()
        for fd in (told, wire.LIFELINE_FD):
            poll.register(fd, select.POLLIN)
        running = 0
        patience = None
        while True:
            events = [fd for fd, _ in poll.poll(patience)]
            if told in events:
                said = os.read(told, 64 * _PID.size)
                if not said:
                    break  # the zygote has ended
                (running,) = _PID.unpack(said[-_PID.size :])
            elif wire.LIFELINE_FD in events:
                poll.unregister(wire.LIFELINE_FD)
                os.close(held)  # the zygote sees it, and has a moment to end its child and itself
                patience = _FAREWELL * 1000
            elif patience is not None:
                break
        if running:
            self.kill(running)
        with contextlib.suppress(OSError):
            os.kill(first, signal.SIGKILL)
        with contextlib.suppress(OSError):
            os.waitpid(first, 0)
        self.leave()
        os._exit(0)

    def _tell_keeper(self, pid: int) -> None:
        """Say which child runs, if there is somebody who would have to end it. Raises BrokenPipeError, OSError."""
        if self.keeper_fd >= 0:
            os.write(self.keeper_fd, _PID.pack(pid))

    def _seatbelt(self) -> None:
        """Enter the sandbox of macOS, now that all is imported and opened."""
        if not self.settings.get("wrapped"):
            seatbelt.confine(_sandbox_paths(self.box))

    def trainer_ended(self) -> bool:
        """Whether the trainer is dead, for processes that are its own children; others have the lifeline."""
        return self.keeper_fd < 0 and system.parent_ended(self.settings["trainer"])

    def leave(self) -> None:
        """When the trainer is dead, remove the box, and the executor's folder if this was the last slot.

        A trainer that lives does so itself, and needs the folder for the next slot.
        """
        if not self.above:
            return
        for _ in range(20):  # its descriptors are closed a moment before it counts as dead
            if self.trainer_ended():
                break
            time.sleep(0.01)
        else:
            return
        if not self.alone:
            cleaning.remove(self.box)
        folder, above = self.above
        with contextlib.suppress(OSError):
            os.rmdir(self.names[0], dir_fd=folder)
        with contextlib.suppress(OSError):
            if os.listdir(folder) == [trial.FILE]:
                os.unlink(trial.FILE, dir_fd=folder)
            os.rmdir(self.names[1], dir_fd=above)

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
        self.buffers = (
            PipeBuffer(),
            PipeBuffer(),
            PipeBuffer(),
        )  # not before: the keeper's fork would have left them behind
        if self.level != "off":
            self.open |= self._trial()
        nothing = memoryview(b"")
        hello = json.dumps({"layers": self.layers, "open": self.open})
        self.send(wire.HELLO, hello, (0.0, 0.0, 0), [nothing] * 3)
        for fd in (wire.LIFELINE_FD, self.trainer_fd, self.alive_fd):
            if fd >= 0:
                self.poll.register(fd, select.POLLIN)
        while True:
            self._pipes()
            self._count_tasks()
            pid = self._fork()
            if not pid:
                self._child()
            try:
                self._tell_keeper(pid)
            except OSError:
                self.kill(pid)
                raise
            watch = Watch(self, pid)
            if not watch.run():
                return
            self._tell_keeper(0)
            clean_again = self._fresh_box()
            if not clean_again and not os.path.isdir(self.box):
                # Somebody removed it, perhaps while the program was writing in it: that is no verdict.
                self.send(wire.LOST, "its box is gone", (0.0, 0.0, 0), [nothing] * 3)
                return
            if not watch.reply():
                return  # the trainer starts another slot
            if not clean_again:
                self.send(wire.LOST, "its box cannot be emptied", (0.0, 0.0, 0), [nothing] * 3)
                return

    def _fork(self) -> int:
        """fork, with some patience where the system is short of processes or memory. Raises OSError."""
        for pause in _FORK_PAUSES:
            try:
                return os.fork()
            except OSError:
                time.sleep(pause)
        return os.fork()

    def _trial(self) -> dict[str, str]:
        """Let a confined child do what programs may, and try what they must not.

        Raises RuntimeError when it cannot do the first: a slot under which no program works is none.
        """
        self._pipes()
        self._count_tasks()
        pid = self._fork()
        if not pid:
            try:
                self._confine()
                os.close(wire.CONTROL_FD)
                trial.honest()
                found = trial.attempts(self.folder, self.settings["trainer"], self.settings["private"], self.alone)
                os.write(wire.RESULT_FD, json.dumps(found).encode())
                time.sleep(60)  # until it is killed, or measured before
            except BaseException as error:
                with contextlib.suppress(BaseException):
                    os.write(wire.RESULT_FD, repr(error).encode()[:500])
            os._exit(0)
        ready = select.select([self.readers[2]], [], [], 10)[0]
        said = os.read(self.readers[2], 4096).decode("utf-8", "replace") if ready else "it did not answer"
        if confine.DARWIN:
            self._try("footprint", lambda: system.memory_bytes(pid))
        self.kill(pid)
        os.waitpid(pid, 0)
        self.sweep()
        try:
            worked: dict[str, str] = json.loads(said)
        except ValueError:
            raise RuntimeError(f"the trial child failed: {said}") from None
        if not self._fresh_box():
            raise RuntimeError("the box is not as it was after the trial")
        if confine.LINUX and not self.alone and not self.scoped:
            unscoped = "signals by ways yet unknown, which namespaces or landlock of Linux 6.12 would stop"
            worked["processes"] = ", ".join([*filter(None, [worked.get("processes")]), unscoped])
        return worked

    def _pipes(self) -> None:
        """Fresh pipes and a fresh /dev/null: whatever the last program did to its own is no other's."""
        for fd in self.readers:
            with contextlib.suppress(KeyError):
                self.poll.unregister(fd)
            os.close(fd)
        self.readers = []
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 0, inheritable=False)
        os.close(null)
        for place in (1, 2, wire.RESULT_FD):
            read, write = os.pipe()
            os.dup2(write, place, inheritable=False)
            os.close(write)
            os.set_blocking(read, False)
            self.poll.register(read, select.POLLIN)
            self.readers.append(read)

    def _count_tasks(self) -> None:
        """Now and then count what else the user runs, where the limit on tasks counts that too."""
        if self.filter is None or (self.alone and (self.own_uid or system.counts_tasks_by_namespace())):
            return  # nobody else's, or (no filter) none are allowed
        now = time.monotonic()
        if now - self.counted > 1.0:
            uid = os.geteuid() if self.uid is None else self.uid
            self.tasks, self.counted = system.user_tasks(uid) + _OTHERS, now

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

    def _box_state(self) -> tuple[int, ...]:
        """What a program could change of the box's folder and the next could see."""
        state = os.stat(self.box)
        times = (state.st_atime_ns, state.st_mtime_ns)
        return (state.st_mode, state.st_uid, state.st_gid, state.st_nlink, state.st_size, *times)

    def _fresh_box(self) -> bool:
        """Empty the box and set back what programs can change of it. False when it is not as it was at the start."""
        try:
            state = self._box_state()
            if state == self.pristine:
                return True
            if state[0] & 0o7777 != 0o700:
                os.chmod(self.box, 0o700)
            # The size of a folder on tmpfs counts its entries; elsewhere it says little.
            untouched = self.on_tmpfs and state[3:5] == self.pristine[3:5]
            if not untouched and not cleaning.clean(self.box):
                return False
            os.utime(self.box, ns=(_BOX_TIME, _BOX_TIME))
            return not self.pristine or self._box_state() == self.pristine
        except OSError:
            return False

    # --------------------------------------------------------------------------------------------------- child

    def _child(self) -> None:
        try:
            self._confine()
            run = self._read_job()
        except BaseException as error:
            with contextlib.suppress(BaseException):
                os.write(wire.RESULT_FD, b"E" + repr(error).encode()[:500])
            os._exit(70)
        child.work(run)
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
        if self.level != "off" and not (self.alone and self.filter is None):
            # As new processes are denied these are threads. Where other programs of the user count too, the limit is
            # no more than a backstop, and the watch counts.
            system.limit("NPROC", 0 if self.filter is None else self.tasks + THREADS + 8)
        os.closerange(wire.CONTROL_FD + 1, 64)
        if self.filter is not None:
            self.filter.install()

    def _read_job(self) -> child.Prepared:
        """Take the job from the socket; once this returns, whatever happens is the program's doing."""
        data = os.read(wire.CONTROL_FD, 1 << 18)
        while len(data) < wire.JOB.size or len(data) < wire.JOB.size + wire.JOB.unpack_from(data)[-1]:
            piece = os.read(wire.CONTROL_FD, 1 << 20)
            if not piece:
                os._exit(0)  # the trainer is gone
            data += piece
        wall, cpu, memory, output, result, _ = wire.JOB.unpack_from(data)
        os.close(wire.CONTROL_FD)
        run = child.prepare(data[wire.JOB.size :])
        seconds = max(1, math.ceil(cpu))
        system.limit("CPU", seconds, seconds + 1)
        if confine.LINUX:
            system.limit("AS", self.baseline + memory)
        os.write(wire.RESULT_FD, wire.START.pack(wire.START_MARK, wall, cpu, memory, output, result, time.monotonic()))
        return run


def _closed_to_others(path: str) -> str:
    """The first folder above `path` that other users may not pass, or nothing."""
    path = os.path.dirname(os.path.realpath(path))
    while path != "/":
        if not os.stat(path).st_mode & 0o001:
            return path
        path = os.path.dirname(path)
    return ""


def _sandbox_paths(box: str) -> dict[str, str]:
    return seatbelt.paths(box, [sys.base_prefix, sys.base_exec_prefix], os.path.dirname(os.__file__))


def _start_inside(settings: dict[str, Any]) -> None:
    """Start anew inside `sandbox-exec` where macOS has no function to enter the sandbox with; else return."""
    wanted = settings["level"] != "off" and "seatbelt" not in settings["without"] and not settings.get("wrapped")
    if confine.DARWIN and wanted and not seatbelt.can_enter() and os.access(seatbelt.SANDBOX_EXEC, os.X_OK):
        command = [sys.executable, *sys.orig_argv[1:-1], json.dumps(settings | {"wrapped": True})]
        words = seatbelt.wrap(command, _sandbox_paths(settings["box"]), seatbelt.SCOPES[0])
        for fd in (0, 1):
            os.set_inheritable(fd, True)
        os.execv(words[0], words)


def main() -> None:
    settings = json.loads(sys.argv[1])
    _start_inside(settings)
    slot = Slot(settings)
    sys.argv[:] = [""]
    try:
        slot.start()
        slot.serve()
    except (BrokenPipeError, ConnectionError):
        pass
    except Exception as error:  # the trainer has to know why, and starts another slot
        with contextlib.suppress(OSError):
            slot.send(wire.LOST, f"{type(error).__name__}: {error}", (0.0, 0.0, 0), [memoryview(b"")] * 3)
    if not slot.alone:
        slot.leave()


if __name__ == "__main__":
    main()
