"""The user's rows as an environment: prompts of the rows, groups of answers, rewards, group advantages (GRPO).

Which rows a step asks is a function of the seed and the step, so that nothing has to be remembered between steps.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from azr_mlx.config import Config
from azr_mlx.errors import UsageError
from azr_mlx.executor import Executor
from azr_mlx.generation import Group, Judged, PhaseTimer, Purpose, RolloutStream, SampleRequest, Writer, untimed
from azr_mlx.rows import reward_functions
from azr_mlx.rows.group_advantages import advantages, deviation, loss_weights
from azr_mlx.rows.reading import Message, Row, Table, read, split
from azr_mlx.rows.ready import PendingReward, ReadyReward, Unjudged, ready_rewards
from azr_mlx.rows.reward_functions import Answer, RewardFunction
from azr_mlx.types import Experience, Kind, PendingVerdict, Prompt, Role, Rollout, ScoredRow, Task, Verdict

UNJUDGED = "sandbox error"


@dataclass(frozen=True)
class Rewards:
    """What an answer earns: the weighted sum of some functions, of which the ready ones judge it while others are
    written."""

    ready: Mapping[str, ReadyReward]
    own: Sequence[RewardFunction]
    weights: Mapping[str, float]  # of every function, in the order of the configuration

    @classmethod
    def of(cls, config: Config, table: Table) -> Rewards:
        """The functions that the configuration names. Raises UsageError for one that is not there, or cannot apply."""
        known, ready, own, weights = (
            ready_rewards(config.reward.format),
            dict[str, ReadyReward](),
            [],
            dict[str, float](),
        )
        for place, word in enumerate(config.reward.functions):
            if word in known:
                if not any(known[word].applies(row.columns) for row in table.rows):
                    needed = " or ".join(" and ".join(sorted(some)) for some in known[word].needs)
                    raise UsageError(
                        f"reward: {word} needs a column {needed}; {table.name} has {', '.join(table.columns) or 'none'}"
                    )
                ready[word] = known[word]
                name = word
            elif ":" in word:
                function = reward_functions.load(word, config.reward.seconds, config.steps)
                if function.name in weights:
                    function.name = f"{Path(word.rpartition(':')[0]).stem}.{function.name}"
                own.append(function)
                name = function.name
            else:
                raise UsageError(f"reward: {word} is neither file.py:function nor one of {', '.join(known)}")
            if name in weights:
                raise UsageError(f"reward: {name} is given twice")
            weights[name] = float(config.reward.weights[place]) if config.reward.weights else 1.0
        return cls(ready, own, weights)

    def start(self, row: Row, reply: str, executor: Executor) -> PendingVerdict:
        """Begin to judge a reply by the ready rewards."""
        pending: list[PendingReward] = [
            one.start(reply, row.columns, executor) if one.applies(row.columns) else lambda: None
            for one in self.ready.values()
        ]

        def verdict() -> Verdict:
            try:
                return Verdict(True, False, "ok", rewards=tuple(one() for one in pending))
            except Unjudged as error:
                return Verdict(True, False, UNJUDGED, detail=str(error), dropped=True)

        return verdict

    def grade(self, answers: Sequence[Answer], verdicts: Sequence[Verdict], step: int) -> list[dict[str, float | None]]:
        """What each function gives for each answer, by name, in the order of the configuration."""
        columns: dict[str, Sequence[float | None]] = {}
        for place, name in enumerate(self.ready):
            columns[name] = [None if one.dropped else one.rewards[place] for one in verdicts]
        for function in self.own:
            columns[function.name] = function(answers, step)
        return [{name: columns[name][i] for name in self.weights} for i in range(len(answers))]

    def total(self, rewards: Mapping[str, float | None]) -> float:
        """The weighted sum of the rewards that apply; nan when none does."""
        given = [self.weights[name] * reward for name, reward in rewards.items() if reward is not None]
        return sum(given) if given else math.nan


def material(config: Config) -> tuple[Table, Rewards]:
    """The rows of a configuration and its reward functions, before a model is loaded. Raises UsageError."""
    table = read(config.data.path, prompt=config.data.prompt, split=config.data.split)
    return table, Rewards.of(config, table)


@dataclass
class RowsEnvironment:
    """The rows of one run, and what happens with them in a step.

    `render` puts messages into the model's chat template; `fits` says whether a prompt is short enough; `say` takes a
    line for the console.
    """

    config: Config
    executor: Executor
    table: Table
    rewards: Rewards
    render: Callable[[Sequence[Message]], str]
    fits: Callable[[Prompt], bool]
    say: Callable[[str], None]
    phase: PhaseTimer = untimed
    train: list[Row] = field(default_factory=list)
    held_out: list[Row] = field(default_factory=list)
    _prompts: dict[int, Prompt] = field(default_factory=dict)
    _told: set[str] = field(default_factory=set)

    @classmethod
    def open(
        cls,
        config: Config,
        found: tuple[Table, Rewards],
        executor: Executor,
        render: Callable[[Sequence[Message]], str],
        fits: Callable[[Prompt], bool],
        say: Callable[[str], None],
        phase: PhaseTimer = untimed,
    ) -> RowsEnvironment:
        """The environment of some `material`; says what is left out. Raises UsageError when nothing is left."""
        data, table = config.data, found[0]
        made = cls(config, executor, *found, render, fits, say, phase)
        table.keep_if(lambda row: fits(made.prompt(row)), "the prompt is longer than sampling.prompt_tokens")
        for line in table.complaints():
            say(line)
        made.train, made.held_out = split(table.rows, data.held_out, data.held_out_most)
        if not made.train:
            raise UsageError(f"data.path: {table.name} has no row left to train on: lower data.held_out, or see above")
        return made

    @property
    def stop(self) -> tuple[str, ...]:
        return ()

    def tasks(self) -> Mapping[Kind, Sequence[Task]]:
        return {}

    def prompt(self, row: Row) -> Prompt:
        """The prompt of a row: its text as it stands, or its messages in the model's chat template."""
        if row.number not in self._prompts:
            text = row.prompt if isinstance(row.prompt, str) else self.render(row.prompt)
            self._prompts[row.number] = Prompt(Role.SOLVE, None, text, opening(text))
        return self._prompts[row.number]

    # A step -----------------------------------------------------------------------------------------------------

    def drawn(self, step: int) -> list[Row]:
        """The rows of a step: one after the other through the file, in an order of its own for each pass."""
        count, number = self.config.rows.prompts, len(self.train)
        found = []
        for place in range(step * count, (step + 1) * count):
            order = list(range(number))
            random.Random(f"{self.config.seed}/rows/{place // number}").shuffle(order)
            found.append(self.train[order[place % number]])
        return found

    def ask(self, stream: RolloutStream, step: int) -> None:
        """A group of answers to each row of the step."""
        stream.submit(self.request(row, self.config.rows.group) for row in self.drawn(step))

    def request(self, row: Row, count: int) -> SampleRequest:
        def judge(rollout: Rollout) -> PendingVerdict:
            return self.rewards.start(row, rollout.reply, self.executor)

        limit = self.config.sampling.solve_tokens
        return SampleRequest(self.prompt(row), Purpose.ANSWER, judge, limit, count, row=row.number)

    def score(self, step: int, groups: Sequence[Group]) -> Experience:
        """Rewards of all answers, and the advantages of each group."""
        mine = [group for group in groups if group.request.purpose is Purpose.ANSWER]
        rows = {row.number: row for row in self.train}
        numbers = [group.request.row or 0 for group in mine for _ in group.judged]
        scored = self.graded([(rows[n], one) for n, one in zip(numbers, _judged(mine), strict=True)], step)
        self.tell(step)
        ends = [sum(len(group.judged) for group in mine[: i + 1]) for i in range(len(mine))]
        parts = [scored[end - len(group.judged) : end] for group, end in zip(mine, ends, strict=True)]
        algorithm = self.config.rows.algorithm
        centred = [
            value for part in advantages([[one.reward for one in part] for part in parts], algorithm) for value in part
        ]
        masked = [self.config.loss.mask_truncated and one.rollout.completion.truncated for one in scored]
        kept = [i for i, one in enumerate(scored) if not (masked[i] or math.isnan(one.reward))]
        lengths = [len(scored[i].rollout.completion.tokens) for i in kept]
        counted = sum(not math.isnan(one.reward) for one in scored)
        factors = loss_weights(lengths, counted, self.config.sampling.solve_tokens, algorithm)
        return Experience(
            [scored[i] for i in kept],
            [centred[i] * factor for i, factor in zip(kept, factors, strict=True)],
            rows=scored,
            dropped=sum(one.verdict.dropped for one in _judged(mine)),
            masked=sum(masked),
            metrics=self.measured(step, parts),
        )

    def graded(self, judged: Sequence[tuple[Row, Judged]], step: int) -> list[ScoredRow]:
        """The answers with their rewards."""
        answers = [Answer(row, one.rollout.completion.text, one.rollout.completion.tokens) for row, one in judged]
        with self.phase("reward", len(answers)):
            rewards = self.rewards.grade(answers, [one.verdict for _, one in judged], step)
        return [
            ScoredRow(
                one.rollout, row.number, given, total := self.rewards.total(given),
                one.verdict.why if one.verdict.dropped else "no reward" if math.isnan(total) else "ok",
            )
            for (row, one), given in zip(judged, rewards, strict=True)
        ]  # fmt: skip

    def tell(self, step: int) -> None:
        """Say the first failure of each sort; all are counted in rows/unscored."""
        for function in self.rewards.own:
            for number, why in function.failures:
                sort = f"{function.name}: {why.partition(':')[0]}"
                if sort not in self._told:
                    self._told.add(sort)
                    self.say(
                        f"note: {function.where} {why} for an answer to row {number} in step {step}: it gets no reward "
                        "(rows/unscored counts such answers)"
                    )

    def measured(self, step: int, groups: Sequence[Sequence[ScoredRow]]) -> dict[str, float]:
        """The metrics of a step."""
        scored = [one for group in groups for one in group]
        rewards = [one.reward for one in scored if not math.isnan(one.reward)]
        lengths = [len(one.rollout.completion.tokens) for one in scored]
        flat = [len({one.reward for one in group if not math.isnan(one.reward)}) <= 1 for group in groups]
        found = {
            "rows/reward": fmean(rewards) if rewards else math.nan,
            "rows/reward_std": deviation(rewards),
            "rows/flat": fmean(flat),
            "rows/length": fmean(lengths),
            "rows/truncated": fmean(one.rollout.completion.truncated for one in scored),
            "rows/unscored": float(len(scored) - len(rewards)),
            "rows/epoch": (step + 1) * self.config.rows.prompts / len(self.train),
        }
        for name in self.rewards.weights:
            given = [value for one in scored if (value := one.rewards[name]) is not None]
            if given:
                found[f"rows/reward/{name}"] = fmean(given)
        for function in self.rewards.own:
            for name, values in function.logged.items():
                found[f"rows/logged/{name}"] = fmean(values)
        return found

    # Held-out rows ----------------------------------------------------------------------------------------------

    def held_out_requests(self, count: int) -> list[SampleRequest]:
        return [self.request(row, count) for row in self.held_out]

    def held_out_rewards(self, groups: Sequence[Group]) -> list[float]:
        """The mean reward of the answers to each held-out row; an answer without a reward counts as 0."""
        pairs = [(row, one) for row, group in zip(self.held_out, groups, strict=True) for one in group.judged]
        scored = iter(self.graded(pairs, 0))
        rewards = [[next(scored).reward for _ in group.judged] for group in groups]
        return [fmean(0.0 if math.isnan(one) else one for one in group) for group in rewards]

    # Around the steps -------------------------------------------------------------------------------------------

    def prepare(self, writer: Writer, say: Callable[[str], None]) -> Mapping[str, int]:
        functions = ", ".join(f"{weight:g} x {name}" for name, weight in self.rewards.weights.items())
        say(f"rows: {len(self.train)} of {self.table.name}, {len(self.held_out)} held out; reward {functions}")
        return {}

    def snapshot(self) -> None:
        """Nothing is remembered between steps."""

    def restore(self, remembered: None) -> None:
        """Nothing to forget."""

    def save(self, folder: Path) -> dict[str, Any]:
        return {"rows": {"file": self.table.name, "sha256": self.table.digest}}

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Raises UsageError when the rows are not those that the run began with."""
        known = state.get("rows")
        if known is not None and known["sha256"] != self.table.digest:
            raise UsageError(
                f"{self.table.name} has other rows than when this run began: put the old file back, or start a new run"
            )


def opening(text: str) -> str:
    """The fence at the end of a prompt that opens the reply's block for it, or "": ready rewards read on from there."""
    found = _OPEN_FENCE.search(text)
    return found[0] if found is not None and text.count("```") % 2 else ""


_OPEN_FENCE = re.compile(r"```[A-Za-z0-9]{0,20}\n\Z")


def _judged(groups: Sequence[Group]) -> list[Judged]:
    return [one for group in groups for one in group.judged]
