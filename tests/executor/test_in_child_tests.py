"""Tests that share the program's process, for what two processes cannot tell: hardened, no proof, and never paid for."""

# ruff: noqa: E501  a program stays on one line
from __future__ import annotations

import functools
import gzip
import json
from pathlib import Path

import pytest

from azr_mlx.executor import Executor, Limits, Status
from azr_mlx.executor import TestJob as AnyTestJob

# The mode that a test gets which needs the program beside it; most of these would not.
TestJob = functools.partial(AnyTestJob, in_process=True)

CHECK = "def check(candidate):\n    assert candidate(1) == 1\n    assert candidate(2) == 2\n"


def test_a_right_program_passes(executor: Executor) -> None:
    assert executor.submit(TestJob("def g(x):\n    return x", CHECK, "g")).result().ok


def test_a_wrong_program_fails_and_the_assertion_is_named(executor: Executor) -> None:
    ended = executor.submit(TestJob("def g(x):\n    return 1", CHECK, "g")).result()
    assert ended.status is Status.FAILED
    assert "assert candidate(2) == 2" in ended.detail


def test_plain_asserts_without_an_entry_point(executor: Executor) -> None:
    good = TestJob("def g(x):\n    return (x, [x])", "assert g(1) == (1, [1])\nassert g(2)[0] > 1.5")
    bad = TestJob("def g(x):\n    return (x, [x])", "assert g(1) == [1, [1]]")
    assert executor.submit(good).result().ok
    assert executor.submit(bad).result().status is Status.FAILED


def test_an_int_may_equal_a_float(executor: Executor) -> None:
    assert executor.submit(TestJob("def g():\n    return 2", "assert g() == 2.0")).result().ok


def test_a_test_may_make_instances_of_the_programs_classes(executor: Executor) -> None:
    source = "class Pair:\n    def __init__(self, a, b):\n        self.a, self.b = a, b\ndef g(ps):\n    return ps[0].b"
    assert executor.submit(TestJob(source, "assert g([Pair(1, 2)]) == 2")).result().ok


CHEATS = {
    "always equal": "class E:\n    def __eq__(s, o): return True\ndef g(x): return E()",
    "always equal int": "class E(int):\n    def __eq__(s, o): return True\n    __hash__ = int.__hash__\ndef g(x): return E(0)",
    "never unequal": "class E(int):\n    def __ne__(s, o): return False\n    def __eq__(s, o): return True\ndef g(x): return E(9)",
    "hidden in a list": "class E:\n    def __eq__(s, o): return True\ndef g(x): return [E()]",
    "metaclass": "class M(type):\n    def __eq__(c, o): return True\n    __hash__ = type.__hash__\n"
    "class E(metaclass=M):\n    def __eq__(s, o): return True\ndef g(x): return E()",
    "exit at import": "import os\nos._exit(0)",
    "exit in the call": "import os\ndef g(x): os._exit(0)",
    "SystemExit": "def g(x): raise SystemExit(0)",
    "exit in a thread": "import os, threading\ndef g(x):\n    threading.Thread(target=lambda: os._exit(0)).start()\n    while 1: pass",
    "check overwritten": "def check(c): pass\ndef g(x): return 0",
    "AssertionError swallowed": "import builtins\nbuiltins.AssertionError = type('A', (Exception,), {})\ndef g(x): return 0",
    "built-ins overwritten": "import builtins\nfor n in ('len', 'sorted', 'all', 'abs', 'isinstance'):\n    setattr(builtins, n, lambda *a, **k: True)\ndef g(x): return 0",
    "frames walked to the expected value": "import sys\ndef g(x):\n    f = sys._getframe()\n    while f:\n        f = f.f_back\n    return 0",
    "traceback walked to the test": "def g(x):\n    try: 1 / 0\n    except Exception as e: f = e.__traceback__.tb_frame\n    while f:\n"
    "        if 'check' in f.f_code.co_name: return x\n        f = f.f_back\n    return 0",
    "all frames": "import sys\ndef g(x):\n    return x if len(sys._current_frames()) > 1 else 0",
    "forged frame": "import os, struct\ndef g(x):\n    os.write(3, struct.pack('<I', 1) + b'o')\n    os._exit(0)",
    "forged frame with a token of noughts": "import os, struct\ndef g(x):\n    os.write(3, struct.pack('<I', 17) + b'o' + bytes(16))\n    os._exit(0)",
    "harness replaced": "import sys\nfor m in list(sys.modules.values()):\n    if hasattr(m, 'send_values'): m.send_values([])\ndef g(x): return 0",
    "trace function": "import sys\nsys.settrace(lambda *a: None)\ndef g(x): return 0",
    "math replaced": "import math\nmath.isclose = lambda *a, **k: True\ndef g(x): return 0",
}


@pytest.mark.parametrize("cheat", CHEATS, ids=lambda name: name.replace(" ", "-"))
def test_a_program_that_only_pretends_does_not_pass(executor: Executor, cheat: str) -> None:
    check = CHECK + "    import math\n    assert math.isclose(candidate(3), 3)\n    assert len([1, 2]) == 2\n"
    ended = executor.submit(TestJob(CHEATS[cheat], check, "g", Limits(2, 2))).result()
    assert not ended.ok
    assert ended.status is not Status.SANDBOX_ERROR


@pytest.mark.parametrize(
    "use",
    [
        "import doctest\ndoctest.testmod()\n",
        "import logging\nlogging.warning('x')\n",
        "import sys\nassert sys._getframe(0).f_lineno == 4\nsys.settrace(lambda *a: None)\n",
        "import gc\ngc.get_referrers(gc.get_objects())\n",
        "from collections import namedtuple\nP = namedtuple('P', 'x')\n",
    ],
)
def test_what_honest_programs_use_of_the_interpreter_is_there(executor: Executor, use: str) -> None:
    source = f"def g(x):\n    return x\n{use}"
    ended = executor.submit(TestJob(source, "assert g(1) == 1", limits=Limits(5, 5), in_process=True)).result()
    assert ended.ok, ended.detail


def test_a_program_that_is_always_true_does_not_pass_a_bare_assert(executor: Executor) -> None:
    source = "class E:\n    def __bool__(s): return True\n    def __sub__(s, o): return 0.0\n    def __abs__(s): return 0\ndef g(x): return E()"
    for test in ("assert g(1)", "assert abs(g(1) - 2) < 1e-6"):
        assert executor.submit(TestJob(source, test)).result().status is Status.FAILED


def _rows(path: Path) -> list[dict]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt") as file:
        return [json.loads(line) for line in file]


def test_every_humaneval_reference_passes(executor: Executor, shared: Path) -> None:
    rows = _rows(shared / "data/humaneval/HumanEval.jsonl.gz")
    limits = Limits(wall_seconds=20, cpu_seconds=20)
    jobs = [TestJob(row["prompt"] + row["canonical_solution"], row["test"], row["entry_point"], limits) for row in rows]
    assert [row["task_id"] for row, ended in zip(rows, executor.run(jobs), strict=True) if not ended.ok] == []


@pytest.mark.slow
def test_every_mbpp_reference_passes(executor: Executor, shared: Path) -> None:
    rows = _rows(shared / "data/mbpp/mbpp.jsonl")
    limits = Limits(wall_seconds=20, cpu_seconds=20)
    jobs = [TestJob(row["code"], "\n".join([row["test_setup_code"], *row["test_list"]]), limits=limits) for row in rows]
    assert [row["task_id"] for row, ended in zip(rows, executor.run(jobs), strict=True) if not ended.ok] == []
