"""Score completions that come from anywhere: no model is loaded, the programs run in the sandbox.

    python examples/score_completions.py

The same from the command line: azr eval --bench humaneval --completions FILE.jsonl
"""

from pathlib import Path

from azr_mlx.evaluation import Judge, find_rows, load_benchmark, problems_of
from azr_mlx.executor import Executor

COMPLETIONS = {
    "tiny/0": ["    return 2 * x\n", "    return x + x\n", "    return x ** 2\n"],
    "tiny/1": ["    return items[-1]\n", "    return sorted(items)[-1]\n", "    while True: pass\n"],
}

if __name__ == "__main__":  # the executor starts processes
    benchmark = load_benchmark(str(Path(__file__).parent / "benchmark" / "tiny.yaml"))
    problems = problems_of(benchmark, find_rows(benchmark))
    with Executor() as executor:
        judge = Judge(benchmark, executor)
        for problem in problems:
            for completion in COMPLETIONS[problem.id]:
                print(f"{problem.id}  {completion.strip():<26} {judge(problem, completion).result}")
