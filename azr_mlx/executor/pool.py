"""The trainer's side of the executor: jobs in, outcomes out, one I/O thread, no program's code ever run or parsed here.

Each worker is a slot: an exec'd interpreter (zygote.py) that forks one confined child per program. Slots of hash seed 0
serve every job, those of seed 1 serve the second half of determinism checks. A slot that dies or falls silent is
replaced and its job tried again; a job is never lost, and a fault of the harness is never a wrong answer.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import marshal
import os
import queue
import secrets
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import weakref
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any

from azr_mlx.executor import boundary, seatbelt, two_process, wire
from azr_mlx.executor.jobs import CallsJob, HalfJob, Job, Limits, Outcome, Status, StdinJob, TestJob

_GRACE = 5.0  # seconds beyond a job's wall limit after which a silent slot is given up
_START = 30.0  # seconds a slot may take to say hello
_TRIES = 3
MAX_JOB_BYTES = 32 << 20


class SandboxUnavailable(RuntimeError):
    """Level `strict` was asked for, and this machine offers no sufficient confinement."""


@dataclass(frozen=True, slots=True)
class LayerReport:
    """Which layers of confinement hold: `active` names, and `missing` maps the others to the reason."""

    level: str
    active: tuple[str, ...]
    missing: dict[str, str]

    @property
    def files(self) -> bool:
        """Whether programs are kept from the user's files."""
        return bool({"root", "landlock", "seatbelt"} & set(self.active))

    @property
    def network(self) -> bool:
        """Whether programs are kept from the network."""
        return bool({"namespaces", "seccomp", "seatbelt"} & set(self.active))

    @property
    def processes(self) -> bool:
        """Whether programs are kept from starting, and from signalling, other processes."""
        return bool({"seccomp", "seatbelt"} & set(self.active))

    @property
    def confined(self) -> bool:
        return self.files and self.network and self.processes


_KIND = Job | TestJob | StdinJob | CallsJob | HalfJob


class _Work:
    """One job on its way: encoded once, tried up to `_TRIES` times."""

    __slots__ = ("count", "future", "limits", "payload", "seed", "token", "tries")

    def __init__(self, job: _KIND, limits: Limits, seed: int, reverse: bool) -> None:
        self.future: Future[Outcome] = Future()
        self.limits = limits
        self.seed = seed
        self.tries = 0
        self.token = b""
        # Values that an honest child sends.
        self.count = len(job.inputs) if isinstance(job, Job) else int(isinstance(job, CallsJob | HalfJob))
        rest: tuple[Any, ...]
        if isinstance(job, Job):
            mode, rest = "function", (tuple(job.inputs), job.function, reverse)
        elif isinstance(job, StdinJob):
            mode, rest = "script", (job.stdin,)
        elif isinstance(job, CallsJob):
            mode, rest = "calls", (job.calls, job.names, job.going_on, job.track)
        elif isinstance(job, HalfJob):
            mode, rest = "half", (job.test, job.helpers, job.names, job.seeded, job.calls, job.answers, job.lines)
        else:
            self.token = secrets.token_bytes(16)
            test = job.test + (f"\ncheck({job.entry_point})\n" if job.entry_point else "")
            mode, rest = "test", (test, self.token)
        program = "" if isinstance(job, HalfJob) else str(job.program)
        body = marshal.dumps((mode, program, rest, limits.result_bytes))
        self.payload = body
        if len(body) <= MAX_JOB_BYTES:
            head = wire.JOB.pack(
                limits.wall_seconds,
                limits.cpu_seconds,
                limits.memory_mb << 20,
                limits.output_bytes,
                limits.result_bytes,
                len(body),
            )
            self.payload = head + body


class _Slot:
    """The trainer's end of one zygote."""

    def __init__(self, number: int, seed: int) -> None:
        self.number = number
        self.seed = seed
        self.process: subprocess.Popen[bytes] | None = None
        self.socket: socket.socket | None = None
        self.box = ""
        self.work: _Work | None = None
        self.unsent: memoryview | None = None
        self.writing = False
        self.received = bytearray()
        self.deadline = 0.0
        self.ready = False
        self.failures = 0
        self.idle_since = 0.0


