"""The folder of a run: the only place that knows what its files are called, and how they are written and read.

config.yaml      the resolved configuration
prompt_style.yaml  the prompt style, where it is a file of the person's own
versions.json    what the result depends on; `earlier` has those under which the run was begun, up to which step
metrics.jsonl    one row a step: what the seed determines
timings.jsonl    one row a step: seconds and bytes, which it does not
rollouts/        step-000123.jsonl: every rollout of a step
step-000123/     checkpoints (azr_mlx.run.checkpoint); `latest` names the newest
probe.json       held-out evaluation before and after
report.html
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from azr_mlx import config, paths
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.files import plain_errors, write_text
from azr_mlx.versions import changed_versions

CHECKPOINT = re.compile(r"step-(\d{6,})")


class RunFolder:
    """A run on disk. Methods that write raise AzrError, one line, when the disk does not take it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.style = self.path / "prompt_style.yaml"
        self.versions = self.path / "versions.json"
        self.metrics = self.path / "metrics.jsonl"
        self.timings = self.path / "timings.jsonl"
        self.rollouts = self.path / "rollouts"
        self.held_out = self.path / "probe.json"
        self.report = self.path / "report.html"

    def __str__(self) -> str:
        return str(self.path)

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def exists(self) -> bool:
        """Whether a run was begun here."""
        return self.config.is_file() or self.metrics.is_file()

    # One process at a time --------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process; makes it, and clears away what a kill left half-written or half-deleted.

        Raises AzrError when another process holds it.
        """
        import fcntl

        paths.make_folder(self.path, "--run-dir")
        with plain_errors(f"run folder {self}"):
            file = (self.path / ".lock").open("a+")
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise AzrError(
                    f"{self} is in use by process {owner}: wait for it, or give this run another name"
                ) from None
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            for leftover in [*self.path.glob(".step-*.new"), *self.path.glob(".step-*.old")]:
                shutil.rmtree(leftover, ignore_errors=True)
            yield
        finally:
            file.close()

    # Configuration and versions ---------------------------------------------------------------------------------

    def settings(self) -> config.Config | None:
        """The configuration that the run was begun with; None before its first start."""
        return config.load(self.config) if self.config.is_file() else None

    def with_own_style(self, settings: config.Config) -> config.Config:
        """The settings with a prompt style that is a file replaced by the run's copy of it, which is made at the start.

        What is learned depends on every letter of it. Raises ConfigError for one that is not right, UsageError for one
        that is no longer what the run was begun with.
        """
        name = settings.model.style
        config.load_style(name)
        if name in config.style_names():
            return settings
        text = config.find_style(name).read_text(encoding="utf-8")
        if not (self.style.is_file() and self.exists):
            with plain_errors(f"run folder {self}"):
                write_text(self.style, text)
        elif text != self.style.read_text(encoding="utf-8"):
            raise UsageError(
                f"{self} cannot go on with another prompt style: {name} has changed since, {self.style.name} in the "
                "run folder is the old one"
            )
        return replace(settings, model=replace(settings.model, style=str(self.style)))

    def write_settings(self, settings: config.Config, versions: Mapping[str, str], step: int = 0) -> str:
        """Write the configuration, and the versions under which the run goes on at `step`; those before them are kept
        as `earlier`. Returns what has changed, in words, empty when nothing has."""
        before, earlier = self.read_versions() if step else ({}, [])
        changed = changed_versions(before, versions) if before else ""
        if changed:
            earlier = [*earlier, {"until_step": step, **before}]
        if settings.model.style == str(self.style):  # beside the configuration, wherever the folder is moved to
            settings = replace(settings, model=replace(settings.model, style=self.style.name))
        with plain_errors(f"run folder {self}"):
            write_text(self.config, config.dump(settings))
            kept: dict[str, Any] = {**versions, **({"earlier": earlier} if earlier else {})}
            write_text(self.versions, json.dumps(kept, indent=1))
        return changed

    def read_versions(self) -> tuple[dict[str, str], list[dict[str, Any]]]:
        """The versions under which the run goes on, and those before them, the oldest first."""
        try:
            said = json.loads(self.versions.read_text(encoding="utf-8"))
            earlier = list(said.pop("earlier", []))
            return {str(name): str(value) for name, value in said.items()}, earlier
        except (OSError, ValueError, AttributeError, TypeError):
            return {}, []

    # Rows of steps ----------------------------------------------------------------------------------------------

    def append(self, metrics: Mapping[str, Any], timings: Mapping[str, Any]) -> None:
        """Add the two rows of a step."""
        with plain_errors(f"metrics of step {metrics['step']}"):
            for path, row in ((self.metrics, metrics), (self.timings, timings)):
                with path.open("a") as file:
                    file.write(json.dumps(row) + "\n")

    def rows(self) -> list[dict[str, Any]]:
        """The run so far: metrics and timings joined on `step`, in order."""
        return join_rows(read_rows(self.metrics), read_rows(self.timings))

    def write_rollouts(self, step: int, rows: Iterable[Mapping[str, Any]]) -> None:
        with plain_errors(f"rollouts of step {step}"):
            self.rollouts.mkdir(parents=True, exist_ok=True)
            write_text(self.rollouts / f"step-{step:06d}.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def rollout_files(self) -> list[tuple[int, Path]]:
        """(step, file) of the rollouts that are there, in order."""
        found = [(int(path.stem.removeprefix("step-")), path) for path in self.rollouts.glob("step-*.jsonl")]
        return sorted(found)

    def rewind(self, step: int) -> None:
        """Forget every row and rollout of `step` and later: they are about to be made again."""
        with plain_errors(f"run folder {self}"):
            self.rollouts.mkdir(parents=True, exist_ok=True)
            for path in (self.metrics, self.timings):
                rows = [row for row in read_rows(path) if row["step"] < step]
                write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
            for number, path in self.rollout_files():
                if number >= step:
                    path.unlink()

    # Checkpoints ------------------------------------------------------------------------------------------------

    def checkpoint(self, step: int) -> Path:
        return self.path / f"step-{step:06d}"

    def checkpoints(self) -> list[tuple[int, Path]]:
        """(step, folder), oldest first. Half-written ones have other names."""
        found = [
            (int(match[1]), path) for path in self.path.glob("step-*") if (match := CHECKPOINT.fullmatch(path.name))
        ]
        return sorted(found)

    def latest(self) -> Path | None:
        """The newest checkpoint, or None."""
        found = self.checkpoints()
        return found[-1][1] if found else None

    def prune(self, keep: int, best: int | None = None) -> list[Path]:
        """Delete all but the newest `keep` checkpoints and the one of step `best`; returns what went."""
        gone = [path for number, path in self.checkpoints()[:-keep] if number != best]
        for path in gone:
            # A kill in mid-deletion must not leave a folder that looks whole.
            doomed = path.with_name(f".{path.name}.old")
            path.replace(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        return gone

    # The result -------------------------------------------------------------------------------------------------

    def write_held_out(self, result: Mapping[str, Any]) -> None:
        with plain_errors(f"result of {self}"):
            write_text(self.held_out, json.dumps(dict(result)) + "\n")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file that have a step; a line that a kill cut in two is left out, a missing file is empty."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    rows = []
    for line in text.split("\n"):
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def join_rows(*tables: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of several tables joined on `step`, in order of the steps."""
    joined: dict[int, dict[str, Any]] = {}
    for table in tables:
        for row in table:
            joined.setdefault(row["step"], {}).update(row)
    return [joined[step] for step in sorted(joined)]


