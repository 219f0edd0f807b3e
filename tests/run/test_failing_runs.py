"""Runs that are made to fail, and whether the alarms say how. Real runs of the embedded model, a minute each: slow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from azr_mlx.report import run_data
from azr_mlx.run import metrics

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "checkpoints" / "qwen3-nano"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (NANO / "model.safetensors").exists(), reason="the embedded model is not built yet"),
]

SMALL = (
    "batch.proposals=6", "batch.attempts=4", "batch.solves=2", "batch.solve_group=4", "buffer.seed_size=24",
    "buffer.seed_rounds=4", "evaluation.samples=1", "evaluation.probe_tasks=1", "checkpoint.every=100", "minutes=0",
    "tracking.report=false", "optim.warmup_steps=0",
)  # fmt: skip

# what is wrong -> the steps that it takes to show, the options that do it, the alarms that may then be up (one must be)
WRONG = {
    "the learning rate is far too high": (
        20, ("optim.lr=0.03",),
        {"hardly any proposal is valid", "entropy is collapsing", "nearly all groups are flat"},
    ),
    "answers are cut off": (6, ("sampling.solve_tokens=4",), {"completions are cut off"}),
    "the sampler leaves tokens out": (6, ("sampling.top_p=0.3",), {"sampler and trainer disagree"}),
    "proposers see too few seeds": (
        30,
        ("buffer.seed_size=1", "buffer.seed_rounds=0", "buffer.per_program=0", "optim.lr=3e-3", "reward.unlearnable=1"),
        {"proposals repeat themselves", "entropy is collapsing", "nearly all groups are flat"},
    ),
}  # fmt: skip


# Stands for a model that has learned to propose loops without an end: all but that first line of a program is nano's.
ENDLESS = """
import dataclasses
from azr_mlx import cli
from azr_mlx.selfplay import parsing

real = parsing.proposal

def endless(text):
    said = real(text)
    head, colon, body = said.program.partition(":\\n")
    return dataclasses.replace(said, program=head + colon + "    while True: pass\\n" + body)

parsing.proposal = endless
cli.main()
"""


def alarms(run: Path, steps: int, options: tuple[str, ...], program: tuple[str, ...] = ("-m", "azr_mlx")) -> set[str]:
    """The alarms that were up at any step of a run of the nano preset."""
    words = [word for option in (*SMALL, *options) for word in ("--set", option)]
    command = [sys.executable, *program, "train", "--config", "nano", "--run-dir", str(run), *words]
    subprocess.run([*command, "--steps", str(steps)], cwd=ROOT, check=True, capture_output=True, timeout=280)
    rows = run_data.read(run).rows
    return {alarm.name for count in range(1, len(rows) + 1) for alarm in metrics.ALARMS if alarm.check(rows[:count])}


@pytest.mark.parametrize("what", WRONG)
def test_a_run_made_to_fail_says_why(tmp_path: Path, what: str) -> None:
    steps, options, expected = WRONG[what]
    raised = alarms(tmp_path / "run", steps, options)
    assert raised & expected, raised


def test_a_run_whose_programs_never_end_says_so(tmp_path: Path) -> None:
    options = ("batch.proposals=32", "executor.wall_seconds=0.1", "buffer.seed_rounds=0")
    assert "programs run out of time" in alarms(tmp_path / "run", 5, options, ("-c", ENDLESS))


def test_hostile_completions_disturb_neither_a_run_nor_a_verdict_on_the_others(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "benchmarks/fuzz/hostile_run.py",
        str(tmp_path / "run"),
        "--steps",
        "1",
        "--share",
        "0.1",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 verdicts differ" in done.stdout


# Stands for a machine that runs out of disk for good while it trains: slots die, and no other can be started.
FULL = """
import os, subprocess
from azr_mlx import cli
from azr_mlx.executor import pool
from azr_mlx.run.tracker import Tracker

real = Tracker.tell

def refuse(*_, **__):
    raise OSError(28, "No space left on device")

def tell(self, step, *rest):
    real(self, step, *rest)
    if step.number == 1:
        pool._PAUSE = 0.01
        launched, subprocess.Popen = subprocess.Popen, refuse
        for thread in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{thread}/children") as file:
                for word in file.read().split():
                    os.kill(int(word), 9)

Tracker.tell = tell
raise SystemExit(cli.main())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="finds processes through /proc")
def test_a_run_whose_executor_fails_for_good_is_saved_and_ends_in_one_line(tmp_path: Path) -> None:
    words = [word for option in (*SMALL, "buffer.seed_size=6") for word in ("--set", option)]
    command = ["train", "--config", "nano", "--run-dir", str(tmp_path / "run"), *words, "--steps", "4"]
    done = subprocess.run([sys.executable, "-c", FULL, *command], cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    said = [line for line in done.stdout.splitlines() if "stopped: the executor failed" in line]
    assert len(said) == 1, done.stdout + done.stderr
    assert "No space left on device" in said[0]
    assert "train --resume" in done.stdout
    assert len(run_data.read(tmp_path / "run").rows) == 2
    again = [sys.executable, "-m", "azr_mlx", "train", "--resume", str(tmp_path / "run"), "--steps", "3"]
    assert subprocess.run(again, cwd=ROOT, capture_output=True, timeout=280).returncode == 0
    assert len(run_data.read(tmp_path / "run").rows) == 3
