"""Threads that judge samples while others are still being written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from azr_mlx.evaluation.judging import Judge, Score
from azr_mlx.evaluation.problems import Problem
from azr_mlx.evaluation.verdicts import VerdictFile, verdict_key


@dataclass
class JudgedSamples:
    """Samples with their verdicts: in the order of the problems, and as they were given."""

    rows: list[tuple[Problem, dict[str, Any], Score]]
    given: list[tuple[Problem, dict[str, Any], Score]]


class JudgePool:
    """Judges samples in threads while others are still being written.

    verdicts: keeps them as they come, and knows those of an interrupted judging, which are taken as they are.
    """

    def __init__(self, judge: Judge, verdicts: VerdictFile | None = None) -> None:
        self._judge = judge
        self._verdicts = verdicts
        self._threads = ThreadPoolExecutor(max_workers=judge.executor.workers + 1, thread_name_prefix="azr-judge")
        self._waiting: list[tuple[Problem, dict[str, Any], Future[Score]]] = []
        self.reused = 0

    def submit(self, problem: Problem, row: Mapping[str, Any]) -> None:
        program = row.get("solution") if "completion" not in row else None
        completion = str(row.get("completion", ""))
        key = verdict_key(problem.id, completion, program)
        known = self._verdicts.found.get(key) if self._verdicts is not None else None
        future: Future[Score]
        if known is not None:
            self.reused += 1
            future = Future()
            future.set_result(known)
        else:
            future = self._threads.submit(self._judged, key, problem, completion, program)
        self._waiting.append((problem, dict(row), future))

    def _judged(self, key: str, problem: Problem, completion: str, program: str | None) -> Score:
        score = self._judge(problem, completion, program)
        if self._verdicts is not None:
            self._verdicts.add(key, score)
        return score

    @property
    def done(self) -> int:
        return sum(future.done() for _, _, future in self._waiting)

    def results(self, problems: Sequence[Problem]) -> JudgedSamples:
        """Wait for all verdicts. Raises what a judge raised."""
        place = {problem.id: i for i, problem in enumerate(problems)}
        given = [(problem, row, future.result()) for problem, row, future in self._waiting]
        # Stable, so that samples without a number keep the order of their file.
        return JudgedSamples(sorted(given, key=lambda one: (place[one[0].id], one[1].get("sample", 0))), given)

    def __enter__(self) -> JudgePool:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