def choose(settings: config.Config, run_dir: Path | None, resume: str | None) -> RunFolder:
    """The folder of a run. A fresh run never touches an older one: it takes the next free name. Raises UsageError."""
    if resume is None:
        return RunFolder(_fresh(settings.name, run_dir))
    if resume == "auto" and run_dir is None:
        return RunFolder(_newest_of(settings.name))
    folder = RunFolder(run_dir if resume == "auto" and run_dir is not None else resume)
    if CHECKPOINT.fullmatch(folder.name):
        raise UsageError(f"resume from the run folder {folder.path.parent}, not from one of its checkpoints")
    if resume != "auto" and not folder.path.is_dir():
        raise UsageError(f"--resume {resume}: there is no such run folder")
    if folder.latest() is None and not folder.config.is_file():
        raise UsageError(f"{folder} has no checkpoint to resume from")
    return folder


def _fresh(name: str, run_dir: Path | None) -> Path:
    folder, number = run_dir or paths.checkpoints() / name, 2
    while folder.exists() and any(folder.glob("*.jsonl")) | any(folder.glob("step-*")):
        if run_dir is not None:
            raise UsageError(
                f"{run_dir} holds a run already: go on with --resume {paths.typed(run_dir)}, or name another folder"
            )
        folder = paths.checkpoints() / f"{name}-{number}"
        number += 1
    return folder


def _newest_of(name: str) -> Path:
    """The run of this name that was begun last: NAME, NAME-2, NAME-3, ..."""
    family = [
        path
        for path in paths.checkpoints().glob(f"{name}*")
        if (path / "config.yaml").is_file()
        and (path.name == name or path.name.removeprefix(name).lstrip("-").isdigit())
    ]
    return max(family, key=lambda path: (path / "config.yaml").stat().st_mtime, default=paths.checkpoints() / name)