class Executor:
    """Runs programs that nobody trusts. Thread-safe; use it as a context manager, or call `close`.

    level: "strict" refuses to start without confinement of files, network and processes; "standard" uses what there
    is and warns once of what is missing; "off" runs programs as the user, with limits only.
    workers: programs that run at once, 0 for one per core. Start it before anything touches a GPU.

    Raises SandboxUnavailable (strict), RuntimeError when no slot can be started.
    """

    def __init__(
        self, level: str = "standard", limits: Limits | None = None, workers: int = 0, *, without: Iterable[str] = ()
    ) -> None:
        if level not in ("strict", "standard", "off"):
            raise ValueError(f"unknown level {level!r}: choose strict, standard or off")
        self.level = level
        self.limits = limits or Limits()
        self.workers = workers or len(_affinity())
        self.counters: Counter[str] = Counter()
        self._without = tuple(without)
        self._scope, self._no_seatbelt = "", "switched off"
        if sys.platform == "darwin" and level != "off" and "seatbelt" not in self._without:
            self._scope, self._no_seatbelt = seatbelt.probe()
        self._folder = os.path.realpath(tempfile.mkdtemp(prefix="azr-sandbox-"))
        os.chmod(self._folder, 0o711)
        self._queues: tuple[deque[_Work], deque[_Work]] = (deque(), deque())
        self._inbox: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._woken = False
        self._running = 0
        self._slots: list[_Slot] = []
        self._layers: LayerReport | None = None
        self._hello = threading.Event()
        self._trouble = ""
        self._closed = False
        self._lock = threading.Lock()
        for number in range(self.workers):
            self._open(number, 0)
        self._thread = threading.Thread(target=self._loop, name="azr-executor", daemon=True)
        self._thread.start()
        atexit.register(_close, weakref.ref(self))
        if not self._hello.wait(_START) or self._layers is None:
            self.close()
            raise RuntimeError(f"the sandbox did not start: {self._trouble or 'no sign of life'}")
        if level == "strict" and not self._layers.confined:
            self.close()
            raise SandboxUnavailable(f"no sufficient sandbox here: {_missing(self._layers)}")
        if level == "off":
            warnings.warn("executor level off: model-written programs run unconfined, as you", stacklevel=2)
        elif not self._layers.confined:
            warnings.warn(f"programs are not fully confined: {_missing(self._layers)}", stacklevel=2)

    # ------------------------------------------------------------------------------------------------ the API

    @property
    def layers(self) -> LayerReport:
        """The confinement that is active, as the first slot found it."""
        assert self._layers is not None
        return self._layers

    def submit(self, job: _KIND) -> Future[Outcome]:
        """Run one job. The future never raises for anything that the program does. Raises RuntimeError once closed."""
        if isinstance(job, TestJob):
            return two_process.submit(job, self.limits, lambda part: self._submit(part, 0, False).future, self.counters)
        return self._submit(job, 0, False).future

    def submit_check(self, job: Job) -> Future[Outcome]:
        """Run a job twice: two fresh children, hash seeds 0 and 1, inputs in reversed order the second time.

        The outcome is that of the first run when both agree; NOT_DETERMINISTIC when both are ok and their canonical
        values differ, or when only one is ok; nan equals nan here. A second run is not made after a failed first.
        """
        result: Future[Outcome] = Future()

        def second(first: Future[Outcome]) -> None:
            outcome = first.result()
            if not outcome.ok:
                result.set_result(outcome)
                return
            try:
                self._submit(job, 1, True).future.add_done_callback(lambda done: compare(outcome, done.result()))
            except RuntimeError:
                result.set_result(Outcome(Status.SANDBOX_ERROR, detail="closed"))

        def compare(first: Outcome, again: Outcome) -> None:
            if again.status is Status.SANDBOX_ERROR:
                result.set_result(again)
            elif not again.ok:
                detail = f"the second run: {again.status} {again.detail}".strip()
                result.set_result(replace(first, status=Status.NOT_DETERMINISTIC, values=(), detail=detail))
            else:
                limits = job.limits or self.limits
                same = boundary.agree(first.values, again.values, limits.result_bytes)
                if isinstance(same, boundary.Refused):
                    result.set_result(replace(first, status=Status.BAD_RESULT, values=(), detail=same.detail))
                elif not same:
                    detail = "two runs returned different values"
                    result.set_result(replace(first, status=Status.NOT_DETERMINISTIC, values=(), detail=detail))
                else:
                    result.set_result(first)

        self._submit(job, 0, False).future.add_done_callback(second)
        return result

    def run(self, jobs: Sequence[_KIND]) -> list[Outcome]:
        """Run jobs at once and return their outcomes in order."""
        return [future.result() for future in [self.submit(job) for job in jobs]]

    def close(self) -> None:
        """End every process, remove every folder. Waiting jobs get SANDBOX_ERROR. May be called again."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._inbox.put(None)
        self._wake()
        if hasattr(self, "_thread") and threading.current_thread() is not self._thread:
            self._thread.join(10)

    def __enter__(self) -> Executor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------- the I/O thread

    def _submit(self, job: _KIND, seed: int, reverse: bool) -> _Work:
        work = _Work(job, job.limits or self.limits, seed, reverse)
        if len(work.payload) > MAX_JOB_BYTES:
            work.future.set_result(Outcome(Status.EXCEPTION, detail="the program and its inputs are over 32 MB"))
            return work
        with self._lock:
            if self._closed:
                raise RuntimeError("the executor is closed")
            self._inbox.put(work)
        self._wake()
        return work

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with contextlib.suppress(OSError):
                self._wake_write.send(b"x")

    def _loop(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # a fault of ours must not leave callers waiting for ever
            self._trouble = f"{type(error).__name__}: {error}"
            with self._lock:
                self._closed = True
        finally:
            self._shut()

    def _step(self) -> bool:
        now = time.monotonic()
        deadlines = [slot.deadline for slot in self._slots if slot.deadline]
        patience = max(0.0, min(deadlines) - now) if deadlines else None
        for key, event in self._selector.select(patience):
            slot = key.data
            if slot is None:
                with contextlib.suppress(BlockingIOError):
                    self._wake_read.recv(4096)
                self._woken = False
                continue
            if slot.socket is not key.fileobj:
                continue
            if event & selectors.EVENT_WRITE:
                self._push(slot)
            if event & selectors.EVENT_READ:
                self._pull(slot)
        while True:
            try:
                work = self._inbox.get_nowait()
            except queue.Empty:
                break
            if work is None:
                return False
            self._queues[work.seed].append(work)
        now = time.monotonic()
        for slot in list(self._slots):
            if slot.deadline and now > slot.deadline:
                self._fail(slot, "fell silent")
        self._assign()
        return True

    def _assign(self) -> None:
        for seed in (1, 0):  # the second half of a check first: somebody has waited longer for it
            waiting = self._queues[seed]
            if not waiting:
                continue
            if not any(slot.seed == seed for slot in self._slots):
                for number in range(self.workers):
                    self._open(number, seed)
            free = [slot for slot in self._slots if slot.seed == seed and slot.work is None and slot.ready]
            # The one that has been idle longest has its next child ready and waiting.
            free.sort(key=lambda slot: slot.idle_since, reverse=True)
            while free and waiting and self._running < self.workers:
                work = waiting.popleft()
                if work.tries or work.future.set_running_or_notify_cancel():
                    self._give(free.pop(), work)

    def _give(self, slot: _Slot, work: _Work) -> None:
        work.tries += 1
        slot.work = work
        slot.unsent = memoryview(work.payload)
        slot.deadline = time.monotonic() + work.limits.wall_seconds + _GRACE
        self._running += 1
        self._push(slot)

    def _push(self, slot: _Slot) -> None:
        if slot.unsent is None or slot.socket is None:
            return
        try:
            while slot.unsent:
                slot.unsent = slot.unsent[slot.socket.send(slot.unsent) :]
            slot.unsent = None
            if slot.writing:
                slot.writing = False
                self._selector.modify(slot.socket, selectors.EVENT_READ, slot)
        except BlockingIOError:
            slot.writing = True
            self._selector.modify(slot.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, slot)
        except OSError as error:
            self._fail(slot, str(error))

    def _pull(self, slot: _Slot) -> None:
        assert slot.socket is not None
        try:
            piece = slot.socket.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece:
            self._fail(slot, "died")
            return
        slot.received += piece
        while len(slot.received) >= wire.REPLY.size:
            verdict, wall, cpu, peak, *lengths = wire.REPLY.unpack_from(slot.received)
            if len(slot.received) < wire.REPLY.size + sum(lengths):
                return
            at = wire.REPLY.size
            sections = []
            for length in lengths:
                sections.append(bytes(slot.received[at : at + length]))
                at += length
            del slot.received[:at]
            self._reply(slot, verdict, (wall, cpu, peak), *sections)
            if slot.received and slot.socket is None:
                return

    def _reply(
        self,
        slot: _Slot,
        verdict: int,
        numbers: tuple[float, float, int],
        text: bytes,
        frame: bytes,
        stdout: bytes,
        stderr: bytes,
    ) -> None:
        if verdict == wire.HELLO:
            slot.ready = True
            slot.deadline = 0.0
            if self._layers is None:
                layers = json.loads(text)
                active = tuple(name for name, why in layers.items() if not why)
                missing = {name: why for name, why in layers.items() if why}
                self._layers = LayerReport(self.level, active, missing)
                self._hello.set()
            return
        if verdict == wire.LOST or verdict not in _VERDICTS:
            self._fail(slot, text.decode("utf-8", "replace"))
            return
        work = slot.work
        if work is None:
            self._fail(slot, "answered what nobody asked")
            return
        outcome = _outcome(_VERDICTS[verdict], numbers, text, frame, stdout, stderr, work)
        slot.idle_since = time.monotonic()
        slot.work, slot.deadline, slot.failures = None, 0.0, 0
        self._running -= 1
        self.counters[outcome.status.value] += 1
        work.future.set_result(outcome)

    # ------------------------------------------------------------------------------------------------- slots

    def _open(self, number: int, seed: int) -> None:
        slot = _Slot(number, seed)
        self._slots.append(slot)
        self._launch(slot)

    def _launch(self, slot: _Slot) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        slot.box = tempfile.mkdtemp(prefix=f"slot-{slot.seed}-{slot.number}-", dir=self._folder)
        settings = {
            "level": self.level,
            "slot": slot.number + slot.seed * self.workers,
            "without": self._without,
            "box": slot.box,
            "read": [],
            "seatbelt": "" if self._scope else self._no_seatbelt,
        }
        here = os.path.dirname(os.path.abspath(__file__))
        python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
        command = [python, "-s", "-P", "-S", "-B", "-X", "utf8", os.path.join(here, "zygote.py"), json.dumps(settings)]
        if self._scope:
            command = seatbelt.wrap(command, slot.box, self._scope)
        environment = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONHASHSEED": str(slot.seed)}
        environment["MALLOC_ARENA_MAX"] = "1"  # or each thread of a program takes 64 MB of its address space
        environment["LD_BIND_NOW"] = "1"  # or every child looks up the same symbols again
        try:
            slot.process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if not os.environ.get("AZR_EXECUTOR_DEBUG") else None,
                env=environment,
                close_fds=False,  # ours are not inheritable; this lets macOS use posix_spawn
            )
        finally:
            theirs.close()
        slot.socket = ours
        slot.ready = slot.writing = False
        slot.received.clear()
        slot.unsent = None
        slot.deadline = time.monotonic() + _START
        self._selector.register(ours, selectors.EVENT_READ, slot)

    def _fail(self, slot: _Slot, why: str) -> None:
        """Replace a broken slot and try its job again, or give the job up as a sandbox error."""
        self._trouble = f"slot {slot.number}: {why}"
        self.counters["slots-replaced"] += 1
        self._bury(slot)
        slot.failures += 1
        work, slot.work = slot.work, None
        if work is not None:
            self._running -= 1
            if work.tries < _TRIES:
                self.counters["retries"] += 1
                self._queues[work.seed].appendleft(work)
            else:
                self.counters[Status.SANDBOX_ERROR.value] += 1
                work.future.set_result(Outcome(Status.SANDBOX_ERROR, detail=why))
        if slot.failures > 5 and not slot.ready:
            self._slots.remove(slot)
            if not any(other.seed == slot.seed for other in self._slots):
                raise RuntimeError(f"no slot can be started: {self._trouble}")
            return
        self._launch(slot)

    def _bury(self, slot: _Slot) -> None:
        if slot.socket is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(slot.socket)
            slot.socket.close()
            slot.socket = None
        if slot.process is not None:
            slot.process.kill()  # the keeper takes the zygote along, the zygote its child
            slot.process.wait()
            slot.process = None
        shutil.rmtree(slot.box, ignore_errors=True)

    def _shut(self) -> None:
        for slot in self._slots:
            if slot.socket is not None:
                slot.socket.close()  # the zygote sees the end of its input, kills its child and leaves
        waiting = [slot.work for slot in self._slots if slot.work] + [*self._queues[0], *self._queues[1]]
        while True:
            try:
                work = self._inbox.get_nowait()
            except queue.Empty:
                break
            if work is not None:
                waiting.append(work)
        end = time.monotonic() + 2.0
        for slot in self._slots:
            if slot.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    slot.process.wait(max(0.05, end - time.monotonic()))
            self._bury(slot)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()
        self._hello.set()
        for work in waiting:
            if not work.future.done():
                with contextlib.suppress(Exception):
                    work.future.set_result(Outcome(Status.SANDBOX_ERROR, detail="the executor was closed"))


_VERDICTS = {
    wire.FRAME: None,  # the frame says more
    wire.TIMEOUT: Status.TIMEOUT,
    wire.MEMORY: Status.MEMORY,
    wire.OUTPUT: Status.OUTPUT_LIMIT,
    wire.KILLED: Status.KILLED,
    wire.EXITED: Status.EXITED_EARLY,
    wire.FORBIDDEN: Status.FORBIDDEN,
    wire.BAD_RESULT: Status.BAD_RESULT,
}


def _outcome(
    status: Status | None,
    numbers: tuple[float, float, int],
    text: bytes,
    frame: bytes,
    stdout: bytes,
    stderr: bytes,
    work: _Work,
) -> Outcome:
    """The outcome that a zygote's report of a finished child stands for."""
    found: tuple[object, ...] = ()
    detail = text.decode("utf-8", "replace")
    if status is None:
        status, detail, found = boundary.read_frame(frame, work.limits.result_bytes, work.count, work.token)
    return Outcome(
        status, found, detail, stdout.decode("utf-8", "replace"), stderr.decode("utf-8", "replace"), *numbers
    )


def find_layers(level: str = "standard", without: Iterable[str] = ()) -> LayerReport:
    """The layers that are active on this machine at a level, found by starting one slot and closing it again.

    Raises what Executor raises; warns of nothing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Executor(level, workers=1, without=without) as executor:
            return executor.layers


def _missing(layers: LayerReport) -> str:
    return "; ".join(f"{name} ({why})" for name, why in layers.missing.items()) or "no layer is known for this system"


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _close(reference: weakref.ref[Executor]) -> None:
    executor = reference()
    if executor is not None:
        executor.close()
