"""One executor for the whole session: it is what a training run has too."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from azr_mlx.executor import Executor, Job, Limits

os.environ.setdefault("HF_TOKEN", "not-a-token")  # something that must not be seen inside


@pytest.fixture(scope="session")
def executor() -> Iterator[Executor]:
    with Executor(limits=Limits(wall_seconds=5, cpu_seconds=5), workers=2) as made:
        yield made


def program(body: str) -> str:
    """The source of an `f(a)` with that body."""
    return "def f(a):\n" + "\n".join("    " + line for line in body.split("\n"))


def job(body: str, *inputs: str, limits: Limits | None = None) -> Job:
    return Job(program(body), inputs or ("1",), limits=limits)
