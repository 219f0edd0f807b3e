"""The pool cannot die silently: whatever fails, every job gets an outcome or a cause, and no fault is a verdict."""

# ruff: noqa: E501  a program stays on one line
from __future__ import annotations

import contextlib
import errno
import inspect
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from azr_mlx.executor import (
    Executor,
    ExecutorFailed,
    Limits,
    Outcome,
    SandboxUnavailable,
    Status,
    boundary,
    pool,
    slots,
    trial,
)
from azr_mlx.executor.slots import Folder, SlotHandle
from tests.executor.conftest import job
from tests.executor.test_without_namespaces import as_ordinary_user
from tests.executor.world import children, descriptors, family, processes, settle

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes through /proc")
NAP = "import time\ntime.sleep(0.01)\nreturn a + 1"
ERRNOS = (errno.ENOSPC, errno.EMFILE, errno.ENOMEM, errno.EAGAIN)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_PAUSE", 0.01)
    monkeypatch.setattr(pool, "_LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(pool, "_LONGEST_LOSS_PAUSE", 0.05)


def tops(made: Executor) -> list[int]:
    return [slot.process.pid for slot in made._slots if slot.process is not None]


def below(parent: int) -> list[int]:
    with contextlib.suppress(OSError), open(f"/proc/{parent}/task/{parent}/children") as file:
        return [int(word) for word in file.read().split()]
    return []


def hit(pids: list[int] | set[int], number: int = signal.SIGKILL) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def zygotes(made: Executor) -> list[int]:
    """Keepers where there are any, and zygotes; not the children, whose death is a verdict about their program."""
    found = []
    for top in tops(made):
        found += [top, *(below(top) if "namespaces" in made.layers.active else [])]
    return found


# ------------------------------------------------------------------------------------------------ slots that die


def all_slots_at_once(made: Executor, rounds: int, seed: int = 0) -> None:
    """Every slot is killed at a random moment of each round; every answer of each round is right all the same."""
    rng = random.Random(seed)
    folder = made._folder
    for number in range(rounds):
        futures = [made.submit(job(NAP, str(number + n))) for n in range(2 * made.workers)]
        time.sleep(rng.random() * 0.06)
        hit(zygotes(made))
        outcomes = [future.result(timeout=60) for future in futures]
        assert [outcome.values for outcome in outcomes] == [(number + n + 1,) for n in range(2 * made.workers)], (
            outcomes
        )
    assert made._folder == folder
    assert os.path.isdir(folder)
    assert len(os.listdir(folder)) <= len(made._slots) + 1  # one may be starting just now


@linux
@pytest.mark.parametrize("workers", [1, 2])
def test_all_slots_killed_at_once_cost_nothing_but_time(workers: int) -> None:
    """As an out-of-memory killer does it. A job that was running is tried again, up to three times in all."""
    with Executor(workers=workers) as made:
        before = settle(made)
        all_slots_at_once(made, 10)
        assert made.counters["slots-replaced"] >= 5  # a slot that is down when its turn comes is not killed again
        assert made.counters["sandbox-error"] == made.counters["repairs"] == 0
        assert any("died" in message or "ended" in message for message in made.take_messages())
        assert made.take_messages() == []
        assert settle(made, before) == before


@linux
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("without", [(), ("namespaces",)], ids=["all layers", "no namespaces"])
@pytest.mark.filterwarnings("ignore")
def test_all_slots_killed_a_thousand_times(without: tuple[str, ...]) -> None:
    with Executor(workers=2, without=without) as made:
        all_slots_at_once(made, 20)
        before = settle(made)
        all_slots_at_once(made, 500, seed=1)
        assert settle(made, before) == before


def at_every_stage(made: Executor, number: int, rounds: int, longest: float) -> None:
    """A slot is killed, and the one that replaces it meets a signal at some moment of its start."""
    made.run([job(NAP)] * 2)
    for turn in range(rounds):
        hit(zygotes(made))
        time.sleep(longest * turn / rounds)
        hit(family(made), number)
        for other in range(2):
            # The children are hit too here, and that is told as what it is.
            outcome = made.submit(job("return a", str(other))).result(timeout=200)
            assert outcome.values == (other,) or outcome.status in (Status.KILLED, Status.TIMEOUT), outcome


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stopped is given up soon: after many times what a start takes on this machine, as busy as it is now."""
    began = time.monotonic()
    with Executor(workers=1):
        took = time.monotonic() - began
    monkeypatch.setattr(pool, "_START", max(1.5, 10 * took))
    monkeypatch.setattr(pool, "_GRACE", max(0.5, 5 * took))


@linux
@pytest.mark.parametrize("what", ["killed", "stopped"])
@pytest.mark.filterwarnings("ignore")
def test_a_slot_may_be_hit_at_every_stage_of_its_start(what: str, impatient: None) -> None:
    before = children()
    with Executor(workers=1, limits=Limits(0.5, 0.5)) as made:
        if what == "killed":
            at_every_stage(made, signal.SIGKILL, 30, 0.15)
        else:
            at_every_stage(made, signal.SIGSTOP, 8, 0.15)
        made.run([job(NAP)] * 2)
        everything = family(made)
        folder = made._folder
    assert not os.path.exists(folder)
    assert children() <= before
    assert not everything & processes()


@linux
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_a_slot_may_be_hit_a_thousand_times_while_it_starts(impatient: None) -> None:
    for without in ((), ("namespaces",)):
        with Executor(workers=1, limits=Limits(0.5, 0.5), without=without) as made:
            at_every_stage(made, signal.SIGKILL, 450, 0.2)
            at_every_stage(made, signal.SIGSTOP, 50, 0.2)


@linux
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("without", [(), ("namespaces",)], ids=["all layers", "no namespaces"])
def test_a_folder_that_somebody_removed_is_made_again(without: tuple[str, ...]) -> None:
    """A cleaner of temporary files takes it while the executor runs: no program is judged without its box."""
    body = "open('x', 'w').write('y')\nreturn open('x').read()"
    with Executor(workers=2, without=without) as made:
        for _ in range(3):
            shutil.rmtree(made._folder)
            assert [outcome.values for outcome in made.run([job(body)] * 6)] == [("y",)] * 6
            hit(zygotes(made))
            assert [outcome.values for outcome in made.run([job(body)] * 6)] == [("y",)] * 6
        assert made.counters["sandbox-error"] == made.counters["repairs"] == 0
        folder = made._folder
    assert not os.path.exists(folder)


KILLED = """
import sys, tempfile
from azr_mlx.executor import Executor
tempfile.tempdir = sys.argv[1]
executor = Executor(workers=2)
print(executor._folder, flush=True)
sys.stdin.read()
"""


@linux
def test_what_an_executor_left_that_was_killed_with_all_its_slots_is_removed_by_the_next(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    trainer = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)], cwd=root, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert trainer.stdout is not None
    assert trainer.stdin is not None
    left = Path(trainer.stdout.readline().decode().strip())
    keepers = below(trainer.pid)
    hit([one for keeper in keepers for one in below(keeper)] + keepers, signal.SIGSTOP)  # or a slot removes the folder
    hit([trainer.pid, *keepers])
    trainer.communicate()
    assert (left / trial.FILE).exists()
    foreign, named = tmp_path / "foreign", tmp_path / f"{slots.PREFIX}link"
    foreign.mkdir()
    named.symlink_to(foreign)

    def old(*folders: Path) -> None:
        for folder in folders:
            os.utime(folder, (0, 0))

    with Executor(workers=1) as living:
        assert left.exists()  # its slots may be about to remove it
        old(left, Path(living._folder), foreign)
        with Executor(workers=1) as next_one:
            assert not left.exists()
            assert next_one.submit(job("return a")).result().value == 1
        assert living.submit(job("import os\nreturn os.path.isdir('.')")).result().value is True
        assert Path(living._folder).is_dir()
    assert sorted(tmp_path.iterdir()) == [named, foreign]


# ------------------------------------------------------------------------------------- a system short of everything


class Refusing:
    """Stands for a function of the system that is refused `times` times, or for ever, and then works."""

    def __init__(self, real: Callable[..., Any], error: BaseException, times: float = float("inf")) -> None:
        self.real, self.error, self.left = real, error, times

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        if self.left > 0:
            self.left -= 1
            raise self.error
        return self.real(*args, **keywords)


PLACES = {"folder": (tempfile, "mkdtemp"), "socket": (socket, "socketpair"), "process": (subprocess, "Popen")}


@linux
@pytest.mark.parametrize("number", ERRNOS, ids=errno.errorcode.get)
@pytest.mark.parametrize("place", PLACES)
def test_a_shortage_that_passes_is_waited_for(place: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module, name = PLACES[place]
    with Executor(workers=2) as made:
        made.run([job("return a")] * 2)
        monkeypatch.setattr(module, name, Refusing(getattr(module, name), OSError(number, os.strerror(number)), 5))
        hit(tops(made))
        assert [outcome.values for outcome in made.run([job("return a")] * 4)] == [(1,)] * 4
        # One slot may have done all jobs before the other is back, and with it the message.
        told, until = made.take_messages(), time.monotonic() + 30
        while not any(os.strerror(number) in message for message in told) and time.monotonic() < until:
            time.sleep(0.02)
            told += made.take_messages()
        assert any(os.strerror(number) in message for message in told)
        assert made.counters["sandbox-error"] == 0


@linux
@pytest.mark.parametrize("place", PLACES)
def test_a_shortage_that_stays_is_the_end_and_its_cause_is_told(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Futures that wait, and every later `submit`, raise one line that says what is wrong. Nothing is left behind."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, open_before = children(), descriptors()
    module, name = PLACES[place]
    with Executor(workers=2) as made:
        made.run([job("return a")] * 2)
        monkeypatch.setattr(
            module, name, Refusing(getattr(module, name), OSError(errno.ENOSPC, "No space left on device"))
        )
        futures: list[Future[Outcome]] = [made.submit(job("import time\ntime.sleep(1)")) for _ in range(4)]
        futures += [made.submit_check(job("return a")) for _ in range(2)]
        time.sleep(0.1)
        hit(tops(made))
        for future in futures:
            with pytest.raises(ExecutorFailed, match="No space left on device"):
                future.result(timeout=30)
        with pytest.raises(ExecutorFailed, match="No space left on device") as raised:
            made.submit(job("return a"))
        assert "\n" not in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    assert children() <= before
    assert descriptors() == open_before


SHORT = """
import resource
found = {}
for limit, low in (("NPROC", 0), ("NOFILE", 7), ("AS", 1 << 20)):
    with Executor(workers=1, without=("namespaces",)) as made:
        made.submit(Job("def f(x): return x", ("1",))).result()
        time.sleep(0.2)
        resource.prlimit(made._slots[0].process.pid, getattr(resource, f"RLIMIT_{limit}"), (low, low))
        # What it prints is more than the zygote has room for: it has to ask for memory.
        values = [outcome.values for outcome in made.run([Job("def f(x): print('x' * 400_000); return x", ("1",))] * 4)]
        found[limit] = [values, made.counters["slots-replaced"], made.counters["sandbox-error"], made.take_messages()]
print(json.dumps(found))
"""


@linux
def test_a_zygote_that_runs_short_is_replaced_and_says_of_what(root: Path) -> None:
    """fork, pipe and memory are refused inside the zygote itself: EAGAIN, EMFILE, ENOMEM."""
    causes = {"NPROC": "BlockingIOError", "NOFILE": "Too many open files", "AS": "emory"}
    for limit, (values, replaced, errors, said) in as_ordinary_user(SHORT, root).items():
        assert values == [[1]] * 4
        assert (replaced, errors) == (1, 0)
        assert causes[limit] in " ".join(said), said


# -------------------------------------------------------------------------------------------- faults of our own code


def internals() -> Iterator[tuple[str, Any, str]]:
    """Everything below the public methods: (name for the reader, owner, attribute)."""
    outside = {"_begin", "_loop", "_end", "_abandon"}  # the frame that the guards themselves are made of
    for owner in (Executor, SlotHandle, Folder):
        for name, member in vars(owner).items():
            public = owner is Executor and not name.startswith("_")
            if inspect.isfunction(member) and not public and not name.startswith("__") and name not in outside:
                yield f"{owner.__name__}.{name}", owner, name
    for name in ("_outcome", "_agree", "_named", "_then"):
        yield f"pool.{name}", pool, name
    for name in ("read_frame", "agree"):
        yield f"boundary.{name}", boundary, name
    yield "warnings.warn", pool.warnings, "warn"


INTERNALS = {name: (owner, attribute) for name, owner, attribute in internals()}


class Fault(Exception):
    """None of ours raises this."""


@linux
@pytest.mark.parametrize("often", ["once", "always"])
@pytest.mark.parametrize("name", INTERNALS)
def test_every_future_resolves_whatever_raises(name: str, often: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each internal function raises, once or for ever: no future hangs, no answer is wrong, and the cause is told."""
    owner, attribute = INTERNALS[name]
    made = Executor(workers=1)
    try:
        made.run([job("return a")] * 2)
        real = getattr(owner, attribute)
        left = [1.0 if often == "once" else float("inf")]

        def fails(*args: Any, **keywords: Any) -> Any:
            if left[0] > 0:
                left[0] -= 1
                raise Fault("on purpose")
            return real(*args, **keywords)

        monkeypatch.setattr(owner, attribute, fails)
        futures: list[Future[Outcome]] = []
        for number in range(3):
            with contextlib.suppress(Fault, RuntimeError):  # `submit` itself may say it at once
                futures.append(made.submit(job("return a", str(number))))
            with contextlib.suppress(Fault, RuntimeError):
                futures.append(made.submit_check(job("return a", str(number))))
        hit(tops(made))
        for future in futures:
            try:
                outcome = future.result(timeout=30)
            except ExecutorFailed as error:
                assert "Fault" in str(error)  # noqa: PT017
            else:
                assert outcome.ok or outcome.status is Status.SANDBOX_ERROR, outcome
        if often == "once":
            monkeypatch.undo()
            assert made.submit(job("return a")).result(timeout=30).value == 1
    finally:
        monkeypatch.undo()
        made.close()
    assert made._thread is not None
    assert not made._thread.is_alive()
    for slot in made._slots:  # what an end that always raises could not end
        slot.discard(made._boxes)
    assert made._boxes.close() == {}


def test_a_callback_of_the_caller_that_raises_harms_nobody_else() -> None:
    with Executor(workers=1) as made:

        def bad(_: Future[Outcome]) -> None:
            raise SystemExit("on purpose")

        futures = [made.submit(job("return a")) for _ in range(3)]
        futures[0].add_done_callback(bad)
        assert [future.result(timeout=20).value for future in futures] == [1, 1, 1]
        assert made.submit_check(job("return a")).result(timeout=20).value == 1
        assert made.counters["repairs"] == 0


def test_a_check_whose_future_was_cancelled_harms_nobody_else() -> None:
    with Executor(workers=1) as made:
        future = made.submit_check(job("import time\ntime.sleep(0.2)\nreturn a"))
        assert future.cancel()
        assert made.submit_check(job("return a")).result(timeout=20).value == 1


@linux
def test_answers_that_take_long_to_read_cost_no_other_slot_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """The I/O thread is busy beyond every deadline: what the others have answered meanwhile counts."""
    monkeypatch.setattr(pool, "_GRACE", 0.2)
    real = boundary.read_frame

    def slow(frame: bytes, *rest: Any) -> Any:
        if len(frame) > 1000:
            time.sleep(1.0)
        return real(frame, *rest)

    monkeypatch.setattr(boundary, "read_frame", slow)
    with Executor(workers=2, limits=Limits(0.3, 0.3)) as made:
        made.run([job("return a")] * 4)
        futures = [made.submit(job("return 'x' * 2000")) for _ in range(4)]
        futures += [made.submit(job("import time\ntime.sleep(0.1)\nreturn a")) for _ in range(4)]
        assert [future.result(timeout=30).status for future in futures] == [Status.OK] * 8
        assert made.counters["slots-replaced"] == 0


# ------------------------------------------------------------------------------------------------ a start that fails


STARTS: dict[str, tuple[Any, str, BaseException, type[BaseException]]] = {
    **{f"no {place}": (*where, OSError(errno.EMFILE, "Too many open files"), RuntimeError) for place, where in PLACES.items()},
    "no thread": (threading.Thread, "start", RuntimeError("can't start new thread"), RuntimeError),
    "no selector": (pool.selectors, "DefaultSelector", OSError(errno.EMFILE, "Too many open files"), RuntimeError),
    "Ctrl-C": (threading.Event, "wait", KeyboardInterrupt(), KeyboardInterrupt),
}  # fmt: skip


@linux
@pytest.mark.parametrize("what", STARTS)
def test_a_start_that_fails_leaves_nothing(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, open_before, threads = children(), descriptors(), threading.active_count()
    module, name, error, expected = STARTS[what]
    with monkeypatch.context() as patch:
        patch.setattr(module, name, Refusing(getattr(module, name), error))
        with pytest.raises(expected) as raised:
            Executor(workers=2)
    if expected is RuntimeError:
        assert "the sandbox did not start" in str(raised.value)
        assert str(error.args[-1]) in str(raised.value)
    assert list(tmp_path.iterdir()) == []
    assert children() <= before
    assert descriptors() == open_before
    until = time.monotonic() + 30  # the I/O thread is told to end, and does so when it has a turn
    while threading.active_count() > threads and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == threads


@linux
def test_an_interpreter_that_cannot_run_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "_base_executable", "/bin/false")
    with pytest.raises(RuntimeError, match="the sandbox did not start: no slot can be started"):
        Executor(workers=2)
    assert list(tmp_path.iterdir()) == []


@linux
def test_a_refusal_at_strict_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, open_before = children(), descriptors()
    with pytest.raises(SandboxUnavailable):
        Executor("strict", workers=1, without=("namespaces", "landlock", "seccomp"))
    assert list(tmp_path.iterdir()) == []
    assert children() <= before
    assert descriptors() == open_before


@linux
def test_a_slot_that_comes_up_less_confined_than_the_first_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_STARTS", 3)
    with Executor(workers=1) as made:
        assert made.submit(job("return a")).result().value == 1
        made._without = {"seccomp": "switched off"}
        hit(zygotes(made))
        while not made.counters["slots-replaced"]:  # until then it may answer once more
            time.sleep(0.01)
        with pytest.raises(ExecutorFailed, match="is confined otherwise than the first"):
            made.submit(job("return a")).result(timeout=60)
