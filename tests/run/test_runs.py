"""Runs survive: killed at any moment, interrupted, started twice, out of disk."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.run.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "checkpoints" / "qwen3-nano"
pytestmark = pytest.mark.skipif(not (NANO / "model.safetensors").exists(), reason="the embedded model is not built yet")

STEPS = 4
SMALL = [
    "batch.proposals=2", "batch.attempts=4", "batch.solves=1", "batch.solve_group=4", "buffer.seed_size=6",
    "buffer.seed_rounds=1", "sampling.max_rows=32", "sampling.propose_tokens=64", "sampling.solve_tokens=32",
    "evaluation.samples=1", "evaluation.probe_tasks=4", "checkpoint.every=1", "checkpoint.keep=10", "minutes=0",
    "executor.workers=2", "tracking.report=false", "optim.warmup_steps=0",
]  # fmt: skip
WORDS = [word for option in SMALL for word in ("--set", option)]


def start(folder: Path, *more: str, steps: int = STEPS) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "azr_mlx",
        "train",
        "--config",
        "nano",
        "--run-dir",
        str(folder),
        "--steps",
        str(steps),
    ]
    # One BLAS thread: two spin against each other when the machine is busy.
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *WORDS, *more],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    return output


def wait_for(condition, process: subprocess.Popen[str], seconds: float = 200.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)


def result(folder: Path) -> tuple[bytes, bytes, bytes]:
    last = folder / f"step-{STEPS:06d}"
    return (
        (last / "adapters.safetensors").read_bytes(),
        (last / "state.safetensors").read_bytes(),
        (folder / "metrics.jsonl").read_bytes(),
    )


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    finish(start(folder))
    return folder


def test_a_run_learns_something(uninterrupted):
    rows = [json.loads(line) for line in (uninterrupted / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert any(row["trained_rows"] > 0 for row in rows)
    assert (uninterrupted / "step-000000" / "adapters.safetensors").read_bytes() != result(uninterrupted)[0]


def test_a_run_killed_three_times_ends_in_the_same_bytes(uninterrupted, tmp_path):
    folder, rng = tmp_path / "killed", random.Random(int(os.environ.get("AZR_KILL_SEED", "7")))
    process = start(folder)
    for kill in range(3):
        # Somewhere in the step after the first, second, third checkpoint.
        wait_for(lambda k=kill: (folder / f"step-{k:06d}").exists(), process)
        time.sleep(rng.uniform(0.0, 1.5))
        process.kill()
        process.communicate()
        process = start(folder, "--resume", str(folder))
    finish(process)
    assert result(folder) == result(uninterrupted)


def test_ctrl_c_saves_and_says_how_to_go_on(uninterrupted, tmp_path):
    folder = tmp_path / "stopped"
    process = start(folder)
    wait_for(lambda: (folder / "step-000001").exists(), process)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert f"azr train --resume {folder}" in output
    finish(start(folder, "--resume", str(folder)))
    assert result(folder) == result(uninterrupted)


def test_two_runs_in_one_folder_refuse_politely(uninterrupted):
    with RunFolder(uninterrupted).lock():
        second = start(uninterrupted, "--resume", str(uninterrupted))
        output, _ = second.communicate(timeout=60)
    assert second.returncode == 1
    assert f"is in use by process {os.getpid()}" in output
    assert "Traceback" not in output


def test_a_resumed_run_cannot_become_another(uninterrupted):
    process = start(uninterrupted, "--resume", str(uninterrupted), "--set", "optim.lr=0.5")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    before = config.load("nano").optim.lr
    assert f"cannot go on with another optim.lr ({before!r}, now 0.5)" in " ".join(output.split())


def test_resuming_from_nothing_is_one_line(tmp_path):
    process = start(tmp_path / "none", "--resume", str(tmp_path / "none"))
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "there is no such run folder" in output


# As the GPU driver's thread ends it: an abort at some moment of a step, which no code of the run can catch.
ABORTED = """
import os, sys
from pathlib import Path
from azr_mlx import trainer
from azr_mlx.cli import main
real = trainer.Trainer.train_step
def train_step(self, step):
    mark = Path(os.environ["AZR_TEST_ABORTS"]) / str(step)
    if step in (1, 2) and not mark.exists():
        mark.touch()
        os.abort()
    return real(self, step)
trainer.Trainer.train_step = train_step
sys.argv[0] = "azr"
main()
"""


def test_a_run_that_the_system_aborts_goes_on_and_ends_as_if_it_had_not(
    uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from azr_mlx.run import supervisor

    (tmp_path / "aborts").mkdir()
    monkeypatch.setenv("AZR_TEST_ABORTS", str(tmp_path / "aborts"))
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")
    real = supervisor.supervise

    def supervise(command, newest, say, **rest):  # the run with aborts in it, in place of the command line's
        return real(lambda run: [sys.executable, "-c", ABORTED, *command(run)[3:]], newest, say, **rest)

    monkeypatch.setattr(supervisor, "supervise", supervise)
    said: list[str] = []
    begin = ["--config", "nano", "--run-dir", str(tmp_path / "run")]
    code = supervisor.supervise_training(begin, [*WORDS, "--set", f"steps={STEPS}", "--quiet"], said.append)
    assert code == 0, capfd.readouterr().err
    assert [line.split(" (")[0] for line in said] == [
        "the run was ended by SIGABRT; going on from step-000001",
        "the run was ended by SIGABRT; going on from step-000002",
    ]
    assert result(tmp_path / "run") == result(uninterrupted)


def test_the_command_line_supervises_when_it_is_asked_to(tmp_path: Path) -> None:
    """Two processes, one run; what it says and its exit code come through."""
    process = start(tmp_path / "run", "--restart", steps=1)
    assert "1 steps in" in finish(process)
    refused = start(tmp_path / "run", "--restart", steps=1)
    assert refused.wait(60) == 2
    assert refused.stdout is not None
    assert "holds a run already" in refused.stdout.read()
    refused.stdout.close()
