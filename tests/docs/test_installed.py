"""The built package, installed where there is no clone: it trains, evaluates, exports and reports by itself.

Nothing is loaded from the network: the wheel is built by the hatchling of this environment and installed without its
dependencies into an empty one, which then borrows the libraries of this one.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import azr_mlx

LITTLE = (
    "batch.proposals=2 batch.attempts=2 batch.solves=2 batch.solve_group=2 buffer.seed_size=6 buffer.seed_rounds=1 "
    "sampling.propose_tokens=64 sampling.solve_tokens=32 evaluation.samples=1 evaluation.probe_tasks=2"
)
EPOCH = "1700000000"
pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("hatchling") is None, reason="hatchling is not installed"),
    pytest.mark.skipif(sys.platform == "win32", reason="azr does not run there"),
]


def build(source: Path, target: Path, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(target), *words],
        cwd=source, env={**os.environ, "SOURCE_DATE_EPOCH": EPOCH}, check=True, capture_output=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="session")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this source tree."""
    target = tmp_path_factory.mktemp("dist")
    build(root, target)
    return target


def wheel_of(folder: Path) -> Path:
    [wheel] = folder.glob("*.whl")
    return wheel


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel, and an empty working folder."""

    environment: Path
    work: Path
    home: Path

    def run(self, command: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """A command as somebody would type it in the working folder, with nothing of this shell but its language."""
        done = subprocess.run(
            shlex.split(command), cwd=self.work, env=self.variables() | variables, capture_output=True, text=True,
            timeout=280,
        )  # fmt: skip
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def begins(self, command: str, word: str) -> bool:
        """Whether a command prints a line with that word. It is ended as soon as it has."""
        with subprocess.Popen(
            shlex.split(command), cwd=self.work, env=self.variables(), stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        ) as running:  # fmt: skip
            assert running.stdout is not None
            found = any(word in line for line in running.stdout)
            running.kill()
        return found

    def variables(self) -> dict[str, str]:
        programs = self.environment / "bin"
        clean = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(self.home), "HF_HUB_OFFLINE": "1", "LANG": "C.UTF-8"}
        # The borrowed processor libraries choose their kernels by these, where a machine sets them.
        return clean | {name: value for name, value in os.environ.items() if name.startswith("OPENBLAS_")}


@pytest.fixture(scope="session")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    if importlib.util.find_spec("pip") is None:
        pytest.skip("this environment has no pip to install with")
    place = tmp_path_factory.mktemp("installed") / "Schöne neue Welt"
    environment, work, home = place / "umgebung", place / "leerer Ordner", place / "home"
    venv.create(environment, symlinks=True, with_pip=False)
    work.mkdir()
    home.mkdir()
    python = environment / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index",
         "--disable-pip-version-check", str(wheel_of(built))],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    [packages] = environment.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (packages / "borrowed.pth").write_text("".join(f"{path}\n" for path in borrowed), encoding="utf-8")
    # The programs of mlx-lm, which pip would have written next to azr.
    generate = environment / "bin" / "mlx_lm.generate"
    generate.write_text(f'#!/bin/sh\nexec "{python}" -m mlx_lm generate "$@"\n')
    generate.chmod(0o755)
    return Installed(environment, work, home)


# -- what is in it


def test_the_wheel_carries_presets_benchmarks_and_the_embedded_model(built: Path, root: Path) -> None:
    with zipfile.ZipFile(wheel_of(built)) as wheel:
        for pattern in ("configs/*.yaml", "benchmarks/*.yaml", "checkpoints/qwen3-nano/*.*"):
            for file in root.glob(pattern):
                name = f"azr_mlx/shipped/{file.relative_to(root).as_posix()}"
                assert wheel.read(name) == file.read_bytes(), name
        inside = {path.relative_to(root).as_posix() for path in (root / "azr_mlx").rglob("*.*") if path.is_file()}
        assert {name for name in inside if "__pycache__" not in name} <= set(wheel.namelist())
        # Nothing else: no tests, no caches, no run folder of the person who built it.
        assert not [name for name in wheel.namelist() if not re.match(r"azr_mlx(/|-)", name) or "__pycache__" in name]
        shipped = {name.split("/")[3] for name in wheel.namelist() if name.startswith("azr_mlx/shipped/checkpoints/")}
        assert shipped == {"qwen3-nano"}


def test_two_builds_are_the_same_bytes_and_so_is_one_from_the_sdist(built: Path, root: Path, tmp_path: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
        assert {int(member.mtime) for member in archive.getmembers()} == {int(EPOCH)}
    [source] = tmp_path.iterdir()
    build(source, tmp_path / "again")
    for first in built.iterdir():
        assert (tmp_path / "again" / first.name).read_bytes() == first.read_bytes(), first.name


# -- from nothing


def test_from_an_empty_folder_to_an_exported_model(installed: Installed) -> None:
    """Each command after the first is read from the screen before it."""
    said = installed.run(f"azr train --config nano --steps 2 {' '.join(f'--set {word}' for word in LITTLE.split())}")
    screen = said.stdout

    def told(label: str) -> str:
        found = re.search(rf"^{label}: +(.+)$", screen, re.MULTILINE)
        assert found, screen
        return found.group(1)

    run = installed.work / "checkpoints" / "nano"
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert (run / "step-000002" / "adapters.safetensors").is_file()
    report = re.fullmatch(r"open (.+) in a browser", told("look"))
    assert report
    assert (installed.work / report.group(1)).read_text(encoding="utf-8").startswith("<!doctype html>")

    scored = installed.run(told("evaluate") + " --limit 2 --tokens 32")
    assert "humaneval" in scored.stdout
    results = json.loads((installed.work / "logs" / "evaluation_results.json").read_text(encoding="utf-8"))
    assert len(results) == 2

    exported = installed.run(told("export")).stdout
    assert (installed.work / "exports" / "nano-step-000002" / "hf" / "model.safetensors").is_file(), exported

    assert "==========" in installed.run(told("use it")).stdout
    assert "report.html" in installed.run("azr report").stdout

    # The package came with what was used, and nothing was written into it.
    python = "import azr_mlx, azr_mlx.paths, sys; print(azr_mlx.paths.shipped()); print('mlx' in sys.modules)"
    shipped, mlx = installed.run(f"python -c {shlex.quote(python)}").stdout.splitlines()
    assert Path(shipped).is_relative_to(installed.environment.resolve())
    assert mlx == "False"
    assert not list(Path(shipped).glob("checkpoints/*/step-*"))
    assert {path.name for path in installed.work.iterdir()} == {"checkpoints", "logs", "exports"}


def test_it_says_what_is_installed(installed: Installed) -> None:
    line = installed.run("azr --version").stdout
    version = re.escape(azr_mlx.__version__)
    assert re.fullmatch(rf"azr {version} \(mlx [\d.]+\S*, mlx-lm [\d.]+\S*, Python 3\.[\d.]+\S*, .+\)\n", line), line


def test_the_doctor_and_the_demonstration_find_the_embedded_model(installed: Installed) -> None:
    found = installed.run("azr doctor --offline").stdout
    assert re.search(r"^ok +sampler ", found, re.MULTILINE), found
    assert installed.begins("azr demo --steps 0", "teaches itself")


def test_presets_and_benchmarks_are_listed(installed: Installed) -> None:
    assert "qwen2.5-coder-3b" in installed.run("azr config").stdout
    assert "humaneval" in installed.run("azr eval --list").stdout


def test_runs_and_logs_go_where_azr_home_says(installed: Installed, tmp_path: Path) -> None:
    words = [
        "--config nano --steps 0 --set buffer.seed_size=1 --set buffer.seed_rounds=1 --set evaluation.probe_tasks=1"
    ]
    installed.run(f"azr train {words[0]}", AZR_HOME=str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "checkpoints" / "nano" / "step-000000").is_dir()
    assert "elsewhere" in installed.run("azr report", AZR_HOME=str(tmp_path / "elsewhere")).stdout


@pytest.mark.parametrize("command", ["azr train --config nano", "azr eval --bench humaneval --limit 1"])
def test_a_folder_that_cannot_be_written_to_is_one_line(installed: Installed, tmp_path: Path, command: str) -> None:
    """A file stands where the folder of runs would be made: this fails for root as well, unlike missing rights."""
    (tmp_path / "home").write_text("")
    line = installed.run(command, code=1, AZR_HOME=str(tmp_path / "home")).stderr
    assert re.fullmatch(r"azr: cannot write to \S+/home/\S+: .+; work in a folder of your own, .+\n", line), line
    assert "AZR_HOME" in line
