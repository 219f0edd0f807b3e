"""The examples run as they stand, and do what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.skipif(not EXAMPLES.is_dir(), reason="installed without its repository")


def run(folder: Path, *words: str) -> str:
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_training_from_python_ends_in_a_run_and_goes_on_from_it(tmp_path: Path) -> None:
    run(tmp_path, str(EXAMPLES / "train.py"))
    folder = tmp_path / "checkpoints" / "example"
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    assert "after step 2" in run(tmp_path, str(EXAMPLES / "train.py"))


def test_completions_are_scored_without_a_model(tmp_path: Path) -> None:
    lines = run(tmp_path, str(EXAMPLES / "score_completions.py")).splitlines()
    results = [re.split(r"\s{2,}", line)[-1] for line in lines]
    assert [result == "passed" for result in results] == [True, True, False, True, False, False]
    assert "timed out" in results[-1]


def test_a_benchmark_of_your_own_needs_one_yaml_and_its_rows(tmp_path: Path) -> None:
    completions = tmp_path / "completions.jsonl"
    rows = [json.loads(line) for line in (EXAMPLES / "benchmark" / "tiny.jsonl").read_text().splitlines()]
    completions.write_text(
        "".join(json.dumps({"task_id": r["task_id"], "completion": r["canonical_solution"]}) + "\n" for r in rows)
    )
    printed = run(
        tmp_path, "-m", "azr_mlx", "eval", "--bench", str(EXAMPLES / "benchmark" / "tiny.yaml"),
        "--completions", str(completions), "--logs", str(tmp_path / "logs"),
    )  # fmt: skip
    assert "2 of 2" in printed or "100.0" in printed


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir() if path.name != "README.md"))
def test_every_example_is_on_the_page(name: str) -> None:
    assert f"({name}" in (EXAMPLES / "README.md").read_text()


KIND = """
from azr_mlx import config
from azr_mlx.executor import Executor
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.types import Case, Kind, Task

assert config.load(None, ["tasks.kinds=deduction,type_of"]).tasks.kinds == ("deduction", "type_of")
task = Task(Kind("type_of"), "def f(a):\\n    return [a]", (Case("1", "[1]"),))
print([KINDS[task.kind].verify(task, answer, None)().correct for answer in ("list", "tuple", "[1]")])
"""


def test_a_kind_of_your_own_is_one_file_in_the_folder_of_kinds(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "azr_mlx", tmp_path / "azr_mlx", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(EXAMPLES / "kinds" / "type_of.py", tmp_path / "azr_mlx" / "selfplay" / "kinds")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", KIND], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[True, False, False]", done.stderr


@pytest.mark.parametrize("name", ["arithmetic", "make_tests_pass"])
def test_own_rows_and_rewards_train_the_embedded_model(tmp_path: Path, name: str) -> None:
    small = ["rows.prompts=2", "rows.group=8", "evaluation.samples=1", "data.held_out_most=4", "tracking.report=false"]
    words = [word for option in small for word in ("--set", option)]
    config = str(EXAMPLES / "own_tasks" / f"{name}.yaml")
    folder = tmp_path / "run"
    run(ROOT, "-m", "azr_mlx", "train", "--config", config, "--steps", "2", "--run-dir", str(folder), *words)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1]
    assert all(0 <= row["rows/reward"] <= 1 for row in rows)
    assert max(row["rows/reward"] for row in rows) > 0


@pytest.mark.parametrize("name", ["arithmetic", "make_tests_pass"])
def test_the_rows_of_the_examples_are_what_their_scripts_write(tmp_path: Path, name: str) -> None:
    written = run(tmp_path, str(EXAMPLES / "own_tasks" / f"make_{name.removeprefix('make_')}.py"))
    assert written == (EXAMPLES / "own_tasks" / f"{name}.jsonl").read_text()
