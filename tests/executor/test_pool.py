"""The pool keeps order, loses nothing, and blames no program for a fault of its own."""

# ruff: noqa: E501, SIM117, PT031  a program stays on one line
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from azr_mlx.executor import Executor, Job, Limits, SandboxUnavailable, Status, find_layers
from tests.executor.conftest import job
from tests.executor.world import descriptors, family, processes, settle

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc or a layer of Linux")


def alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def gone(pids: set[int], seconds: float = 3.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not any(alive(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def test_outcomes_come_in_the_order_of_the_jobs(executor: Executor) -> None:
    jobs = [job(f"import time\ntime.sleep({0.05 if n % 5 == 0 else 0})\nreturn a", str(n)) for n in range(60)]
    assert [outcome.value for outcome in executor.run(jobs)] == list(range(60))


@linux
@pytest.mark.parametrize("victim", ["keeper", "zygote"])
def test_a_killed_slot_is_replaced_and_its_job_tried_again(victim: str) -> None:
    """The processes that run programs are killed, twice, while they work: no answer is wrong.

    A job is given up when its slot died under it three times, which a slot that is dead but not yet known to be may
    count for; hence two rounds can, rarely, use up the tries of a job, and then exactly that is said.
    """
    with Executor(workers=2) as made:
        made.run([job("return a")] * 4)
        before = settle(made)
        futures = [made.submit(job("import time\ntime.sleep(0.2)\nreturn a + 1", str(n))) for n in range(16)]
        for _ in range(2):
            end = time.monotonic() + 20
            while time.monotonic() < end and not all(slot.work is not None and slot.ready for slot in made._slots):
                time.sleep(0.01)
            time.sleep(0.05)
            tops = [slot.process.pid for slot in made._slots if slot.process is not None]
            for pid in tops if victim == "keeper" else [child for top in tops for child in children(top)]:
                with contextlib.suppress(ProcessLookupError):  # it may have ended by itself just now
                    os.kill(pid, signal.SIGKILL)
        outcomes = [future.result(timeout=60) for future in futures]
        given_up = [outcome for outcome in outcomes if outcome.status is Status.SANDBOX_ERROR]
        assert all(one.values == (n + 1,) for n, one in enumerate(outcomes) if one not in given_up), outcomes
        counted = made.counters
        assert counted["slots-replaced"] >= 2
        assert counted["retries"] >= 1
        assert len(given_up) == counted["sandbox-error"] <= counted["slots-replaced"] // 3
        assert counted["retries"] + counted["sandbox-error"] <= counted["slots-replaced"]
        assert all(outcome.detail.endswith("3 times") for outcome in given_up)
        assert settle(made, before) == before


def children(parent: int) -> list[int]:
    with open(f"/proc/{parent}/task/{parent}/children") as file:
        return [int(word) for word in file.read().split()]


@linux
def test_a_stopped_zygote_is_given_up_after_its_grace() -> None:
    with Executor(workers=1) as made:
        future = made.submit(job("import time\ntime.sleep(0.3)\nreturn a", limits=Limits(wall_seconds=0.5)))
        time.sleep(0.1)
        for pid in family(made):
            os.kill(pid, signal.SIGSTOP)
        assert future.result(timeout=20).value == 1
        assert made.counters["slots-replaced"] == 1


@linux
def test_a_job_whose_slot_always_dies_is_a_sandbox_error_not_a_wrong_answer() -> None:
    with Executor(workers=1) as made:
        stop = threading.Event()

        def killer() -> None:
            while not stop.is_set():
                time.sleep(0.05)
                slot = made._slots[0]
                if slot.work is not None and slot.process is not None:  # else it is starting
                    slot.process.kill()

        thread = threading.Thread(target=killer)
        thread.start()
        outcome = made.submit(job("import time\ntime.sleep(30)\nreturn a", limits=Limits(wall_seconds=60))).result(
            timeout=60
        )
        stop.set()
        thread.join()
        assert outcome.status is Status.SANDBOX_ERROR
        assert made.counters["sandbox-error"] == 1
        assert made.submit(job("return a")).result(timeout=30).value == 1


@linux
def test_closing_ends_everything_and_answers_everyone() -> None:
    others, open_before = processes(), descriptors()
    made = Executor(workers=2)
    mine = processes() - others
    futures = [made.submit(job("while True: pass")) for _ in range(6)]
    time.sleep(0.2)
    start = time.monotonic()
    made.close()
    made.close()
    assert time.monotonic() - start < 4
    assert {future.result(timeout=1).status for future in futures} == {Status.SANDBOX_ERROR}
    assert gone(mine)
    assert descriptors() == open_before
    assert not os.path.exists(made._folder)
    with pytest.raises(RuntimeError, match="closed"):
        made.submit(job("return 1"))


TRAINER = """
import sys, time
from azr_mlx.executor import Executor, Job
executor = Executor(workers=2)
jobs = [executor.submit(Job("def f(a):\\n    while True: pass", ("1",))) for _ in range(4)]
time.sleep(0.3)
print(executor._folder, flush=True)
time.sleep({after})
{end}
"""


@linux
@pytest.mark.parametrize("end", ["killed", "os._exit", "exception", "exit"])
def test_when_the_trainer_dies_everything_dies(root: Path, end: str) -> None:
    code = {"os._exit": "import os; os._exit(1)", "exception": "1 / 0", "exit": "sys.exit(0)", "killed": ""}[end]
    source = TRAINER.format(after=60 if end == "killed" else 0.2, end=code)
    trainer = subprocess.Popen(
        [sys.executable, "-c", source], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert trainer.stdout is not None
    folder = trainer.stdout.readline().decode().strip()
    assert os.path.isdir(folder)
    family = processes()
    if end == "killed":
        trainer.kill()
    trainer.wait(20)
    trainer.stdout.close()
    # Some of the family belong to the session's executor and live on.
    with Executor(workers=1):
        pass
    end_of = time.monotonic() + 3
    while time.monotonic() < end_of and any(_is_slot_of(pid, trainer.pid) for pid in family):
        time.sleep(0.05)
    assert not [pid for pid in family if _is_slot_of(pid, trainer.pid)]
    while time.monotonic() < end_of and os.path.exists(folder):
        time.sleep(0.05)
    assert not os.path.exists(folder)


def _is_slot_of(pid: int, parent: int) -> bool:
    """Whether a process is alive and was not adopted by somebody other than the dead trainer's heirs."""
    if not alive(pid):
        return False
    at = pid
    while at > 1:
        try:
            with open(f"/proc/{at}/stat") as file:
                at = int(file.read().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if at == os.getpid():
            return False  # the session's own
    return True


def test_strict_refuses_where_the_sandbox_is_missing() -> None:
    missing = ["namespaces", "root", "landlock", "seccomp", "seatbelt"]
    with pytest.raises(SandboxUnavailable, match="switched off"):
        Executor("strict", workers=1, without=missing)


def test_standard_says_once_what_is_missing() -> None:
    missing = ["namespaces", "root", "landlock", "seccomp", "seatbelt"]
    with pytest.warns(UserWarning, match="not fully confined") as seen:
        with Executor("standard", workers=1, without=missing) as made:
            assert made.submit(job("return a")).result().value == 1
    assert len(seen) == 1


def test_off_is_an_explicit_choice_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="unconfined"):
        with Executor("off", workers=1) as made:
            assert made.submit(job("import os\nreturn os.path.exists('/etc/hostname') or 1")).result().ok
            assert made.layers.active == ()
            loop = made.submit(job("while True: pass", limits=Limits(cpu_seconds=0.3))).result()
            assert (loop.status, loop.detail) == (Status.TIMEOUT, "cpu")


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(ValueError, match="strict, standard or off"):
        Executor("lax")


@linux
def test_strict_runs_where_the_sandbox_is_complete() -> None:
    if not find_layers().confined:
        pytest.skip("this machine does not confine fully")
    with Executor("strict", workers=1) as made:
        assert made.submit(job("return a")).result().value == 1


@linux
@pytest.mark.parametrize(
    "without",
    [["namespaces"], ["seccomp"], ["landlock"], ["namespaces", "landlock"], ["root"], ["uid", "capabilities"]],
)
def test_each_layer_alone_may_be_missing(without: list[str]) -> None:
    """Programs still run right, the layer is reported, and a bounded fork loop leaves no process behind."""
    fork = "import os\nfor _ in range(20):\n    if os.fork() == 0:\n        import time; time.sleep(5); os._exit(0)\nreturn 1"
    daemon = (
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        time.sleep(5)\n"
        "    os._exit(0)\nreturn 1"
    )
    with pytest.warns() if not find_layers(without=without).confined else _nothing():
        made = Executor(workers=1, without=without)
    try:
        ours = {"uid"} if os.geteuid() else set()  # only root has one to leave
        assert set(without) - ours <= set(made.layers.missing)
        assert made.submit(job("return a")).result().value == 1
        time.sleep(0.2)
        before = len(family(made))
        for body in (fork, daemon):
            made.submit(job(body)).result()
        assert made.submit(job("import os\nreturn os.listdir('.')")).result().value == []
        time.sleep(0.3)
        assert len(family(made)) == before
    finally:
        made.close()


class _nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


@linux
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="root only")
def test_root_never_runs_programs_as_root(executor: Executor) -> None:
    uids = (
        executor.submit(job("import os\nreturn os.getresuid() + os.getresgid() + tuple(os.getgroups())")).result().value
    )
    assert 0 not in uids  # type: ignore[operator]


def test_a_program_over_the_size_of_a_job_is_refused_not_sent(executor: Executor) -> None:
    ended = executor.submit(Job("#" * (40 << 20), ("1",))).result()
    assert ended.status is Status.EXCEPTION
    assert "over 32 MB" in ended.detail


def test_a_cancelled_job_is_not_run() -> None:
    with Executor(workers=1) as made:
        made.submit(job("import time\ntime.sleep(0.3)"))
        late = made.submit(job("return 1"))
        assert late.cancel()
        assert made.submit(job("return a")).result().value == 1
