"""The user's reward functions: loaded from a file, and called as TRL's GRPOTrainer calls them.

    def reward(prompts, completions, **columns) -> list[float | None]

`prompts` and `completions` are texts, or lists of messages where the row's prompt is one; `columns` has a list for each
column of the rows, and `completion_ids`, `trainer_state`, `log_extra` and `log_metric` as in TRL. The function may be
async. It is the user's own code and runs in the trainer, with all that the trainer may do.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from azr_mlx import paths
from azr_mlx.errors import AzrError, UsageError
from azr_mlx.rows.reading import Row
from azr_mlx.rows.time_limit import TimeLimitReached, time_limit
from azr_mlx.terminal import printable

SLOW_CALLS = 3  # answers on which a function may run out of time, one by one, before the run gives up on it


@dataclass(frozen=True)
class Answer:
    """What a reward function is asked about: a row, and what the policy wrote to it."""

    row: Row
    text: str
    tokens: tuple[int, ...] = ()


@dataclass
class RewardFunction:
    """A function of the user's, with what it has logged and what went wrong in its latest call."""

    name: str
    where: str  # file.py:function, for messages
    function: Callable[..., Any]
    seconds: float  # wall time of one call
    total_steps: int = 0
    logged: dict[str, list[float]] = field(default_factory=dict)  # what it gave to log_metric in its latest call
    failures: list[tuple[int, str]] = field(default_factory=list)  # (number of the row, what happened)

    def __call__(self, answers: Sequence[Answer], step: int) -> list[float | None]:
        """A reward for each answer; None where it does not apply, or where it failed (then `failures` says why).

        It is called once for all answers, as in TRL. When that fails, once for each, so that one row costs only its
        own reward. Raises AzrError when every answer fails.
        """
        self.failures, self.logged = [], {}
        if not answers:
            return []
        found = self._try(answers, step, self.seconds)
        if not isinstance(found, str):
            return [self._number(value, answer) for value, answer in zip(found, answers, strict=True)]
        rewards: list[float | None] = []
        slow = 0
        for answer in answers:
            one = self._try([answer], step, self.seconds / 2)
            slow += one == _too_slow(self.seconds / 2)
            if isinstance(one, str):
                self.failures.append((answer.row.number, one))
                rewards.append(None)
            else:
                rewards.append(self._number(one[0], answer))
            if slow >= SLOW_CALLS:
                raise AzrError(
                    f"{self.where} {found} for {len(answers)} answers: make it faster, or raise reward.seconds"
                )
        if len(self.failures) == len(answers):
            raise AzrError(f"{self.where} {found}, and fails for every answer of step {step}: correct the function")
        return rewards

    def _try(self, answers: Sequence[Answer], step: int, seconds: float) -> list[Any] | str:
        """What the function returns for these answers, or what is wrong with it in words."""
        try:
            with time_limit(seconds):
                found = list(self._call(answers, step))
        except TimeLimitReached:
            return _too_slow(seconds)
        except (Exception, SystemExit) as error:
            return f"raised {type(error).__name__}: {printable(str(error))[:200]}"
        if len(found) != len(answers):
            return f"returned {len(found)} rewards for {len(answers)} answers"
        return found

    def _call(self, answers: Sequence[Answer], step: int) -> Any:
        columns = dict.fromkeys(name for answer in answers for name in answer.row.columns)
        words: dict[str, Any] = {name: [answer.row.columns.get(name) for answer in answers] for name in columns}
        words |= {
            "prompts": [answer.row.prompt for answer in answers],
            "completions": [answer.row.completion(answer.text) for answer in answers],
            "completion_ids": [list(answer.tokens) for answer in answers],
            "trainer_state": SimpleNamespace(global_step=step, max_steps=self.total_steps),
            "log_extra": lambda column, values: None,  # every rollout is written to the run folder anyway
            "log_metric": lambda name, value: self.logged.setdefault(str(name), []).append(float(value)),
        }
        parameters = inspect.signature(self.function).parameters.values()
        if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters):
            named = {one.name for one in parameters}
            words = {name: value for name, value in words.items() if name in named}
        found = self.function(**words)
        return asyncio.run(_awaited(found)) if inspect.isawaitable(found) else found

    def _number(self, value: Any, answer: Answer) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except (TypeError, ValueError):
            self.failures.append((answer.row.number, f"returned {printable(repr(value))[:80]}, which is no number"))
            return None
        if not math.isfinite(number):
            self.failures.append((answer.row.number, f"returned {number}"))
            return None
        return number


def _too_slow(seconds: float) -> str:
    return f"took more than {seconds:g} s"


async def _awaited(found: Any) -> Any:
    return await found


def load(word: str, seconds: float, total_steps: int = 0) -> RewardFunction:
    """The function of "file.py:function". The file's folder can be imported from. Raises UsageError."""
    file, _, name = word.rpartition(":")
    path = paths.resolve_existing(file)
    if path is None or not path.is_file():
        raise UsageError(f"reward: there is no file {file} for {word}")
    module = _module(path.resolve(), word)
    function = getattr(module, name, None)
    if not callable(function):
        named = [key for key, value in vars(module).items() if inspect.isfunction(value) and not key.startswith("_")]
        raise UsageError(f"reward: {file} has no function {name}; it has {', '.join(named) or 'none'}")
    return RewardFunction(name, word, function, seconds, total_steps)


def _module(path: Path, word: str) -> Any:
    name = f"azr_reward_{path.stem}"
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) == str(path):
        return known
    described = importlib.util.spec_from_file_location(name, path)
    if described is None or described.loader is None:
        raise UsageError(f"reward: {path} is no Python file")
    module = importlib.util.module_from_spec(described)
    sys.modules[name] = module  # dataclasses and pickle look there
    if str(path.parent) not in sys.path:  # at the end, and for good: functions import when they are called, too
        sys.path.append(str(path.parent))
    try:
        described.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"reward: {word} cannot be imported: {type(error).__name__}: {error}") from None
    return module
