"""Statuses mean what they say, values come back exactly, and order is kept."""

# ruff: noqa: E501  a program stays on one line
from __future__ import annotations

import math
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from azr_mlx.executor import Executor, Job, Limits, Status, StdinJob
from azr_mlx.executor.watch import Watch
from tests.executor.conftest import job, program


def outcome(executor: Executor, body: str, *inputs: str, limits: Limits | None = None):
    return executor.submit(job(body, *inputs, limits=limits)).result()


def test_each_input_gives_one_value_in_order(executor: Executor) -> None:
    assert outcome(executor, "return a * 2", "1", "'x'", "[1]", "a=3").values == (2, "xx", [1, 1], 6)


def test_each_input_meets_a_fresh_program(executor: Executor) -> None:
    source = "seen = []\ndef f(a):\n    seen.append(a)\n    return seen"
    assert executor.submit(Job(source, ("1", "2"))).result().values == ([1], [2])


def test_arguments_may_use_what_the_program_defines(executor: Executor) -> None:
    source = "class A:\n    def __init__(self, x): self.x = x\ndef f(a, b):\n    return a.x + b['k']"
    assert executor.submit(Job(source, ("A(3), dict(k=4)",))).result().values == (7,)


def test_dataclasses_and_enums_work_in_programs(executor: Executor) -> None:
    source = (
        "from __future__ import annotations\nfrom dataclasses import dataclass\nfrom enum import Enum\n"
        "from typing import NamedTuple\nclass C(Enum):\n    R = 1\nclass N(NamedTuple):\n    x: int\n"
        "@dataclass\nclass P:\n    x: int\ndef f(a):\n    return [P(a).x, C.R.value, N(3).x]"
    )
    assert executor.submit(Job(source, ("1",))).result().values == ([1, 1, 3],)


def test_arguments_that_are_no_single_call_never_reach_the_function(executor: Executor) -> None:
    ended = executor.submit(Job("def f(a):\n    return a", ("5) or (True",))).result()
    assert ended.status is Status.EXCEPTION
    assert "bad arguments" in ended.detail


def test_special_values_survive(executor: Executor) -> None:
    value = outcome(
        executor, "return [float('nan'), float('inf'), -0.0, 10**5000, '\\ud800', {1: {2}}, b'x', 1j]"
    ).value
    assert math.isnan(value[0])
    assert value[1] == math.inf
    assert math.copysign(1, value[2]) == -1
    assert value[3:] == [10**5000, "\ud800", {1: {2}}, b"x", 1j]


