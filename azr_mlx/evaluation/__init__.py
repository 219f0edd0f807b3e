"""Benchmarks without a model: their files, problems, prompts, verdicts and statistics. Never imports MLX.

    benchmark = load("humaneval")
    problem, *_ = problems(benchmark, find(benchmark))
    with Executor() as executor:
        assert Judge(benchmark, executor)(problem, problem.solutions[0]).passed

`azr_mlx.evaluation.command` adds the model, the files on disk and the tables. docs/benchmarks.md describes the files.
"""

from azr_mlx.evaluation.asking import Asker, Question, cut, joined
from azr_mlx.evaluation.benchmark import Benchmark, Published, Source, Wording, is_chat, load, names
from azr_mlx.evaluation.data import DataMissing, Rows, find, fingerprint, read
from azr_mlx.evaluation.judging import Judge, Score
from azr_mlx.evaluation.problems import Problem, problems
from azr_mlx.evaluation.statistics import Comparison, Estimate, compare, estimate, pass_at_k

__all__ = [
    "Asker",
    "Benchmark",
    "Comparison",
    "DataMissing",
    "Estimate",
    "Judge",
    "Problem",
    "Published",
    "Question",
    "Rows",
    "Score",
    "Source",
    "Wording",
    "compare",
    "cut",
    "estimate",
    "find",
    "fingerprint",
    "is_chat",
    "joined",
    "load",
    "names",
    "pass_at_k",
    "problems",
    "read",
]
