"""Hostile programs, one at a time and all at once, run as root and as an ordinary user where the tests are root's.

Contained means: the right status, within the limit and a second, nothing read, written, reached or left behind, and
the next honest program is right.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from azr_mlx.executor import Executor, Job, Limits
from tests.executor.attacks import ATTACKS, Attack
from tests.executor.world import World, children, descriptors, let_loose, settle

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts processes through /proc")


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    made = World()
    yield made
    made.close()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: f"{attack.number}-{attack.name.replace(' ', '-')}")
def test_the_attack_is_contained(executor: Executor, world: World, attack: Attack) -> None:
    if "AZR_TEST_MAC" in os.environ and attack.name == "deep folders":
        pytest.skip("an emulated Mac judges paths of 2,000 folders in Python, which takes longer than the slot may")
    _, wrong = let_loose(executor, attack, world)
    assert not wrong


@linux
def test_nothing_is_left_behind(world: World) -> None:
    """Processes, descriptors, boxes and shared memory are as many after two rounds of attacks as after one."""
    shared_memory = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    quick = [attack for attack in ATTACKS if attack.wall <= 2][:70]
    others = children()  # of executors that other tests keep open, and that may be mending themselves
    with Executor(workers=2) as made:
        jobs = [
            Job(world.fill(attack.program), ("1",), limits=Limits(0.5, 0.5, 128, 1 << 16, 1 << 16)) for attack in quick
        ]
        made.run(jobs)
        before = settle(made)
        made.run(jobs)
        assert settle(made, before) == before
        assert made.counters["sandbox-error"] == 0
        folder = made._folder
    assert not os.path.exists(folder)
    assert children() <= others
    if os.path.isdir("/dev/shm"):
        assert set(os.listdir("/dev/shm")) <= shared_memory


def test_one_hundred_honest_programs_among_one_hundred_hostile_ones(world: World) -> None:
    """Each honest program is right, each hostile one ends as it should, and none takes longer than its share."""
    limits = Limits(1.0, 0.4, 128, 1 << 16, 1 << 16)
    hostile = [
        Job(world.fill(attack.program), ("1",), limits=limits) for attack in ATTACKS if len(attack.program) < 10**6
    ]
    jobs: list[Job] = []
    for number in range(100):
        jobs.append(Job("def f(a):\n    return sum(range(a))", (str(number),)))
        jobs.append(hostile[number % len(hostile)])
    with Executor(workers=2) as made:
        start = time.monotonic()
        outcomes = made.run(jobs)
        took = time.monotonic() - start
    for number in range(100):
        assert outcomes[2 * number].values == (number * (number - 1) // 2,), outcomes[2 * number]
        assert outcomes[2 * number + 1].status.value != "sandbox-error", outcomes[2 * number + 1]
    assert took < 60
    assert not world.hits
    assert world.listing() == world.before


ORDINARY_USER = """
import json, os, sys, types
root, only = sys.argv[1:]
for name, path in (("azr_mlx", root + "/azr_mlx"),):
    package = types.ModuleType(name); package.__path__ = [path]; sys.modules[name] = package
sys.path.insert(0, root + "/tests/executor")
from azr_mlx.executor import Executor
from attacks import ATTACKS
from world import World, let_loose
os.environ["HF_TOKEN"] = "not-a-token"
world = World()
report = {"uid": os.getuid(), "wrong": {}}
try:
    with Executor(workers=2) as executor:
        report["layers"] = list(executor.layers.active)
        report["missing"] = executor.layers.missing
        for attack in ATTACKS:
            outcome, wrong = let_loose(executor, attack, world)
            if wrong:
                report["wrong"][f"{attack.number} {attack.name}"] = wrong
        report["counters"] = dict(executor.counters)
finally:
    world.close()
print(json.dumps(report))
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user")
def test_the_attacks_are_contained_for_an_ordinary_user_too(root: Path) -> None:
    """Everything above again as uid 65534, with the system's Python, since root's own may be closed to others."""
    python = "/usr/bin/python3"
    version = subprocess.run(
        [python, "-c", "import sys; print(sys.version_info >= (3, 11))"], capture_output=True, text=True
    )
    if version.stdout.strip() != "True":
        pytest.skip(f"{python} is not Python 3.11 or newer")
    done = subprocess.run(
        [python, "-B", "-c", ORDINARY_USER, str(root), ""],
        user=65534,
        group=65534,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=280,
        cwd="/tmp",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout)
    assert report["uid"] == 65534
    assert {"namespaces", "landlock", "seccomp"} <= set(report["layers"]), report
    assert report["wrong"] == {}


@pytest.mark.slow
@linux
def test_ten_thousand_programs_leave_the_trainer_flat() -> None:
    """Descriptors, processes and memory of the parent are the same after 10,000 programs in a row."""

    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    with Executor(workers=2) as made:
        batch = [Job("def f(a):\n    return [a] * 10", (str(n),)) for n in range(1000)]
        made.run(batch)
        made.run(batch)
        before, memory = settle(made), resident()
        for _ in range(10):
            assert all(outcome.ok for outcome in made.run(batch))
        assert settle(made, before) == before
        assert resident() - memory < 8 << 20
        assert made.counters["slots-replaced"] == 0
    assert descriptors() > 0


@pytest.mark.slow
@linux
@pytest.mark.parametrize("without", [[], ["--without", "namespaces"]], ids=["all layers", "no namespaces"])
def test_two_thousand_programs_a_third_hostile_leave_everything_flat(root: Path, without: list[str]) -> None:
    """Descriptors, memory, processes and boxes as at the start, every verdict right: the soak in short."""
    command = [sys.executable, "benchmarks/fuzz/soak.py", "--programs", "2000", *without]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