@pytest.mark.parametrize(
    ("body", "status", "detail"),
    [
        ("raise ValueError('no')", Status.EXCEPTION, "ValueError: no (line 2)"),
        ("raise ValueError('x' * 10**6)", Status.EXCEPTION, "ValueError: xxx"),
        ("raise KeyboardInterrupt", Status.EXCEPTION, "KeyboardInterrupt"),
        ("raise StopIteration", Status.EXCEPTION, "StopIteration"),
        ("return 1 +", Status.EXCEPTION, "SyntaxError"),
        ("import sys\nsys.exit(3)", Status.EXITED_EARLY, "SystemExit(3)"),
        ("import os\nos._exit(3)", Status.EXITED_EARLY, "exit code 3"),
        # macOS has no limit of address space: the slot watches, and ends the program.
        ("return bytearray(4 << 30)", Status.MEMORY, "over 512 MB" if sys.platform == "darwin" else "MemoryError"),
        ("return object()", Status.BAD_RESULT, "not plain data: object"),
        ("return lambda: 1", Status.BAD_RESULT, "not plain data: function"),
        ("return (x for x in 'ab')", Status.BAD_RESULT, "not plain data: generator"),
        ("open('/etc/passwd')", Status.EXCEPTION, "No such file"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_the_status_and_detail_of(executor: Executor, body: str, status: Status, detail: str) -> None:
    ended = outcome(executor, body)
    if "passwd" in body and (ended.status is Status.FORBIDDEN or not executor.layers.files):
        return  # where something other than a root of its own hides it, or nothing does
    assert ended.status is status
    assert detail in ended.detail
    assert len(ended.detail) <= 400
    assert ended.values == ()


def test_a_missing_function_is_said(executor: Executor) -> None:
    assert "no function g" in executor.submit(Job("def f(a): pass", ("1",), "g")).result().detail


def test_timeouts_say_which_clock_ran_out(executor: Executor) -> None:
    limits = Limits(wall_seconds=3, cpu_seconds=0.3)
    spun = outcome(executor, "while True: pass", limits=limits)
    slept = outcome(executor, "import time\ntime.sleep(99)", limits=Limits(wall_seconds=0.3))
    assert (spun.status, spun.detail) == (Status.TIMEOUT, "cpu")
    assert (slept.status, slept.detail) == (Status.TIMEOUT, "wall")
    assert 0.3 <= spun.cpu_seconds < 1
    assert 0.3 <= slept.wall_seconds < 1


def test_what_a_program_prints_is_kept_up_to_the_cap(executor: Executor) -> None:
    ended = outcome(executor, "import sys\nprint('out')\nprint('err', file=sys.stderr)\nreturn 1")
    assert (ended.stdout, ended.stderr) == ("out\n", "err\n")
    flood = outcome(executor, "print('x' * 5000)\nreturn 1", limits=Limits(output_bytes=1000))
    assert flood.status is Status.OUTPUT_LIMIT
    assert len(flood.stdout) == 1000


def test_time_and_memory_are_measured(executor: Executor) -> None:
    ended = outcome(executor, "x = bytearray(50 << 20)\nreturn sum(range(10**6))")
    assert 0 < ended.wall_seconds < 5
    assert 0 < ended.cpu_seconds < 5
    assert ended.peak_memory > 50 << 20


def test_a_script_reads_stdin_and_may_leave_by_exit(executor: Executor) -> None:
    source = "import sys\nn = int(input())\nprint(sum(map(int, sys.stdin.read().split())) * n)\nexit()"
    assert executor.submit(StdinJob(source, "2\n1 2 3\n")).result().stdout == "12\n"
    assert executor.submit(StdinJob("import sys; sys.exit(1)")).result().status is Status.EXITED_EARLY
    assert executor.submit(StdinJob("print(__name__)")).result().stdout == "__main__\n"
    big = "x" * 3_000_000
    assert executor.submit(StdinJob("import sys\nprint(len(sys.stdin.read()))", big)).result().stdout == "3000000\n"


def test_two_runs_that_agree_are_deterministic(executor: Executor) -> None:
    checked = executor.submit_check(Job(program("return {x: len(x) for x in set(a)}"), ("['a', 'bb']", "['c']")))
    assert checked.result().values == ({"a": 1, "bb": 2}, {"c": 1})
    assert executor.submit_check(job("return [float('nan')]")).result().ok


@pytest.mark.parametrize(
    "body",
    [
        "import time\nreturn time.perf_counter_ns()",
        "import random\nreturn random.random()",
        "import uuid\nreturn uuid.uuid4().hex",
        "import os\nreturn os.urandom(8)",
        "return hash('abc')",
        "return list({'a', 'b', 'c', 'd', 'e', 'f'})",
        "import secrets\nreturn secrets.randbits(64)",
        "return 1 if hash('abc') % 2 else 1.0",
        "import sys\nif sys.flags.hash_randomization: raise ValueError\nreturn 1",
    ],
    ids=lambda body: body.split("return ")[-1][:30],
)
def test_two_runs_that_differ_are_not(executor: Executor, body: str) -> None:
    assert executor.submit_check(job(body)).result().status is Status.NOT_DETERMINISTIC


def test_a_program_that_remembers_its_calls_is_not_deterministic(executor: Executor) -> None:
    source = "import builtins\ndef f(a):\n    builtins.n = getattr(builtins, 'n', 0) + 1\n    return builtins.n"
    assert executor.submit_check(Job(source, ("1", "2"))).result().status is Status.NOT_DETERMINISTIC


def test_no_program_sees_what_another_one_did(executor: Executor) -> None:
    spoil = "import builtins, sys, math\nbuiltins.repr = None\nmath.pi = 3\nsys.path.clear()\nopen('x', 'w').write('y')\nreturn 1"
    look = "import math, os, sys\nreturn [repr(1), math.pi > 3, os.listdir('.'), bool(sys.path)]"
    for _ in range(4):
        assert outcome(executor, spoil).ok
        assert outcome(executor, look).value == ["1", True, [], True]


def test_many_threads_may_submit_at_once(executor: Executor) -> None:
    found: dict[int, list[object]] = {}

    def work(number: int) -> None:
        found[number] = [executor.submit(job("return a", str(number * 100 + k))).result().value for k in range(20)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {number: [number * 100 + k for k in range(20)] for number in range(8)}


def test_importing_the_executor_imports_no_mlx_and_little_else(root: Path) -> None:
    code = "import sys\nimport azr_mlx.executor\nprint([m for m in ('mlx', 'numpy', 'yaml', 'mlx_lm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("wrong", [{"wall_seconds": 0}, {"cpu_seconds": -1}, {"memory_mb": 0}, {"output_bytes": 0}])
def test_limits_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Limits(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("share", "asleep"),
    [(0.0, 4.0), (0.0001, 4.0), (0.005, 0.0), (1.0, 0.0)],
    ids=["sleeps", "sleeps and looks up now and then", "waits for its turn on a busy machine", "runs"],
)
def test_only_a_program_that_does_not_even_want_a_processor_counts_as_asleep(share: float, asleep: float) -> None:
    watch = Watch.__new__(Watch)
    watch.started, watch.mark, watch.asleep = 100.0, (0.0, 0.0), 0.0
    for i in range(1, 81):  # looks in the course of four seconds
        watch.cpu = 0.01 + share * i / 20
        watch._count_sleep(100.0 + i / 20)
    # What the interpreter takes at the beginning is no sleep, so that the first second may be left out.
    assert asleep - 1.05 <= watch.asleep <= asleep
