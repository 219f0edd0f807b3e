"""No layer, however it fails, keeps the executor from starting at `standard`; it is left out, and that is said once."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest

from azr_mlx.executor import Executor, SandboxUnavailable, pool, slots
from tests.executor.conftest import job

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="breaks layers of Linux")
SCRIPT = str(Path(__file__).with_name("broken_layer.py"))
COMMAND = slots.command


@pytest.fixture
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    layer: str = request.param

    def command(settings: dict[str, object]) -> list[str]:
        words = COMMAND(settings)
        return [*words[:-2], SCRIPT, layer, *words[-2:]]

    monkeypatch.setattr(slots, "command", command)
    monkeypatch.setattr(pool, "_PAUSE", 0.01)
    return layer


LAYERS = ["seccomp", "landlock", "capabilities", "root"]


@pytest.mark.parametrize("broken", LAYERS, indirect=True)
def test_standard_starts_without_the_layer_that_breaks(broken: str) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with Executor(workers=1) as made:
            assert made.submit(job("return a + 1")).result().value == 2
            assert {broken, "namespaces"} & set(made.layers.missing)  # a root of its own needs a namespace
            assert made.counters["sandbox-error"] == 0
    said = [str(one.message) for one in seen if issubclass(one.category, UserWarning)]
    assert len(said) <= 1
    assert said or made.layers.confined


@pytest.mark.parametrize("broken", ["seccomp"], indirect=True)
def test_strict_refuses_and_says_why(broken: str) -> None:
    with pytest.raises(SandboxUnavailable, match="no sufficient sandbox here: no slot can be started"):
        Executor("strict", workers=1)
