"""`--bench azr` and `--bench azr-heldout`: the paper's protocol, and the held-out tasks as a benchmark."""

from __future__ import annotations

import io
import json
from pathlib import Path

import huggingface_hub.constants
import pytest
from click.testing import CliRunner
from rich.console import Console

from azr_mlx import evaluation
from azr_mlx.cli import azr
from azr_mlx.errors import UsageError
from azr_mlx.evaluation.judge_pool import JudgedSamples
from azr_mlx.evaluation.plan import Choice, make_plan, variant
from azr_mlx.evaluation.problems import problems_of
from azr_mlx.evaluation.record import Evaluation
from azr_mlx.evaluation.suites import SUITES, show_suite, suite_choices
from azr_mlx.executor import Executor
from azr_mlx.types import Kind


@pytest.fixture
def no_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_every_member_of_a_suite_is_a_benchmark_with_that_prompt() -> None:
    for suite in SUITES.values():
        for choice in suite.members:
            assert choice.prompt in evaluation.load_benchmark(choice.bench).prompts


def test_the_papers_settings_reach_the_judge(tmp_path: Path) -> None:
    """EvalPlus is called there with at least 10 s and 8 times the reference's time for an input."""
    from tests.evaluation.conftest import write_bench

    bench = str(write_bench(tmp_path, "evalplus"))
    choice = suite_choices("azr", Choice("azr", limit=1, seed=3))[0]
    assert (choice.bench, choice.prompt, choice.limit, choice.seed) == ("humaneval+", "chat", 1, 3)
    plan = make_plan(Choice(bench, seconds=choice.seconds, factor=choice.factor))
    assert (plan.benchmark.seconds, plan.benchmark.factor) == (10.0, 8.0)


def test_without_any_of_its_data_a_suite_says_how_to_get_it(no_data: None, tmp_path: Path) -> None:
    said = CliRunner().invoke(azr, ["eval", "--bench", "azr", "--logs", str(tmp_path)])
    assert said.exit_code == 1
    assert "`azr data humaneval+` gets it" in said.output
    wrong = CliRunner().invoke(azr, ["eval", "--bench", "azr,humaneval"])
    assert wrong.exit_code == 2
    assert "--bench azr is several benchmarks" in wrong.output


def test_the_papers_rows_stand_beside_a_model_of_the_paper_only() -> None:
    def found(model: str) -> str:
        score = {"value": 0.7, "low": 0.6, "high": 0.8}
        record = {"benchmark": "humaneval+", "model": model, "adapter": "", "scores": {"pass@1": score}}
        console = Console(width=120, record=True, quiet=False, file=io.StringIO())
        show_suite(console, "azr", [Evaluation(record, JudgedSamples([], []))], {"mbpp+": "is not here"})
        return console.export_text()

    text = found("mlx-community/Qwen2.5-Coder-3B-4bit")
    for part in ("70.0 %", "60.0 to 80.0", "67.1 %", "71.3 %", "left out, mbpp+: is not here", "a82124e"):
        assert part in text
    assert "67.1 %" not in found("Qwen/Qwen3-4B-Base")


def test_the_held_out_tasks_are_a_benchmark_whose_gold_answers_are_right(executor: Executor) -> None:
    benchmark = evaluation.load_benchmark("azr-heldout")
    rows = evaluation.find_rows(benchmark)
    assert not rows.notes, "the file of tasks has changed: write its hash into benchmarks/azr-heldout.yaml"
    problems = problems_of(benchmark, rows)
    assert {problem.level for problem in problems} == set(benchmark.levels)
    judge = evaluation.Judge(benchmark, executor)
    for kind in Kind:
        mine = [problem for problem in problems if problem.task is not None and problem.task.kind is kind][:4]
        assert all(judge(problem, problem.solutions[0]).passed for problem in mine)
        assert not any(judge(problem, "'surely something else'").passed for problem in mine)
    assert judge(problems[0], "").result == "failed: no answer block"


def test_held_out_tasks_are_asked_and_read_as_in_self_play() -> None:
    benchmark = evaluation.load_benchmark("azr-heldout")
    problems = problems_of(benchmark, evaluation.find_rows(benchmark))
    asker = evaluation.Asker(benchmark, "compact", problems)
    answers = {"deduction": ("```output\n[1]\n```", "[1]"), "abduction": ("[1]\n```", "[1]")}
    for kind, (reply, answer) in answers.items():
        problem = next(one for one in problems if one.id.startswith(kind))
        question = asker.ask(problem)
        assert question.text.startswith(f"{kind}\n")
        assert asker.completion(problem, question, reply) == answer


def test_the_embedded_model_is_asked_as_in_its_training() -> None:
    benchmark = evaluation.load_benchmark("cruxeval-o")
    assert variant(benchmark, Choice("cruxeval-o"), "checkpoints/qwen3-nano") == "compact"
    assert variant(benchmark, Choice("cruxeval-o", prompt="base"), "checkpoints/qwen3-nano") == "base"
    assert variant(benchmark, Choice("cruxeval-o"), "Qwen/Qwen2.5-Coder-3B") == "base"


def test_calls_of_contest_solutions_become_calls_of_f(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {
        "id": "sample_0",
        "code": "def twice(n):\n    return n and 1 + twice(n - 1)",
        "input": "twice(n=(3))",
        "output": "3",
    }
    path.write_text(json.dumps(row) + "\n")
    benchmark = evaluation.load_benchmark("livecodebench-execution")
    (problem,) = problems_of(benchmark, evaluation.find_rows(benchmark, path))
    assert problem.code == "def f(n):\n    return n and 1 + f(n - 1)"
    assert problem.fields["input"] == "n=(3)"
    path.write_text(json.dumps({**row, "input": "thrice(3)"}) + "\n")
    with pytest.raises(UsageError, match="input must be a call of a function that code defines"):
        problems_of(benchmark, evaluation.find_rows(benchmark, path))


def test_a_benchmark_that_extends_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("extends: gone\n")
    with pytest.raises(UsageError, match=r"own.yaml: extends: .*gone.yaml"):
        evaluation.load_benchmark(str(tmp_path / "own.yaml"))
