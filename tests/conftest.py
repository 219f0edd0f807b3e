"""Fixtures that all tests share."""

from __future__ import annotations

import compileall
import contextlib
import os
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

# A busy machine is slow and not wrong: how long one example takes is no property.
settings.register_profile("azr", deadline=None)
settings.load_profile("azr")

# One thread for each matrix product, here and in the processes that tests start: the matrices are small, and threads
# that wait for each other spin, which on a busy machine costs twenty times what it saves.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Before any test module imports MLX: on Linux this puts a fast BLAS under it. Where there is no MLX the
# environment side is tested alone.
with contextlib.suppress(ImportError):
    from azr_mlx.model import device

    device.prepare()


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        # Once for the hundreds of processes that tests start: the executor's own never write bytecode.
        compileall.compile_dir(ROOT / "azr_mlx", quiet=2)


# Files that take longest, the longest first: processes that take a file each at a time then end together.
LONGEST = (
    "run/test_runs", "docs/test_installed", "executor/test_faults", "evaluation/test_command", "run/test_newcomer",
    "model/test_rehearsal", "executor/test_pool", "executor/test_on_a_mac", "executor/test_attacks",
    "executor/test_without_namespaces", "model/test_sampler", "test_examples", "run/test_session", "run/test_held_out",
    "model/test_policy", "run/test_console", "selfplay/test_proposer_and_solver", "evaluation/test_judging",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    place = {ROOT / "tests" / f"{name}.py": number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared(root: Path) -> Path:
    """Data that stands beside the repository on some machines; tests that read it are skipped on others."""
    folder = root.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    return folder
