"""The trainer's side of the executor: jobs in, outcomes out, one I/O thread, no program's code ever run or parsed here.

Each worker is a slot: an exec'd interpreter (zygote.py) that forks one confined child per program. Slots of hash seed 0
serve every job, those of seed 1 serve the second half of determinism checks. A slot that dies or falls silent is
replaced and its job tried again; a job is never lost, and a fault of the harness is never a wrong answer.

The I/O thread mends itself: a fault in it is told with its cause, every slot is started afresh and every job tried
again, after a pause that grows. When that does not help either, the executor fails for good: each future that is
open, and each later `submit`, raises ExecutorFailed with the cause.

What programs send is read in this thread while it is small. Frames over boundary.INLINE_BYTES are read, and compared,
in a second one: that is linear in their length, but a megabyte of values takes a tenth of a second, and no program may
take that from the others.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import itertools
import json
import marshal
import os
import queue
import re
import secrets
import selectors
import socket
import sys
import threading
import time
import warnings
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from types import TracebackType
from typing import Any

from azr_mlx.errors import AzrError
from azr_mlx.executor import boundary, two_process, wire
from azr_mlx.executor.jobs import CallsJob, HalfJob, Job, Limits, Outcome, Status, StdinJob, TestJob
from azr_mlx.executor.layers import LayerReport, SandboxUnavailable
from azr_mlx.executor.slots import Folder, SlotHandle, private_file

_GRACE = 5.0  # seconds beyond a job's wall limit after which a silent slot is given up
_START = 30.0  # seconds a slot may take to say hello
_SILENT = "fell silent"
_TRIES = 3
_PAUSE, _LONGEST_PAUSE = 0.05, 5.0  # seconds before a start that follows a failed one; doubled up to the second
_LONGEST_LOSS_PAUSE = 1.0  # the same where a program may have been the cause
_FIRST_STARTS, _STARTS = 4, 12  # failed starts in a row after which a slot is hopeless: the first ever, and later
# What a first start that always fails does without, one after the other: the layers that change most come first.
_LADDER: tuple[tuple[str, ...], ...] = (("namespaces", "root"), ("landlock",), ("seccomp",), ("uid", "capabilities"))
if sys.platform == "darwin":
    _LADDER = (("seatbelt",),)
# A want of processes, memory, descriptors or disk: no layer is to blame, and it may pass.
_SHORT = re.compile(
    r"MemoryError|\[Errno ("
    + "|".join(str(n) for n in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC))
    + r")\]"
)
_FAULTS = 6  # faults of the I/O thread in a row, without one outcome in between, after which it gives up
MAX_JOB_BYTES = 32 << 20


class ExecutorFailed(AzrError, RuntimeError):
    """The executor could not mend itself; the message names the cause. Nothing was judged wrong by it."""


_KIND = Job | TestJob | StdinJob | CallsJob | HalfJob


class _Work:
    """One job on its way: encoded once, tried up to `_TRIES` times."""

    __slots__ = ("count", "future", "limits", "payload", "seed", "serial", "token", "tries")

    def __init__(self, job: _KIND, limits: Limits, seed: int, reverse: bool) -> None:
        self.future: Future[Outcome] = Future()
        self.limits = limits
        self.seed = seed
        self.serial = 0  # in order of submission
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
        self._without = dict.fromkeys(without, "switched off")  # layers to do without, and why
        self._boxes = Folder()
        self._queues: tuple[deque[_Work], deque[_Work]] = (deque(), deque())
        self._inbox: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._unsettled: dict[int, _Work] = {}  # every job that was taken on and has no outcome yet
        self._serials = itertools.count(1)
        self._reader: ThreadPoolExecutor | None = None  # one thread, started by the first large frame
        self._reading: set[int] = set()  # serials of the jobs whose frames it has
        self._astray: Exception | None = None  # a fault in it
        self._slots: list[SlotHandle] = [SlotHandle(number, 0) for number in range(self.workers)]
        self._layers: LayerReport | None = None
        self._messages: deque[str] = deque(maxlen=20)
        self._trouble = ""  # the last message
        self._cause = ""  # why it failed for good
        self._faults = 0
        self._refused = False  # no slot started, and not for want of something that may come back
        self._closed = False
        self._lock = threading.Lock()
        self._hello = threading.Event()
        self._woken = False
        self._thread: threading.Thread | None = None
        self._selector: selectors.BaseSelector | None = None
        self._bell: tuple[socket.socket, socket.socket] | None = None  # rung to wake the I/O thread
        try:
            self._begin()
        except BaseException as error:
            self._abandon()
            if isinstance(error, OSError) or (isinstance(error, RuntimeError) and "thread" in str(error)):
                raise RuntimeError(f"the sandbox did not start: {error}") from error
            raise
        assert self._layers is not None
        if level == "off":
            warnings.warn("executor level off: model-written programs run unconfined, as you", stacklevel=2)
        elif not self._layers.confined:
            warnings.warn(f"programs are not fully confined: {self._layers.lacking()}", stacklevel=2)
        elif not self._layers.memory:
            warnings.warn(f"nothing holds programs to their memory: {self._layers.lacking()}", stacklevel=2)

    def _begin(self) -> None:
        """Everything of the start that may fail. Raises RuntimeError, SandboxUnavailable or OSError."""
        self._listen()
        for slot in self._slots:
            self._launch(slot)
        self._thread = threading.Thread(target=self._loop, name="azr-executor", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            self._thread = None  # none was started
            raise
        atexit.register(_close, weakref.ref(self))
        # One start after the other may have to do without one more layer.
        starts = _FIRST_STARTS // 2 * (1 + len(_LADDER))  # should every one of them hang
        if not self._hello.wait(_START * (1 + starts)) or self._layers is None:
            cause = self._cause or self._trouble or "no sign of life"
            if self.level == "strict" and self._refused:
                raise SandboxUnavailable(f"no sufficient sandbox here: {cause}")
            raise RuntimeError(f"the sandbox did not start: {cause}")
        if self.level == "strict" and not self._layers.confined:
            raise SandboxUnavailable(f"no sufficient sandbox here: {self._layers.lacking()}")

    def _abandon(self) -> None:
        """Leave nothing of a start that failed."""
        # Ctrl-C may fall into the start of the thread: then it cannot be waited for yet, but does its work.
        until = time.monotonic() + 1.0
        while self._thread is not None and time.monotonic() < until:
            try:
                self.close()
                return
            except RuntimeError:
                time.sleep(0.01)
        self._end()

    # ------------------------------------------------------------------------------------------------ the API

    @property
    def layers(self) -> LayerReport:
        """The confinement that is active, as the first slot found it."""
        assert self._layers is not None
        return self._layers

    @property
    def _folder(self) -> str:
        return self._boxes.path

    def submit(self, job: _KIND) -> Future[Outcome]:
        """Run one job. The future never raises for anything that the program does.

        Raises RuntimeError once closed, and ExecutorFailed, here or out of the future, when the executor has failed.
        """
        if isinstance(job, TestJob):
            return two_process.submit(job, self.limits, lambda part: self._submit(part, 0, False).future, self.counters)
        return self._submit(job, 0, False).future

    def submit_check(self, job: Job) -> Future[Outcome]:
        """Run a job twice: two fresh children of two slots, hash seeds 0 and 1, inputs reversed the second time.

        The outcome is that of the first run when both agree; NOT_DETERMINISTIC when both are ok and their canonical
        values differ, or when only one is ok; nan equals nan here. A second run is not made after a failed first.
        """
        result: Future[Outcome] = Future()
        limits = job.limits or self.limits

        def second(first: Outcome) -> None:
            if first.ok:
                other = self._submit(job, 1, True).future
                _then(other, result, lambda again: _settle(result, _agree(first, again, limits.result_bytes)))
            else:
                _settle(result, first)

        _then(self._submit(job, 0, False).future, result, second)
        return result

    def take_messages(self) -> list[str]:
        """What went wrong and was mended since the last call, one line each for the console; `counters` count it."""
        taken = []
        with contextlib.suppress(IndexError):
            while True:
                taken.append(self._messages.popleft())
        return taken

    def run(self, jobs: Sequence[_KIND]) -> list[Outcome]:
        """Run jobs at once and return their outcomes in order."""
        return [future.result() for future in [self.submit(job) for job in jobs]]

    def close(self) -> None:
        """End every process, remove every folder. Waiting jobs get SANDBOX_ERROR. May be called again."""
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._inbox.put(None)
            self._wake()
        if self._thread is not None and threading.current_thread() is not self._thread:
            self._thread.join(20)

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
            _settle(work.future, Outcome(Status.EXCEPTION, detail="the program and its inputs are over 32 MB"))
            return work
        with self._lock:
            if self._cause:
                raise ExecutorFailed(f"the executor failed: {self._cause}")
            if self._closed:
                raise RuntimeError("the executor is closed")
            work.serial = next(self._serials)
            self._unsettled[work.serial] = work
            self._inbox.put(work)
        self._wake()
        return work

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            with contextlib.suppress(OSError, TypeError):  # the bell is gone once all is shut
                self._bell[1].send(b"x")  # type: ignore[index]

    def _listen(self) -> None:
        """A fresh selector with a fresh bell. Raises OSError."""
        self._deafen()
        self._selector = selectors.DefaultSelector()
        self._bell = socket.socketpair()
        for end in self._bell:
            end.setblocking(False)
        self._selector.register(self._bell[0], selectors.EVENT_READ, None)
        self._woken = False

    def _deafen(self) -> None:
        if self._selector is not None:
            self._selector.close()
        for end in self._bell or ():
            end.close()
        self._selector = self._bell = None

    def _loop(self) -> None:
        """The I/O thread. Whatever is raised in it ends up in a message, and every job in an outcome."""
        try:
            while True:
                try:
                    if not self._step():
                        break
                except ExecutorFailed:
                    raise
                except Exception as error:
                    self._mend(error)
        except BaseException as error:
            self._cause = type(error).__name__  # should even the next line fail
            self._cause = str(error) if isinstance(error, ExecutorFailed) else _named(error)
        finally:
            self._end()

    def _step(self) -> bool:
        """Wait for something to do, and do it. False when the executor is to be closed."""
        assert self._selector is not None
        now = time.monotonic()
        moments = [slot.deadline for slot in self._slots if slot.deadline]
        moments += [slot.start_at for slot in self._slots if slot.start_at is not None]
        self._attend(self._selector.select(max(0.0, min(moments) - now) if moments else None))
        if not self._collect():
            return False
        if self._astray is not None:
            error, self._astray = self._astray, None
            raise error
        now = time.monotonic()
        late = [slot for slot in self._slots if slot.deadline and now > slot.deadline]
        if late:
            # We may be what was late: an answer that waits in its socket counts.
            self._attend(self._selector.select(0))
            for slot in late:
                if slot.deadline and now > slot.deadline:
                    self._fail(slot, _SILENT)
        for slot in self._slots:
            if slot.start_at is not None and slot.start_at <= now:
                self._launch(slot)
        self._assign()
        return True

    def _attend(self, events: list[tuple[selectors.SelectorKey, int]]) -> None:
        for key, event in events:
            slot = key.data
            if slot is None:
                with contextlib.suppress(BlockingIOError):
                    key.fileobj.recv(4096)  # type: ignore[union-attr]
                self._woken = False
                continue
            if event & selectors.EVENT_WRITE and slot.socket is key.fileobj:
                self._push(slot)
            if event & selectors.EVENT_READ and slot.socket is key.fileobj:
                self._pull(slot)

    def _collect(self) -> bool:
        """Take what was submitted. False when `close` was called."""
        while True:
            try:
                work = self._inbox.get_nowait()
            except queue.Empty:
                return True
            if work is None:
                return False
            self._queues[work.seed].append(work)

    def _assign(self) -> None:
        for seed in (1, 0):  # the second half of a check first: somebody has waited longer for it
            waiting = self._queues[seed]
            if not waiting:
                continue
            if not any(slot.seed == seed for slot in self._slots):
                made = [SlotHandle(number, seed) for number in range(self.workers)]
                self._slots += made
                for slot in made:
                    self._launch(slot)
            free = [slot for slot in self._slots if slot.seed == seed and slot.work is None and slot.ready]
            # The one that has been idle longest has its next child ready and waiting.
            free.sort(key=lambda slot: slot.idle_since, reverse=True)
            running = sum(slot.work is not None for slot in self._slots) + len(self._reading)
            while free and waiting and running < self.workers:
                work = waiting.popleft()
                if work.future.running() or work.future.set_running_or_notify_cancel():
                    self._give(free.pop(), work)
                    running += 1
                else:
                    self._unsettled.pop(work.serial, None)

    def _give(self, slot: SlotHandle, work: _Work) -> None:
        work.tries += 1
        slot.work = work
        slot.unsent = memoryview(work.payload)
        slot.deadline = time.monotonic() + work.limits.wall_seconds + _GRACE
        self._push(slot)

    def _push(self, slot: SlotHandle) -> None:
        if slot.unsent is None or slot.socket is None or self._selector is None:
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
            if not self._pull(slot):  # it may have said why before it closed its end
                self._fail(slot, str(error))

    def _pull(self, slot: SlotHandle) -> bool:
        """Read what a slot says. False when there was nothing to read."""
        assert slot.socket is not None
        try:
            piece = slot.socket.recv(1 << 18)
        except BlockingIOError:
            return False
        except OSError:
            piece = b""
        if not piece:
            self._fail(slot, "died")
            return True
        slot.received += piece
        if slot.work is not None:
            slot.deadline = max(slot.deadline, time.monotonic() + _GRACE)
        while len(slot.received) >= wire.REPLY.size:
            verdict, wall, cpu, peak, *lengths = wire.REPLY.unpack_from(slot.received)
            if len(slot.received) < wire.REPLY.size + sum(lengths):
                break
            at = wire.REPLY.size
            sections = []
            for length in lengths:
                sections.append(bytes(slot.received[at : at + length]))
                at += length
            del slot.received[:at]
            self._reply(slot, verdict, (wall, cpu, peak), *sections)
            if slot.socket is None:
                break
        return True

    def _reply(
        self,
        slot: SlotHandle,
        verdict: int,
        numbers: tuple[float, float, int],
        text: bytes,
        frame: bytes,
        stdout: bytes,
        stderr: bytes,
    ) -> None:
        if verdict == wire.HELLO:
            self._greet(slot, text)
            return
        if verdict == wire.LOST or verdict not in _VERDICTS:
            self._fail(slot, text.decode("utf-8", "replace"))
            return
        work = slot.work
        if work is None:
            self._fail(slot, "answered what nobody asked")
            return
        slot.idle_since = time.monotonic()
        slot.work, slot.deadline, slot.losses, self._faults = None, 0.0, 0, 0
        found = (_VERDICTS[verdict], numbers, text, frame, stdout, stderr)
        if len(frame) > boundary.INLINE_BYTES:
            self._reading.add(work.serial)
            try:
                self._reader = self._reader or ThreadPoolExecutor(1, "azr-reader")
                self._reader.submit(self._read_aside, work, *found)
                return
            except RuntimeError:  # no thread can be started: then here
                self._reading.discard(work.serial)
        self._finish(work, self._read(work, *found))

    def _read(self, work: _Work, *found: Any) -> Outcome:
        """The outcome that a reply stands for. Raises nothing."""
        try:
            return _outcome(work, *found)
        except Exception as error:  # a fault of ours, and of this one job only
            self._tell(f"an answer could not be read: {_named(error)}")
            return Outcome(Status.SANDBOX_ERROR, detail=f"its answer could not be read: {_named(error)}")

    def _read_aside(self, work: _Work, *found: Any) -> None:
        """The same in the reader's thread; until it is done the job counts as running, so that few wait here."""
        try:
            self._finish(work, self._read(work, *found))
        except Exception as error:
            self._astray = error  # the I/O thread mends itself, and tries the job again
        finally:
            self._reading.discard(work.serial)
            self._wake()

    def _greet(self, slot: SlotHandle, text: bytes) -> None:
        """A slot says that it is ready, and what confines it."""
        said = json.loads(text)
        active = tuple(name for name, why in said["layers"].items() if not why)
        missing = {name: why for name, why in said["layers"].items() if why}
        layers = LayerReport(self.level, active, missing, said["open"])
        if self._layers is None:
            self._layers = layers
        elif layers.active != self._layers.active or layers.open != self._layers.open:
            # Not even at `standard` may a program run less confined than the layers that were reported.
            self._fail(slot, f"is confined otherwise than the first: {layers.lacking()}")
            return
        slot.ready, slot.deadline, slot.failures = True, 0.0, 0
        self._hello.set()

    def _finish(self, work: _Work, outcome: Outcome) -> None:
        """The one place where a job that was sent gets its outcome."""
        with self._lock:  # two threads come here
            self.counters[outcome.status.value] += 1
            self._unsettled.pop(work.serial, None)
        _settle(work.future, outcome)

    def _tell(self, message: str) -> None:
        self._trouble = message
        if not self._messages or self._messages[-1] != message:
            self._messages.append(message)

    # ------------------------------------------------------------------------------------------------- slots

    def _launch(self, slot: SlotHandle) -> None:
        """Start a slot, or note that it could not be and when to try again. Raises ExecutorFailed when none can."""
        assert self._selector is not None
        slot.start_at = None
        number = slot.number + slot.seed * self.workers
        settings = {
            "level": self.level,
            "trainer": os.getpid(),
            "identity": (os.getpid() * 64 + number) % 4336,  # so that two executors of root do not share user ids
            "without": self._without,
            "private": private_file(),
            "proven": self._layers.active if self._layers is not None else (),
            "read": [],
        }
        try:
            self._selector.register(slot.launch(self._boxes, settings), selectors.EVENT_READ, slot)
            slot.deadline = time.monotonic() + _START
        except OSError as error:
            self._fail(slot, f"cannot be started: {error}", spawned=False)

    def _fail(self, slot: SlotHandle, why: str, spawned: bool = True) -> None:
        """Replace a broken slot and try its job again, or give the job up as a sandbox error.

        Raises ExecutorFailed when none of its kind can be started.
        """
        self.counters["slots-replaced"] += 1
        self._tell(f"slot {slot.number} {why}")
        if slot.ready:
            slot.losses += 1
            pause = 0.0 if slot.losses == 1 else min(_LONGEST_LOSS_PAUSE, _PAUSE * 2.0 ** (slot.losses - 2))
        else:
            slot.failures += 2 if why == _SILENT else 1  # a start that hangs takes long enough
            pause = min(_LONGEST_PAUSE, _PAUSE * 2.0 ** (slot.failures - 1))
        work, slot.work = slot.work, None
        self._discard(slot)
        slot.start_at = time.monotonic() + pause
        if work is not None:
            self._retry(work, why)
        most = _STARTS if self._layers is not None else _FIRST_STARTS
        same = [other for other in self._slots if other.seed == slot.seed]
        if all(other.failures >= most for other in same):
            self._refused = self._layers is None and spawned and not _SHORT.search(why)
            if not self._refused or not self._do_without(why):
                raise ExecutorFailed(f"no slot can be started: {why}")
            for other in same:
                other.failures = 0

    def _do_without(self, why: str) -> bool:
        """Try the first start once more without the layer that is the next likely cause. False when none is left."""
        if self.level != "standard":
            return False
        for layers in _LADDER:
            if not set(layers) <= set(self._without):
                reason = f"no slot starts with it: {why}"
                self._without |= {layer: self._without.get(layer, reason) for layer in layers}
                self._tell(f"starting without {', '.join(layers)}, as {reason}")
                return True
        return False

    def _retry(self, work: _Work, why: str) -> None:
        if work.tries < _TRIES:
            self.counters["retries"] += 1
            self._queues[work.seed].appendleft(work)
        else:
            self._finish(work, Outcome(Status.SANDBOX_ERROR, detail=f"the slot {why}, {work.tries} times"))

    def _discard(self, slot: SlotHandle) -> None:
        if slot.socket is not None and self._selector is not None:
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(slot.socket)
        why = slot.discard(self._boxes)
        if why:
            self.counters["boxes-kept"] += 1
            self._tell(f"a box could not be removed and was put aside: {why}")

    def _mend(self, error: Exception) -> None:
        """After a fault in this thread: all slots anew, all jobs again. Raises ExecutorFailed when that was in vain."""
        self._faults += 1
        self.counters["repairs"] += 1
        self._tell(f"the executor starts its slots again: {_named(error)}")
        if self._faults >= _FAULTS:
            raise ExecutorFailed(_named(error)) from error
        for slot in self._slots:
            slot.work = None
            with contextlib.suppress(Exception):  # the next round meets it again
                self._discard(slot)
            slot.start_at = 0.0
        time.sleep(min(_LONGEST_PAUSE, _PAUSE * 2.0 ** (self._faults - 1)))
        closing = not self._collect()
        self._listen()
        for waiting in self._queues:
            waiting.clear()
        for serial in sorted(self._unsettled):
            work = self._unsettled.get(serial)
            if work is None or serial in self._reading:
                continue  # its answer is here already
            if work.tries < _TRIES:
                self._queues[work.seed].append(work)
            else:
                self._finish(work, Outcome(Status.SANDBOX_ERROR, detail=f"the executor failed: {_named(error)}"))
        if closing:
            self._inbox.put(None)

    def _end(self) -> None:
        """The end, whatever came before it: nothing is left, and no future is left open."""
        with self._lock:
            self._closed = True
        try:
            self._shut()
            if self._reader is not None:
                self._reader.shutdown()  # what it still has is read first: bounded, and no job is lost
        finally:
            self._hello.set()
            for serial in list(self._unsettled):
                work = self._unsettled.pop(serial, None)
                if work is None:
                    continue
                if self._cause:
                    _settle(work.future, ExecutorFailed(f"the executor failed: {self._cause}"))
                else:
                    _settle(work.future, Outcome(Status.SANDBOX_ERROR, detail="the executor was closed"))

    def _shut(self) -> None:
        """End every process and remove every folder, as far as that goes."""
        for slot in self._slots:
            with contextlib.suppress(Exception):
                slot.kill()
        for slot in self._slots:
            with contextlib.suppress(Exception):
                self._discard(slot)
        with contextlib.suppress(Exception):
            for path, why in self._boxes.close().items():
                warnings.warn(f"{path} could not be removed: {why}", stacklevel=2)
        with contextlib.suppress(Exception):
            self._deafen()


