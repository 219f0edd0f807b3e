"""`azr train` on an emulated Mac, whatever its sandbox refuses: two trained steps, one warning of what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.executor.test_on_a_mac import REFUSALS
from tests.run.test_runs import NANO, ROOT, WORDS

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="emulates a Mac on Linux"),
    pytest.mark.skipif(not (NANO / "model.safetensors").exists(), reason="the embedded model is not built yet"),
]
TRAIN = """
import json, sys
from tests.executor.conftest import on_a_mac
with on_a_mac(**json.loads(sys.argv.pop(1))):
    from azr_mlx.cli import main
    main()
"""


def train(folder: Path, options: dict[str, object]) -> str:
    """The output of two steps."""
    words = ["train", "--config", "nano", "--run-dir", str(folder), "--steps", "2", *WORDS]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, json.dumps(options), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    return done.stdout + done.stderr


def warned(output: str) -> list[str]:
    return [line for line in output.splitlines() if "not fully confined" in line or "nothing holds programs" in line]


def test_where_everything_is_refused_a_step_is_trained_with_one_warning(tmp_path: Path) -> None:
    output = train(tmp_path / "run", {"refuse": "Operation not permitted", "usage": False})
    assert len(warned(output)) == 1
    assert "seatbelt (Operation not permitted)" in warned(output)[0]
    assert "sandbox standard: none" in output


@pytest.mark.slow
@pytest.mark.parametrize("what", REFUSALS)
def test_whatever_is_refused_a_step_is_trained_with_one_warning(what: str, tmp_path: Path) -> None:
    options, said = REFUSALS[what]
    output = train(tmp_path / "run", options)
    assert len(warned(output)) == 1
    assert said in warned(output)[0]


@pytest.mark.slow
def test_where_all_holds_nothing_is_warned_of(tmp_path: Path) -> None:
    output = train(tmp_path / "run", {})
    assert warned(output) == []
    assert "sandbox standard: seatbelt, footprint" in output
