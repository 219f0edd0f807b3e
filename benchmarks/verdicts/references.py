"""The reference solutions of a benchmark as completions, for `azr eval --completions` to judge.

    python -m benchmarks.verdicts.references mbpp --split all --data mbpp.jsonl --out mbpp.references.jsonl
    azr eval --bench mbpp --split all --data mbpp.jsonl --completions mbpp.references.jsonl

Every score has to be 100 %. Of APPS the first two solutions are written, and --k 2 asks whether one of them is right.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from azr_mlx import evaluation


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("bench")
    words.add_argument("--split", default="")
    words.add_argument("--data", type=Path)
    words.add_argument("--out", type=Path, required=True)
    given = words.parse_args()
    benchmark = evaluation.load_benchmark(given.bench)
    problems = evaluation.problems_of(benchmark, evaluation.find_rows(benchmark, given.data), given.split)
    # A problem with one solution only has it twice, so that pass@2 can be asked for.
    which = {"input": [1], "output": [0], "tests": [0, 1]}.get(benchmark.scorer, [0])
    with given.out.open("w", encoding="utf-8") as file:
        for problem in problems:
            for number in which:
                completion = problem.solutions[min(number, len(problem.solutions) - 1)]
                file.write(json.dumps({"task_id": problem.id, "completion": completion}) + "\n")
    print(f"{len(problems)} problems, {len(problems) * len(which)} completions in {given.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
