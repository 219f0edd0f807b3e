"""Thousands of programs in a row through one executor, a third of them hostile: is everything as it was at the start?

    python benchmarks/fuzz/soak.py [--programs 20000] [--workers 2] [--without namespaces] [--json FILE]

Hostile are the attacks of the tests (tests/executor/attacks.py) and programs that change whatever they share with the
next one; honest are programs whose values are known. Printed after each tenth: wrong verdicts, open descriptors and
resident memory of this process, processes and resident memory of the slots, boxes in the executor's folder. Exit code
1 when a verdict is wrong or something grew.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from azr_mlx.executor import Executor, Job, Limits, Status
from tests.executor.attacks import ATTACKS
from tests.executor.test_between_programs import CHANGES
from tests.executor.world import World, descriptors, family, settle

LIMITS = Limits(wall_seconds=1.0, cpu_seconds=0.3, memory_mb=128, output_bytes=1 << 16, result_bytes=1 << 16)
PATIENT = Limits(wall_seconds=20.0, cpu_seconds=20.0)  # a busy machine must not end an honest program


def resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def honest(number: int) -> tuple[Job, object]:
    """A program and its value; some print, write files, make threads, return much."""
    thread = "t = threading.Thread(target=r.append, args=(a,))\n    t.start()\n    t.join()"
    body, value = [
        ("return [a, a * 2]", [number, number * 2]),
        ("print('x' * 100)\n    return {a: 'y' * 50}", {number: "y" * 50}),
        ("import os\n    open('f', 'w').write(str(a))\n    return os.listdir('.')", ["f"]),
        (f"import threading\n    r = []\n    {thread}\n    return r", [number]),
        ("return list(range(a, a + 2000))", list(range(number, number + 2000))),
        ("return sum(i * i for i in range(a % 500))", sum(i * i for i in range(number % 500))),
    ][number % 6]
    return Job(f"def f(a):\n    {body}", (str(number),), limits=PATIENT), value


def hostile(world: World) -> list[tuple[Job, object]]:
    """Programs, and a value that must not come back. Those that run to their limits come once, the others often."""
    found: list[tuple[Job, object]] = []
    for attack in ATTACKS:
        if len(attack.program) < 100_000:
            slow = "timeout" in attack.status or attack.wall > 2
            job = Job(world.fill(attack.program), ("1",), limits=LIMITS)
            found += [(job, attack.honest)] * (1 if slow else 12)
    for change in CHANGES.values():
        body = f"import fcntl, os\ndef f(a):\n    try:\n        {change}\n    except OSError: pass\n    return 1"
        found += [(Job(body, ("1",), limits=LIMITS), None)] * 6
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--without", action="append", default=[], help="a layer to switch off")
    parser.add_argument("--json", help="also write what was measured to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rng, world = random.Random(20), World()
    attacks, tenth = hostile(world), max(1, options.programs // 10)
    wrong: list[str] = []
    statuses: Counter[str] = Counter()
    rows: list[Any] = []

    def batch(executor: Executor, first: int, count: int) -> None:
        jobs = [honest(first + n) if n % 3 else rng.choice(attacks) for n in range(count)]
        for n, (outcome, (_, value)) in enumerate(zip(executor.run([job for job, _ in jobs]), jobs, strict=True)):
            statuses[f"{'honest' if n % 3 else 'hostile'} {outcome.status}"] += 1
            if n % 3 and outcome.values != (value,):
                wrong.append(f"honest {first + n}: {outcome.status} {outcome.detail}")
            if not n % 3 and (
                outcome.status is Status.SANDBOX_ERROR or (value is not None and outcome.values == (value,))
            ):
                wrong.append(f"hostile {first + n}: {outcome.status} {outcome.detail} {jobs[n][0].program[:200]!r}")

    with Executor("standard", PATIENT, options.workers, without=options.without) as executor:
        batch(executor, 0, tenth)
        executor.run([honest(1)[0]] * 200)
        executor.submit_check(honest(1)[0]).result()

        def look(done: int) -> dict[str, int]:
            processes, open_ = settle(executor)
            row = {
                "programs": done, "wrong": len(wrong), "descriptors": open_, "processes": processes,
                "trainer_mb": resident(os.getpid()) >> 20,
                "slots_mb": sum(resident(pid) for pid in family(executor)) >> 20,
                "boxes": len(os.listdir(executor._folder)) - 1, "replaced": executor.counters["slots-replaced"],
                "seconds": round(time.monotonic() - began),
            }  # fmt: skip
            rows.append(row)
            print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
            return row

        began = time.monotonic()
        before = look(0)
        for done in range(0, options.programs, tenth):
            batch(executor, done, min(tenth, options.programs - done))
            after = look(min(done + tenth, options.programs))
        folder = executor._folder
        print(f"layers {', '.join(executor.layers.active)}; counters {dict(executor.counters)}")
    for name, room in {"descriptors": 0, "processes": 0, "boxes": 0, "trainer_mb": 24, "slots_mb": 24}.items():
        if after[name] > before[name] + room:
            wrong.append(f"{name} grew from {before[name]} to {after[name]}")
    if os.path.exists(folder):
        wrong.append(f"{folder} is left")
    if world.hits or world.listing() != world.before:
        wrong.append(f"the world changed: {world.hits} {world.listing()}")
    world.close()
    print("; ".join(f"{name} {count}" for name, count in sorted(statuses.items())))
    print("\n".join(wrong[:20]) or "all verdicts right, nothing grew, nothing left")
    if options.json:
        record = {"rows": rows, "statuses": statuses, "wrong": wrong, "descriptors": descriptors()}
        Path(options.json).write_text(json.dumps(record, indent=1))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
