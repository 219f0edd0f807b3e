"""A small benchmark of our own in each format, written as files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from azr_mlx import evaluation, paths
from azr_mlx.evaluation import Benchmark, Judge, Problem
from azr_mlx.executor import Executor


@pytest.fixture(scope="session")
def executor() -> Iterator[Executor]:
    with Executor(workers=2) as made:
        yield made


HUMANEVAL = [
    {
        "task_id": "Own/0",
        "prompt": 'import math\n\n\ndef area(radius):\n    """The area of a circle."""\n',
        "entry_point": "area",
        "canonical_solution": "    return math.pi * radius ** 2\n",
        "test": "def check(candidate):\n    assert abs(candidate(1) - 3.141593) < 1e-6\n    assert candidate(0) == 0\n",
    },
    {
        "task_id": "Own/1",
        "prompt": 'def twice(x):\n    return 2 * x\n\n\ndef four_times(x):\n    """Four times x, by twice."""\n',
        "entry_point": "four_times",
        "canonical_solution": "    return twice(twice(x))\n",
        "test": "def check(candidate):\n    assert candidate(3) == 12\n    assert candidate('a') == twice('aa')\n",
    },
]

MBPP = [
    {
        "text": "Write a function to add two numbers.",
        "code": "def add(a, b):\r\n    return a + b",
        "task_id": 2,
        "test_setup_code": "",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"],
        "challenge_test_list": [],
    },
    {
        "text": "Write a function to give the value of a node.",
        "code": "class Node:\n    def __init__(self, v):\n        self.v = v\n\ndef value(n):\n    return n.v",
        "task_id": 12,
        "test_setup_code": "root = Node(7)",  # needs the solution's own class: it must run after the code
        "test_list": ["assert value(root) == 7"],
        "challenge_test_list": [],
    },
]

EVALPLUS = [
    {
        "task_id": "Own/0",
        "prompt": 'def half(x):\n    """Half of x."""\n',
        "entry_point": "half",
        "canonical_solution": "    return x / 2\n",
        "base_input": [[4], [1]],
        "plus_input": [[0], [-3], [1e300]],
        "atol": 0,
    },
    {
        "task_id": "Mbpp/2",  # the order of the result is free, and its arguments are tuples
        "prompt": '"""\nThe shared elements of two tuples.\n"""\n',
        "entry_point": "shared",
        "canonical_solution": "\ndef shared(a, b):\n    return tuple(set(a) & set(b))\n",
        "base_input": [[[3, 4, 5], [4, 5, 6]]],
        "plus_input": [[[], []]],
        "atol": 0,
    },
]

APPS = [
    {
        "problem_id": 0,
        "question": "Read n, then n numbers. Print their sum.",
        "solutions": json.dumps(["n = int(input())\nprint(sum(map(int, input().split())))"]),
        "input_output": json.dumps({"inputs": ["2\n3 4\n", ["1", "9"]], "outputs": ["7\n", ["9"]]}),
        "difficulty": "introductory",
        "starter_code": "",
    },
    {
        "problem_id": 1,
        "question": "Reverse a list.",
        "solutions": json.dumps(["class Solution:\n    def turn(self, a: List[int]):\n        return tuple(a[::-1])"]),
        "input_output": json.dumps({"fn_name": "turn", "inputs": [[[1, 2]], [[]]], "outputs": [[[2, 1]], []]}),
        "difficulty": "interview",
        "starter_code": "class Solution:\n    def turn(self, a: List[int]):\n        ",
    },
    {
        "problem_id": 2,
        "question": "Nobody kept the tests of this one.",
        "solutions": "",
        "input_output": "",
        "difficulty": "competition",
        "starter_code": "",
    },
]

CRUXEVAL = [
    {"id": "sample_0", "code": "def f(a):\n    return sorted(a)", "input": "[3, 1]", "output": "[1, 3]"},
    {"id": "sample_1", "code": "def f(s, n):\n    return {s: n * 0.5}", "input": "'k', 3", "output": "{'k': 1.5}"},
]

LIVECODEBENCH = [
    {
        "question_title": "Half",
        "question_content": "Print half of x.",
        "question_id": "a",
        "starter_code": "",
        "difficulty": "easy",
        "public_test_cases": json.dumps([{"input": "3\n", "output": "1.50", "testtype": "stdin"}]),
        "private_test_cases": "",
        "metadata": "{}",
    },
    {
        "question_title": "Join",
        "question_content": "Join two lists.",
        "question_id": "b",
        "starter_code": "class Solution:\n    def join(self, a: List[int], b: List[int]) -> List[int]:\n        ",
        "difficulty": "hard",
        "public_test_cases": json.dumps([{"input": "[1]\n[2]", "output": "[1, 2]", "testtype": "functional"}]),
        "private_test_cases": "",
        "metadata": "{}",
    },
]

_ROWS = {
    "humaneval": ("humaneval", "asserts", HUMANEVAL),
    "mbpp": ("mbpp", "asserts", MBPP),
    "evalplus": ("evalplus", "evalplus", EVALPLUS),
    "apps": ("apps", "tests", APPS),
    "output": ("cruxeval", "output", CRUXEVAL),
    "input": ("cruxeval", "input", CRUXEVAL),
    "livecodebench": ("livecodebench", "tests", LIVECODEBENCH),
}


def prelude(name: str) -> dict[str, str]:
    """What stands before every program of a real benchmark."""
    said: dict[str, str] = yaml.safe_load((paths.benchmarks() / f"{name}.yaml").read_text())["prelude"]
    return said


def write_bench(folder: Path, name: str, **changes: Any) -> Path:
    """A YAML file with a JSONL beside it."""
    form, scorer, rows = _ROWS[name]
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in changes.pop("rows_given", rows)))
    prompts = {
        "base": {"text": "{prompt}", "stop": ["\ndef", "\n```"], "tokens": 16, "answer": "continue"},
        "chat": {"chat": True, "text": "Solve: {prompt}", "prefill": "Sure:\n```python\n", "stop": ["\n```"],
                 "tokens": 16, "answer": "block"},
    }  # fmt: skip
    described = {
        "title": name.capitalize(), "about": "a small benchmark of tests", "format": form, "scorer": scorer, "rows": 0,
        "seconds": 1, "memory_mb": 512, "source": {"url": "nowhere", "licence": "MIT", "file": str(data)},
        "default": "base", "default_chat": "chat", "prompts": prompts,
        **({"comparison": name, "prelude": prelude(name)} if scorer == "tests" else {}), **changes,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(described, sort_keys=False))
    return path


@pytest.fixture
def bench(tmp_path: Path):
    """Load one of the small benchmarks: (benchmark, problems by id)."""

    def make(name: str, **changes: Any) -> tuple[Benchmark, dict[str, Problem]]:
        benchmark = evaluation.load_benchmark(str(write_bench(tmp_path, name, **changes)))
        found = evaluation.problems_of(benchmark, evaluation.find_rows(benchmark))
        return benchmark, {problem.id: problem for problem in found}

    return make


@pytest.fixture
def judge(bench, executor: Executor):
    """A judge of one of the small benchmarks: judge("apps")("0", "print(1)")."""

    def make(name: str, **changes: Any):
        benchmark, problems = bench(name, **changes)
        judged = Judge(benchmark, executor)
        return lambda task, completion: judged(problems[task], completion)

    return make
