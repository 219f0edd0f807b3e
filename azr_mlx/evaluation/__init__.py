"""Benchmarks without a model: their files, problems, prompts, verdicts and statistics. Never imports MLX.

    benchmark = load_benchmark("humaneval")
    problem, *_ = problems_of(benchmark, find_rows(benchmark))
    with Executor() as executor:
        assert Judge(benchmark, executor)(problem, problem.solutions[0]).passed

`azr_mlx.evaluation.run` evaluates what a policy writes, `azr_mlx.evaluation.command` is `azr eval`; docs/benchmarks.md
describes the files.
"""

from azr_mlx.evaluation.asking import Asker, Question, cut, joined
from azr_mlx.evaluation.benchmark import (
    Benchmark,
    DataSource,
    Published,
    Wording,
    benchmark_names,
    is_chat,
    load_benchmark,
)
from azr_mlx.evaluation.data import Rows, fingerprint, read_data_file
from azr_mlx.evaluation.fetching import DataMissing, find_rows
from azr_mlx.evaluation.judging import Judge, Score
from azr_mlx.evaluation.problems import Problem, problems_of
from azr_mlx.evaluation.statistics import Comparison, Estimate, compare_rates, estimate, pass_at_k

__all__ = [
    "Asker",
    "Benchmark",
    "Comparison",
    "DataMissing",
    "DataSource",
    "Estimate",
    "Judge",
    "Problem",
    "Published",
    "Question",
    "Rows",
    "Score",
    "Wording",
    "benchmark_names",
    "compare_rates",
    "cut",
    "estimate",
    "find_rows",
    "fingerprint",
    "is_chat",
    "joined",
    "load_benchmark",
    "pass_at_k",
    "problems_of",
    "read_data_file",
]
