"""The workflows run what a person runs, on the systems and versions that the package promises."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MAKE = re.compile(r"(?:^|[;&|]\s*)make\s+(?:-s\s+)?([a-z-]+)", re.MULTILINE)


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return found


def commands(path: Path) -> Iterator[tuple[str, str]]:
    """(job, command) of every step that runs one."""
    for job, what in read(path)["jobs"].items():
        for step in what["steps"]:
            if "run" in step:
                yield job, step["run"]


def targets(path: Path) -> set[str]:
    return {target for _, command in commands(path) for target in MAKE.findall(command)}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_every_target_is_one_of_the_makefile(path: Path) -> None:
    known = set(re.findall(r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets(path)
    assert targets(path) <= known


def test_a_push_runs_what_a_change_has_to_pass() -> None:
    """.ci/run is what lands a change; CI runs the same targets with the same words."""
    script = (ROOT / ".ci" / "run").read_text()
    looped = re.search(r"for target in ([^;]+);", script)
    assert looped is not None
    assert {*shlex.split(looped.group(1)), "hf-check"} <= targets(ROOT / ".github/workflows/ci.yml")
    torch = re.search(r"TORCH=\S+", script)
    assert torch is not None
    assert any(torch.group() in command for _, command in commands(ROOT / ".github/workflows/ci.yml"))


def test_every_python_that_the_package_names_is_tested_on_both_systems() -> None:
    named = set(re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text()))
    for job in ("linux", "macos"):
        matrix = read(ROOT / ".github/workflows/ci.yml")["jobs"][job]["strategy"]["matrix"]
        assert set(matrix["python"]) == named
        assert len(matrix["os"]) >= 2


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_only_read_and_ends(path: Path) -> None:
    workflow = read(path)
    # A job that publishes asks for its own right, and the workflow then gives none.
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())


def test_the_issue_form_asks_for_what_the_commands_write() -> None:
    form = (ROOT / ".github" / "ISSUE_TEMPLATE" / "mac.yml").read_text()
    assert "azr doctor --json --offline" in form
    assert "azr-bench.json" in form
    assert yaml.safe_load(form)["name"]
