"""Samples of a policy for the problems of a benchmark, written to disk as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from azr_mlx.evaluation.asking import Asker, Question
from azr_mlx.evaluation.plan import Plan
from azr_mlx.evaluation.problems import Problem
from azr_mlx.evaluation.replies import thinking
from azr_mlx.evaluation.samples import SampleFile
from azr_mlx.selfplay import kinds
from azr_mlx.types import Prompt, Role, Rollout, Stop

EVALUATION_SEED = 0x6576616C  # a word of every key: no draw of an evaluation is one of training

OnProgress = Callable[[int, int, int], None]  # samples there are, samples in all, tokens written now


class SamplingPolicy(Protocol):
    """What an evaluation needs of a policy."""

    def sample(
        self, prompts: Sequence[Prompt], n: int = 1, *, seed: Sequence[int], max_tokens: int | Sequence[int],
        temperature: float = 1.0, top_p: float = 1.0, stop: Sequence[str] = (), progress: OnProgress | None = None,
        names: Sequence[int] = (),
    ) -> Iterator[tuple[int, int, Rollout]]: ...  # fmt: skip

    def render_chat(self, user_text: str, prefill: str = "", earlier: Sequence[tuple[str, str]] = ()) -> str: ...


@dataclass
class WriteCount:
    """What writing took, in this process."""

    tokens: int = 0
    seconds: float = 0.0
    fresh: int = 0
    reused: int = 0


def write_samples(
    plan: Plan,
    asker: Asker,
    policy: SamplingPolicy,
    file: SampleFile,
    on_sample: Callable[[Problem, Mapping[str, Any]], None],
    progress: OnProgress = lambda done, total, tokens: None,
) -> WriteCount:
    """Have the policy write every sample that the file lacks; `on_sample` gets each as soon as it is there."""
    choice = plan.choice
    written = WriteCount()
    todo: list[tuple[int, int]] = []
    for i, problem in enumerate(plan.problems):
        for j in range(choice.samples):
            row = file.found.get((problem.id, j))
            if row is None:
                todo.append((i, j))
            else:
                written.reused += 1
                on_sample(problem, row)
    total = len(plan.problems) * choice.samples
    progress(written.reused, total, 0)
    if not todo:
        return written
    started = time.monotonic()
    for problem, row in sample(plan, asker, policy, todo):
        file.add(row)
        on_sample(problem, row)
        written.fresh += 1
        written.tokens += row["tokens"]
        written.seconds = time.monotonic() - started
        progress(written.reused + written.fresh, total, written.tokens)
    return written


def sample(
    plan: Plan,
    asker: Asker,
    policy: SamplingPolicy,
    wanted: Sequence[tuple[int, int]],
    progress: OnProgress | None = None,
) -> Iterator[tuple[Problem, dict[str, Any]]]:
    """Have the policy write the samples `wanted`, each (number of the problem, number of its sample), in any order.

    Yields the problem and the row of the sample file as soon as a sample has ended.
    """
    choice = plan.choice
    questions = {i: asker.ask(plan.problems[i]) for i in sorted({i for i, _ in wanted})}
    rollouts = policy.sample(
        [_prompt(questions[i]) for i, _ in wanted], 1, seed=(choice.seed, EVALUATION_SEED),
        max_tokens=choice.tokens or asker.wording.tokens, temperature=choice.temperature, top_p=choice.top_p,
        stop=sorted({stop for question in questions.values() for stop in question.stop}), progress=progress,
        # A sample's draws hang on its problem and number, not on which others are still to be written.
        names=[i * choice.samples + j for i, j in wanted],
    )  # fmt: skip
    for number, _, rollout in rollouts:
        i, j = wanted[number]
        problem, question = plan.problems[i], questions[i]
        completion = asker.completion(problem, question, rollout.completion.text)
        yield problem, _row(problem, j, rollout, completion, question)


def _prompt(question: Question) -> Prompt:
    # Role and kind are words of self-play; a benchmark's problem is nearest to writing a program.
    return Prompt(Role.SOLVE, kinds.hiding("program"), question.text, question.opening)


def _row(problem: Problem, sample: int, rollout: Rollout, completion: str, question: Question) -> dict[str, Any]:
    """One line of the file of samples."""
    text = rollout.completion.text
    stop = rollout.completion.stop
    if stop is Stop.LENGTH and any(one in text for one in question.stop):
        stop = Stop.TEXT
    return {
        "task_id": problem.id,
        "completion": completion,
        "sample": sample,
        "text": text,
        "tokens": len(rollout.completion.tokens),
        "stop": str(stop),
        **({"thinking": "unfinished"} if thinking(question.opening + text) else {}),
    }
