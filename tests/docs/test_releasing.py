"""What the release workflow does, as far as it can be seen without GitHub."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

import azr_mlx


@pytest.fixture(scope="module")
def jobs(root: Path) -> dict[str, Any]:
    text = (root / ".github/workflows/release.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert workflow["permissions"] == {}
    assert "secrets." not in text
    found: dict[str, Any] = workflow["jobs"]
    return found


def script(job: dict[str, Any], name: str) -> str:
    [step] = [step for step in job["steps"] if step.get("name") == name]
    return str(step["run"])


def test_only_the_job_that_publishes_may_prove_who_it_is(jobs: dict[str, Any]) -> None:
    assert {name: job["permissions"] for name, job in jobs.items()} == {
        "build": {"contents": "read"}, "publish": {"id-token": "write"}, "list": {"contents": "write"},
    }  # fmt: skip
    assert jobs["publish"]["environment"]["name"] == "pypi"
    assert (jobs["publish"]["needs"], jobs["list"]["needs"]) == ("build", "publish")
    assert all("timeout-minutes" in job for job in jobs.values())


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash here")
def test_a_tag_that_is_not_the_version_ends_the_release(jobs: dict[str, Any], root: Path, tmp_path: Path) -> None:
    """The step itself, run on a copy of the two files that it reads."""
    check = script(jobs["build"], "The tag is the version")
    (tmp_path / "azr_mlx").mkdir()
    shutil.copy(root / "azr_mlx/__init__.py", tmp_path / "azr_mlx")
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    version = azr_mlx.__version__

    def end(tag: str, dated: bool) -> subprocess.CompletedProcess[str]:
        date = "2026-01-31" if dated else "unreleased"
        text = re.sub(rf"^## \[{re.escape(version)}\] - .*$", f"## [{version}] - {date}", changelog, flags=re.MULTILINE)
        (tmp_path / "CHANGELOG.md").write_text(text, encoding="utf-8")
        environment = {**os.environ, "GITHUB_REF_NAME": tag}
        environment.pop("PYTHONPATH", None)
        return subprocess.run(
            ["bash", "-e", "-c", check], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )

    assert end(f"v{version}", dated=True).returncode == 0
    wrong = end("v99.0", dated=True)
    assert wrong.returncode == 1
    assert "does not name version" in wrong.stderr
    assert "has no line" in end(f"v{version}", dated=False).stderr


def test_the_notes_of_a_release_are_its_part_of_the_changelog(jobs: dict[str, Any], root: Path, tmp_path: Path) -> None:
    program = script(jobs["list"], "The part of the changelog about this version, and the files").partition("gh ")[0]
    (tmp_path / "CHANGELOG.md").write_text("# Log\n\n## [1.1.0] - x\n- new\n\n## [1.0.0] - x\n- old\n")
    subprocess.run(
        ["bash", "-e", "-c", program], cwd=tmp_path, env={**os.environ, "GITHUB_REF_NAME": "v1.1.0"}, check=True
    )
    assert (tmp_path / "notes.md").read_text().strip() == "- new"


def test_the_version_is_said_in_three_places_alike(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == citation["version"] == azr_mlx.__version__
