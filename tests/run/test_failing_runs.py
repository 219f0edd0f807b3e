"""Runs that are made to fail, and whether the alarms say how. Real runs of the embedded model, a minute each: slow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from azr_mlx import metrics
from azr_mlx.report import story

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

# what is wrong -> the steps that it takes to show, the dials that do it, the alarms that may then be up (one must be)
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
    "programs cannot end in time": (6, ("executor.wall_seconds=0.001",), {"programs run out of time"}),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_a_run_made_to_fail_says_why(tmp_path: Path, what: str) -> None:
    steps, dials, expected = WRONG[what]
    run = tmp_path / "run"
    words = [word for dial in (*SMALL, *dials) for word in ("--set", dial)]
    command = [sys.executable, "-m", "azr_mlx", "train", "--config", "nano", "--run-dir", str(run), *words]
    subprocess.run([*command, "--steps", str(steps)], cwd=ROOT, check=True, capture_output=True, timeout=280)
    rows = story.read(run).rows
    raised = {alarm.name for count in range(1, len(rows) + 1) for alarm in metrics.ALARMS if alarm.check(rows[:count])}
    assert raised & expected, (raised, json.dumps(rows[-1]))
