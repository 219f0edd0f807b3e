"""Fixtures that every room's tests share."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Before any test module imports MLX: on Linux this puts a fast BLAS under it. Where there is no MLX the world wing
# is tested alone.
with contextlib.suppress(ImportError):
    from azr_mlx import device

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
