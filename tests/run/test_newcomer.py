"""A newcomer's walk: a clone, `make train`, and then only what the last screen says to do.

Each command is read from the screen before it. The environment is the one that runs the tests, in the clothes of the
`.venv` that `make` would have set up: nothing is installed and nothing is loaded from the network.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LITTLE = (
    "batch.proposals=2 batch.attempts=2 batch.solves=2 batch.solve_group=2 buffer.seed_size=6 buffer.seed_rounds=1 "
    "sampling.propose_tokens=64 sampling.solve_tokens=32 evaluation.samples=1 evaluation.probe_tasks=2"
)
pytestmark = [
    pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout"),
    pytest.mark.skipif(sys.platform == "win32", reason="uses make"),
]


def clone(folder: Path) -> Path:
    """A clone with what is not committed yet, and an environment that is set up already."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    changed = subprocess.run(
        ["git", "ls-files", "--modified", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in changed:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    programs = {"python": "", "azr": "-m azr_mlx", "mlx_lm.generate": "-m mlx_lm generate"}
    for name, words in programs.items():
        program = folder / ".venv" / "bin" / name
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f'#!/bin/sh\nexport PYTHONPATH="{folder}"\nexec "{sys.executable}" {words} "$@"\n')
        program.chmod(0o755)
    stamp = folder / ".venv" / ".azr-core"
    stamp.touch()
    os.utime(stamp, (time.time() + 60,) * 2)
    return folder


def run(command: str, folder: Path) -> str:
    """What a command prints when somebody types it in the clone."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        shlex.split(command), cwd=folder, env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def told(screen: str, label: str, folder: Path) -> str:
    """The command or file that a line of the screen names; programs of the environment are those of the clone."""
    found = re.search(rf"^{label}: +(.+)$", screen, re.MULTILINE)
    assert found, screen
    return re.sub(r"^\S*/(azr|mlx_lm\.generate)(?= )", rf"{folder}/.venv/bin/\1", found.group(1))


def test_every_step_is_shown_by_the_one_before(tmp_path: Path) -> None:
    here = clone(tmp_path / "azr_mlx")
    screen = run(f"make train CONFIG=nano STEPS=2 SET='{LITTLE}'", here)
    assert "before" in screen
    assert "after" in screen

    report = re.fullmatch(r"open (\S+) in a browser", told(screen, "look", here))
    assert report
    assert (here / report.group(1)).read_text(encoding="utf-8").startswith("<!doctype html>")

    assert "humaneval" in run(told(screen, "evaluate", here) + " --limit 2 --tokens 32", here)

    exported = run(told(screen, "export", here), here)
    folder = re.search(r"-> (\S+)", exported)
    assert folder
    assert (here / folder.group(1)).is_dir()

    assert "==========" in run(told(screen, "use it", here), here)


def test_make_alone_says_what_there_is(tmp_path: Path) -> None:
    said = run("make", clone(tmp_path / "azr_mlx"))
    assert "make train" in said
    assert "make eval" in said
