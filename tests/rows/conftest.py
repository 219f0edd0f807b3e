"""Rows, and answers to them, as the tests of own tasks need them."""

from __future__ import annotations

import pytest

from azr_mlx.executor import Executor, Limits


@pytest.fixture(scope="session")
def executor():
    with Executor("standard", Limits(wall_seconds=3.0), workers=1) as running:
        yield running
