"""One executor for the whole session: it is what a training run has too.

AZR_TEST_MAC={} (or other options of mac.py, as JSON) runs any of these tests on an emulated Mac.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

EMULATED: dict[str, Any] | None = json.loads(os.environ["AZR_TEST_MAC"]) if "AZR_TEST_MAC" in os.environ else None
if EMULATED is not None:
    sys.platform = "darwin"  # before anything asks

from azr_mlx.executor import Executor, Job, Limits, pool, slots  # noqa: E402

HERE = Path(__file__).parent
COMMAND = slots.command  # of this machine: emulations are not nested

os.environ.setdefault("HF_TOKEN", "not-a-token")  # something that must not be seen inside


@contextlib.contextmanager
def on_a_mac(**options: Any) -> Iterator[None]:
    """Within it executors start their slots on an emulated Mac (mac.py); the trainer's side has what a Mac has."""

    def command(settings: dict[str, Any]) -> list[str]:
        words = COMMAND(settings)
        return [*words[:-2], str(HERE / "mac.py"), json.dumps(options), *words[-2:]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slots, "command", command)
        patch.setattr(slots, "ENDS_ORPHANS", False)
        patch.setattr(pool, "_LADDER", (("seatbelt",),))
        patch.setattr(pool, "_PAUSE", 0.01)
        patch.delattr(os, "sched_getaffinity", raising=False)
        patch.delattr(os, "pidfd_open", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def emulation() -> Iterator[None]:
    with on_a_mac(**EMULATED) if EMULATED is not None else contextlib.nullcontext():
        yield


@pytest.fixture(scope="session")
def executor(emulation: None) -> Iterator[Executor]:
    with Executor(limits=Limits(wall_seconds=5, cpu_seconds=5), workers=2) as made:
        yield made


def program(body: str) -> str:
    """The source of an `f(a)` with that body."""
    return "def f(a):\n" + "\n".join("    " + line for line in body.split("\n"))


def job(body: str, *inputs: str, limits: Limits | None = None) -> Job:
    return Job(program(body), inputs or ("1",), limits=limits)
