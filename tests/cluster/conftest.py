"""A coordinator in this process, and workers in processes of their own, on loopback with real certificates."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from azr_mlx import config
from azr_mlx.cluster import certificates
from azr_mlx.cluster.coordinator import Coordinator, WorkerState
from azr_mlx.cluster.transport import Server
from azr_mlx.model.policy import Policy
from tests.model.conftest import build_model, prompt

HANG = 120.0  # seconds after which a test has failed; nothing is measured by it
PROMPTS = [prompt(f"def f{i}(x): return x + {i * i}\n# f{i}(" + "7" * (i % 5)) for i in range(12)]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The two files of a cluster."""
    return certificates.write(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def settings(tmp_path_factory: pytest.TempPathFactory) -> config.Config:
    """A run of a tiny model, cut into many small items."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    folder.mkdir()
    build_model(folder)
    words = [
        f"model.id={folder}", "model.style=compact", "model.group_size=32", "lora.rank=4", "sampling.item_rows=4",
        "optim.lr=0.01", "optim.micro_batch_tokens=600", "optim.gradient_items=6",
    ]  # fmt: skip
    return config.load(None, words)


def load(settings: config.Config) -> Policy:
    return Policy.load(settings.model, settings.lora, settings.optim, settings.sampling, settings.loss, total_steps=9)


def play(policy: Policy, steps: int, meanwhile: Callable[[], None] = lambda: None) -> list[object]:
    """Write and learn for some steps; returns all that came of it, to the bit. `meanwhile` is called at every row."""
    seen: list[object] = []
    for step in range(steps):
        session = policy.generate(seed=(3, step))
        session.submit(PROMPTS, 4, max_tokens=[40 + 3 * i for i in range(len(PROMPTS))])
        rollouts = []
        for number, sample, rollout in session:
            rollouts.append(rollout)
            seen.append((number, sample, rollout.completion.tokens, rollout.completion.logprobs))
            meanwhile()
        update = policy.update(rollouts, [(-1.0) ** i * (1 + i / 9) for i in range(len(rollouts))])
        seen.append((update.loss, update.grad_norm, update.delta_logp_mean))
    return [*seen, {name: bytes(memoryview(value)) for name, value in policy.state().items()}]


class Cluster:
    """A coordinator of this process that workers can join."""

    def __init__(self, settings: config.Config, files: tuple[Path, Path], folder: Path) -> None:
        self.files = files
        self.folder = folder
        self.policy = load(settings)
        self.said: list[str] = []
        self.coordinator = Coordinator(self.policy, settings, self.said.append)
        self.policy.computer = self.coordinator
        self.server = Server("127.0.0.1", 0, certificates.load(files[0]), self.coordinator.handlers)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *words: str, port: int = 0, **options: object) -> subprocess.Popen[bytes]:
        """A worker in a process of its own; what it says is in the file `name`."""
        command = [sys.executable, "-m", "azr_mlx", "worker", f"tls://127.0.0.1:{port or self.server.port}"]
        command += ["--certificate", str(self.files[1]), "--name", name, *words]
        with (self.folder / name).open("wb") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **options)  # type: ignore[call-overload]
        self.processes[name] = process
        return process

    def log(self, name: str) -> str:
        return (self.folder / name).read_text(errors="replace")

    def machine(self, name: str) -> WorkerState | None:
        return next((m for m in self.coordinator.machines.values() if m.name == name), None)

    def wait_for(self, *names: str) -> None:
        """Until these workers have joined."""
        until = time.monotonic() + HANG
        while any(self.machine(name) is None for name in names):
            assert time.monotonic() < until, [self.log(name) for name in names]
            time.sleep(0.05)

    def computes(self, name: str) -> bool:
        """Whether a worker holds an item at this moment."""
        machine = self.machine(name)
        entries = self.coordinator.items._entries
        with self.coordinator._changed:
            return machine is not None and any(machine.identity in one.holders for one in entries.values())

    def did(self, name: str) -> float:
        """Seconds that a worker has computed for results that were taken."""
        machine = self.machine(name)
        return machine.seconds if machine is not None else 0.0


@pytest.fixture
def cluster(settings: config.Config, files: tuple[Path, Path], tmp_path: Path) -> Iterator[Cluster]:
    one = Cluster(settings, files, tmp_path)
    try:
        with one.server:
            yield one
            one.coordinator.close()
            for process in one.processes.values():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(15.0)
    finally:
        for process in one.processes.values():
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, 9)
                process.wait()


@pytest.fixture(scope="session")
def alone(settings: config.Config) -> list[object]:
    """What a step comes to without any worker."""
    return play(load(settings), 1)


@pytest.fixture(scope="session")
def alone_longer(settings: config.Config) -> list[object]:
    """What three steps come to without any worker."""
    return play(load(settings), 3)