def _settle(future: Future[Outcome], result: Outcome | BaseException) -> None:
    """Resolve a future, unless it was cancelled or has been resolved. Raises nothing, whatever its callbacks raise."""
    with contextlib.suppress(BaseException):
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


def _then(source: Future[Outcome], target: Future[Outcome], action: Callable[[Outcome], None]) -> None:
    """Call `action` with the outcome of `source`, which is to settle `target`; what it raises settles it too.

    The one place where futures hang on each other.
    """

    def run(done: Future[Outcome]) -> None:
        try:
            action(done.result())
        except ExecutorFailed as error:
            _settle(target, error)
        except BaseException as error:
            _settle(target, Outcome(Status.SANDBOX_ERROR, detail=_named(error)))

    source.add_done_callback(run)


def _agree(first: Outcome, again: Outcome, result_bytes: int) -> Outcome:
    """The outcome of a check whose first run was ok."""
    if again.status is Status.SANDBOX_ERROR:
        return again
    status, detail = Status.NOT_DETERMINISTIC, "two runs returned different values"
    if again.ok:
        same = boundary.agree(first.values, again.values, result_bytes)
        if isinstance(same, boundary.Refused):
            status, detail = Status.BAD_RESULT, same.detail
        elif same:
            return first
    else:
        detail = f"the second run: {again.status} {again.detail}".strip()
    return replace(first, status=status, values=(), detail=detail)


def _named(error: BaseException) -> str:
    """An error in one line, with its type."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


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
    work: _Work,
    status: Status | None,
    numbers: tuple[float, float, int],
    text: bytes,
    frame: bytes,
    stdout: bytes,
    stderr: bytes,
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


def _affinity() -> set[int]:
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def _close(reference: weakref.ref[Executor]) -> None:
    executor = reference()
    if executor is not None:
        executor.close()
