"""Run folders for these tests, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from azr_mlx import config
from tests.report.runs import make_run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of 30 steps with probes in between."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    return make_run(folder, 30, evaluation=config.EvaluationConfig(every=5))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model writes scripts, markup, terminal escapes and broken characters wherever it can."""
    return make_run(tmp_path_factory.mktemp("runs") / "hostile", 8, hostile=True)
