"""`azr train` with workers: whole runs are equal to the byte, also after the coordinator has died."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from azr_mlx.cluster import certificates
from tests.cluster.conftest import HANG

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

SETTINGS = [
    "steps=3", "model.style=compact", "lora.rank=4", "tasks.references=2", "tasks.induction_pairs=6",
    "tasks.max_program_chars=400", "tasks.max_input_chars=100", "batch.proposals=4", "batch.attempts=4",
    "batch.solves=2", "batch.solve_group=4", "sampling.propose_tokens=100", "sampling.solve_tokens=40",
    "sampling.prompt_tokens=400",
    "sampling.item_rows=8", "optim.lr=1e-3", "optim.micro_batch_tokens=1024", "optim.gradient_items=4",
    "buffer.seed_size=8", "buffer.seed_rounds=8", "executor.wall_seconds=2", "executor.cpu_seconds=2",
    "evaluation.probe=none", "checkpoint.every=1", "tracking.report=false",
]  # fmt: skip


def train(folder: Path, *words: str, fresh: bool = True) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "azr_mlx", "train", "--no-restart", *words]
    if fresh:
        command += ["--config", str(folder.parent / "empty.yaml"), "--run-dir", str(folder)]
        command += [part for word in SETTINGS for part in ("--set", word)]
    (folder.parent / "empty.yaml").touch()
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder.parent)


def ended(process: subprocess.Popen[bytes], folder: Path) -> dict[str, bytes]:
    """What a run left that must be the same whoever computed it."""
    log = folder.parent / f"{folder.name}.log"
    assert process.wait(HANG * 2) == 0, log.read_text()
    names = ["metrics.jsonl", "step-000003/adapters.safetensors", "step-000003/state.safetensors"]
    names += [f"rollouts/step-{step:06d}.jsonl" for step in range(3)]
    return {name: (folder / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("alone") / "run"
    return ended(train(folder), folder)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_run_with_workers_is_the_run_without_any_to_the_byte(tmp_path, one_process, workers) -> None:
    folder = tmp_path / "run"
    assert ended(train(folder, "--local-workers", str(workers)), folder) == one_process
    said = (tmp_path / "run.log").read_text()
    for i in range(workers):
        assert re.search(rf"local-{i + 1} +[1-9]\d*% of the work", said), said


def test_a_killed_coordinator_is_resumed_and_its_worker_waits_for_it(tmp_path, one_process) -> None:
    mine, theirs = certificates.write(tmp_path / "certificates")
    folder, log = tmp_path / "run", tmp_path / "run.log"
    sharing = ["--certificate", str(mine), "--workers"]
    first = train(folder, *sharing, "tls://127.0.0.1:0")

    def until(what) -> None:
        end = time.monotonic() + HANG
        while not what():
            assert time.monotonic() < end, log.read_text() + worker_log.read_text()
            time.sleep(0.05)

    worker_log = tmp_path / "worker.log"
    worker_log.touch()
    until(lambda: "azr worker tls://" in log.read_text())
    address = re.search(r"azr worker (tls://\S+)", log.read_text())[1]
    command = [sys.executable, "-m", "azr_mlx", "worker", address, "--certificate", str(theirs), "--name", "mini"]
    with worker_log.open("wb") as out:
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        until(lambda: "mini has joined" in log.read_text() and (folder / "step-000001").is_dir())
        os.kill(first.pid, signal.SIGKILL)
        first.wait(HANG)
        until(lambda: f"waiting for {address}" in worker_log.read_text())
        second = train(folder, "--resume", str(folder), *sharing, address, fresh=False)
        assert ended(second, folder) == one_process
        assert worker.wait(HANG) == 0
        assert worker_log.read_text().count("joined") >= 2
        assert "done: the run is over" in worker_log.read_text()
    finally:
        for process in (first, worker):
            if process.poll() is None:
                process.kill()
                process.wait()
