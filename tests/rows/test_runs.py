"""Whole runs on rows: killed and resumed to the byte, mixed with self-play, and told in one line what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from azr_mlx import config, report
from azr_mlx.errors import UsageError
from azr_mlx.rows.environment import material
from azr_mlx.run import metrics
from tests.report.runs import HOSTILE

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = "examples/own_tasks/arithmetic.yaml"
SMALL = (
    "rows.prompts=2", "rows.group=4", "data.held_out_most=6", "evaluation.samples=1", "evaluation.every=0",
    "checkpoint.every=1", "tracking.report=false", "optim.warmup_steps=0",
    "reward.functions=[examples/own_tasks/rewards.py:right_number, examples/own_tasks/rewards.py:right_sign]",
    "reward.weights=[1, 0.5]",
)  # fmt: skip
MIXED = (
    "mode=mix", "mix.rows=1", "mix.selfplay=0.5", "tasks.kinds=deduction", "tasks.references=1", "batch.proposals=4",
    "batch.attempts=2", "batch.solves=4", "batch.solve_group=2", "buffer.seed_rounds=1", "buffer.seed_size=4",
    "sampling.prompt_tokens=400", "sampling.propose_tokens=100", "sampling.solve_tokens=20", "evaluation.probe_tasks=2",
    "executor.workers=1",
)  # fmt: skip


def start(folder: Path, *more: str, steps: int = 3, words: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    options = [word for option in (*SMALL, *words) for word in ("--set", option)]
    command = [sys.executable, "-m", "azr_mlx", "train", "--config", EXAMPLE, "--steps", str(steps)]
    return subprocess.Popen(
        [*command, "--run-dir", str(folder), *options, *more], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def rows_of(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "whole"
    printed = finish(start(folder))
    assert "rows: 294 of examples/own_tasks/arithmetic.jsonl, 6 held out; reward 1 x right_number" in printed
    assert "rows T=1" in printed
    assert "a guess" not in printed, "nobody guesses at rows"
    return folder


def test_a_run_on_rows_learns_and_explains_every_number(whole):
    rows = rows_of(whole)
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert any(row["trained_rows"] for row in rows)
    assert (whole / "step-000001/adapters.safetensors").read_bytes() != (
        whole / "step-000003/adapters.safetensors"
    ).read_bytes()
    keys = {key for row in rows for key in row} - {"step"}
    assert [key for key in keys if metrics.find(key) is None] == []
    assert {"rows/reward", "rows/reward/right_number", "rows/reward/right_sign", "rows/flat", "rows/epoch"} <= keys
    said = json.loads((whole / "probe.json").read_text())
    assert len(said["before"]["sampled"]["rows"]) == len(said["after"]["sampled"]["rows"]) == 6


def test_every_answer_is_in_the_run_folder_with_its_rewards(whole):
    answers = [json.loads(line) for line in (whole / "rollouts/step-000000.jsonl").read_text().splitlines()]
    assert len(answers) == 8
    assert len({one["row"] for one in answers}) == 2
    for one in answers:
        right, sign = one["rewards"]["right_number"], one["rewards"]["right_sign"]
        assert one["reward"] == pytest.approx(right + 0.5 * (sign or 0))


def test_the_report_of_a_run_on_rows_shows_rewards_and_answers_and_no_proposals(whole, tmp_path):
    html = report.write(whole, tmp_path / "report.html").read_text()
    for heading in ("Reward of the answers", "Reward by function", "What it answered"):
        assert heading in html
    for heading in ("The curriculum it made for itself", "Why proposals were refused"):
        assert heading not in html


def test_answers_in_a_report_are_text_whatever_is_in_them(whole, tmp_path):
    wild = tmp_path / "wild"
    shutil.copytree(whole, wild)
    lines = [json.loads(line) for line in (wild / "rollouts/step-000000.jsonl").read_text().splitlines()]
    odd = [{**one, "reply": HOSTILE[0], "rewards": {HOSTILE[1]: "much"}} for one in lines]
    odd += [{"row": "1", "rewards": []}, {"row": 7, "rewards": {}, "reply": None}]
    (wild / "rollouts/step-000000.jsonl").write_text("".join(json.dumps(one) + "\n" for one in odd))
    html = report.write(wild, tmp_path / "wild.html").read_text()
    assert "document.title" in html, "it is there, as text"
    assert HOSTILE[0] not in html
    assert HOSTILE[1] not in html


def test_a_run_on_rows_that_is_killed_ends_in_the_same_bytes(whole, tmp_path):
    folder = tmp_path / "killed"
    process = start(folder)
    deadline = time.monotonic() + 200
    while not (folder / "step-000001").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finish(start(folder, "--resume", str(folder)))
    for name in ("metrics.jsonl", "step-000003/adapters.safetensors", "step-000003/state.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_mixed_run_trains_both_each_with_curves_of_its_own(tmp_path):
    finish(start(tmp_path / "mix", steps=2, words=MIXED))
    rows = rows_of(tmp_path / "mix")
    assert all({"rows/reward", "solve/deduction", "valid/deduction", "zero_signal"} <= row.keys() for row in rows)
    rollouts = [json.loads(line) for line in (tmp_path / "mix/rollouts/step-000000.jsonl").read_text().splitlines()]
    learned = {one["kind"] for one in rollouts if one["advantage"]}
    assert learned == {None, "deduction"}
    said = json.loads((tmp_path / "mix/probe.json").read_text())
    assert said["after"]["sampled"].keys() == {"deduction", "rows"}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["data.path=nowhere.jsonl"], "data.path: there is no file nowhere.jsonl"),
        (["reward=nowhere.py:f"], "reward: there is no file nowhere.py for nowhere.py:f"),
        (["reward=python_tests"], "reward: python_tests needs a column tests or stdin and stdout"),
        (["reward=exakt"], "reward: exakt is neither file.py:function nor one of python_tests"),
        (["mode=selfplay"], "needs mode: grpo"),
        (["reward.weights=[1, 2]"], "reward.weights has 2 numbers for 1 functions"),
        (["rows.group=1"], "nothing to compare"),
    ],
)
def test_what_is_wrong_is_one_line_before_a_model_is_loaded(monkeypatch, words, line):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UsageError) as error:
        material(config.load(EXAMPLE, words))
    assert line in str(error.value)
