"""Fixtures that all tests share."""

from __future__ import annotations

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
