"""The world that hostile programs are let loose on: canaries, listeners, and a count of what they left behind."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from azr_mlx.executor import Executor, Job, Limits, Outcome, Status

SECRET = "canary-8d1f5c"


class World:
    """Canary files, loopback listeners of every kind, and secrets in the environment. Close it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="azr-canary-"))
        self.folder.chmod(0o777)  # the weakest permissions: only the sandbox stands between
        (self.folder / "secret").write_text(SECRET)
        (self.folder / "secret").chmod(0o666)
        self.hits: list[str] = []
        self.abstract = f"azr-{os.getpid()}-{id(self)}"
        self._sockets: list[socket.socket] = []
        self.port = self._listen(socket.AF_INET, ("127.0.0.1", 0), "tcp")
        self.port6 = self._listen(socket.AF_INET6, ("::1", 0), "tcp6") if socket.has_ipv6 else 1
        self.udp = self._listen(socket.AF_INET, ("127.0.0.1", 0), "udp", socket.SOCK_DGRAM)
        self._listen(socket.AF_UNIX, str(self.folder / "socket"), "unix")
        os.chmod(self.folder / "socket", 0o777)
        if sys.platform.startswith("linux"):
            self._listen(socket.AF_UNIX, "\0" + self.abstract, "abstract")
        self.before = self.listing()

    def _listen(self, family: int, address: Any, name: str, kind: int = socket.SOCK_STREAM) -> int:
        try:
            made = socket.socket(family, kind)
            made.bind(address)
        except OSError:
            return 1
        self._sockets.append(made)
        if kind == socket.SOCK_STREAM:
            made.listen()
        threading.Thread(target=self._count, args=(made, kind, name), daemon=True).start()
        where = made.getsockname()
        return where[1] if isinstance(where, tuple) else 0

    def _count(self, made: socket.socket, kind: int, name: str) -> None:
        while True:
            try:
                if kind == socket.SOCK_DGRAM:
                    made.recv(10)
                else:
                    made.accept()[0].close()
            except OSError:
                return
            self.hits.append(name)

    def listing(self) -> list[str]:
        """Every file that a program might have made or changed, with size and time."""
        found = []
        for place in (self.folder, Path("/tmp"), Path("/var/tmp"), Path("/dev/shm"), Path.cwd()):
            if place.is_dir():
                found += [f"{place}/{name}" for name in os.listdir(place) if "pwn" in name or place == self.folder]
        state = (self.folder / "secret").stat()
        return [*sorted(found), (self.folder / "secret").read_text(), str(state.st_mtime_ns)]

    def fill(self, program: str) -> str:
        for mark, value in {
            "@CANARY@": self.folder,
            "@PORT@": self.port,
            "@PORT6@": self.port6,
            "@UDP@": self.udp,
            "@ABSTRACT@": self.abstract,
            "@PID@": os.getpid(),
            "@TERCES@": SECRET[::-1],
            "@USER@": "root" if os.geteuid() == 0 else "",
        }.items():
            program = program.replace(mark, str(value))
        return program

    def close(self) -> None:
        for made in self._sockets:
            made.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def parent_of(pid: int) -> int:
    """0 when there is no such process any more."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def processes() -> set[int]:
    """Processes that descend from this one, zombies included (Linux)."""
    parents: dict[int, list[int]] = {}
    if not os.path.isdir("/proc/self"):
        return set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            parents.setdefault(parent_of(int(name)), []).append(int(name))
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        for child in parents.get(waiting.pop(), []):
            found.add(child)
            waiting.append(child)
    return found


def children() -> set[int]:
    """Processes that this one started itself, zombies included (Linux)."""
    return {pid for pid in processes() if parent_of(pid) == os.getpid()}


def family(executor: Executor) -> set[int]:
    """Processes of one executor (Linux)."""
    tops = {slot.process.pid for slot in executor._slots if slot.process is not None}
    found: set[int] = set()
    for pid in processes():
        at = pid
        while at > 1 and at not in tops:
            at = parent_of(at)
        if at in tops:
            found.add(pid)
    return found


def descriptors() -> int:
    for folder in ("/proc/self/fd", "/dev/fd"):
        if os.path.isdir(folder):
            return len(os.listdir(folder))
    return 0


def settle(executor: Executor, expected: tuple[int, int] | None = None, seconds: float = 30.0) -> tuple[int, int]:
    """Processes of the executor and open descriptors of this one, once the slots are ready for the next job.

    That is when they are as `expected`, or stay the same for four looks: on a busy machine a slot may take a while to
    fork its next child, or to be dead.
    """
    end = time.monotonic() + seconds
    seen, same = (-1, -1), 0
    while time.monotonic() < end and seen != expected and (expected is not None or same < 3):
        executor.run([Job("def f(a):\n    return a", ("1",))] * (2 * executor.workers))
        time.sleep(0.05)
        now = (len(family(executor)), descriptors())
        seen, same = now, same + 1 if now == seen else 0
    return seen


def _ends_so_on_a_mac(outcome: Outcome) -> bool:
    """Contained all the same: macOS lacks a function, denies a fork by a limit, or the slot watches the disk."""
    absent = outcome.status is Status.EXCEPTION and outcome.detail.startswith(("AttributeError", "BlockingIOError"))
    return absent or outcome.status is Status.OUTPUT_LIMIT


def let_loose(executor: Executor, attack: Any, world: World) -> tuple[Outcome, list[str]]:
    """Run one attack; say what is wrong with how it ended, and with the world after it (nothing, if contained)."""
    job = Job(
        world.fill(attack.program),
        ("1",),
        limits=Limits(attack.wall, attack.cpu, attack.memory, output_bytes=1 << 16, result_bytes=1 << 16),
    )
    start = time.monotonic()
    outcome = executor.submit(job).result(timeout=60)
    took = time.monotonic() - start
    wrong = []
    if outcome.status.value not in attack.status and not (sys.platform == "darwin" and _ends_so_on_a_mac(outcome)):
        wrong.append(f"ended as {outcome.status.value}: {outcome.detail}")
    if attack.detail and attack.detail not in outcome.detail:
        wrong.append(f"told as {outcome.detail!r}, not {attack.detail!r}")
    if outcome.ok and attack.honest is not None and outcome.value == attack.honest:
        wrong.append(f"returned {attack.honest!r}")
    slow = 10 if "AZR_TEST_MAC" in os.environ else 0  # every access of an emulated Mac is judged in Python
    if took > attack.wall + 1 + 0.5 + slow:  # half a second for a busy test machine
        wrong.append(f"took {took:.2f} s with a limit of {attack.wall} s")
    if SECRET in repr(outcome):
        wrong.append("a canary was read")
    if world.hits:
        wrong.append(f"the listeners were hit: {world.hits}")
        world.hits.clear()
    if world.listing() != world.before:
        wrong.append(f"files changed: {world.listing()}")
    look = "import os\ndef f(a):\n    open('mine', 'w').close()\n    return a * 6, os.listdir('.')"
    honest = executor.run([Job(look, ("7",))] * executor.workers * 2)
    if any(not one.ok or one.value != (42, ["mine"]) or one.stdout or one.stderr for one in honest):
        wrong.append(f"an honest program suffered: {honest}")
    return outcome, wrong
