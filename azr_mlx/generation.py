"""One generation session of a step: what is written, what each part of it is for, and its verdict as soon as it ends.

A request carries its purpose, its limit and its judge, so that the rollouts of several environments are written
together and never told apart by their position.

    stream = RolloutStream(session)
    stream.submit(proposal_requests)
    for proposal in stream.proposals():          # each judged, in the order in which they end
        stream.submit([SampleRequest(prompt, Purpose.ATTEMPT, judge, 512, count=8, proposal=proposal.place)])
    stream.drain()
    groups = stream.groups()
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from enum import StrEnum
from statistics import fmean
from typing import Protocol

from azr_mlx.types import PendingVerdict, Prompt, Rollout, Update, Verdict

Progress = Callable[[int, int, int], None]  # rollouts finished, of how many, tokens written
PhaseTimer = Callable[[str, int], AbstractContextManager[Progress | None]]  # a phase's name, its rollouts if known

# Proposals that may wait for their verdicts while later ones end: a verdict takes milliseconds, so it is there by then.
VERDICTS_UNDER_WAY = 4


def untimed(name: str, rows: int) -> AbstractContextManager[None]:
    """A phase that nobody watches."""
    return nullcontext()


class GenerationSession(Protocol):
    """Completions under way. Iterating yields (number of the prompt, sample, rollout) as they end; `submit` may add
    prompts meanwhile. They are numbered in the order in which they were submitted."""

    def submit(
        self, prompts: Sequence[Prompt], n: int | Sequence[int] = 1, *, max_tokens: int | Sequence[int]
    ) -> None: ...

    def __iter__(self) -> Iterator[tuple[int, int, Rollout]]: ...


class TrainablePolicy(Protocol):
    """What a step of training needs of a policy: to write, to learn, to count tokens."""

    def generate(
        self,
        *,
        seed: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> GenerationSession: ...

    def update(self, rollouts: Sequence[Rollout], advantages: Sequence[float]) -> Update: ...

    def encode(self, text: str) -> list[int]: ...


class Purpose(StrEnum):
    """What the rollouts of a request are for."""

    PROPOSAL = "proposal"  # a new task
    ATTEMPT = "attempt"  # how often a fresh task is solved, which is what its proposal earns
    SOLUTION = "solution"  # practice on a task drawn from memory
    ANSWER = "answer"  # to a row of the user's data


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """A prompt, what for, who judges its completions, how long they may be and how many.

    `judge` starts the executor on a rollout and returns at once. Attempts name the proposal whose task they try,
    answers the row that they answer.
    """

    prompt: Prompt
    purpose: Purpose
    judge: Callable[[Rollout], PendingVerdict]
    max_tokens: int
    count: int = 1
    proposal: tuple[int, int] | None = None
    row: int | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """A rollout with its verdict. `place` is the number of its request in the session, and of the rollout in that."""

    place: tuple[int, int]
    rollout: Rollout
    verdict: Verdict

    def refused(self, why: str) -> Judged:
        """The same rollout, found to be no new task."""
        return replace(self, verdict=Verdict(False, False, why))


@dataclass(frozen=True, slots=True)
class Group:
    """The judged rollouts of one request."""

    request: SampleRequest
    judged: tuple[Judged, ...]

    @property
    def solve_rate(self) -> float | None:
        """Share of right answers among those that could be judged; None when there are none."""
        counted = [one.verdict.correct for one in self.judged if not one.verdict.dropped]
        return fmean(counted) if counted else None


@dataclass
class _Open:
    """A request under way: its rollouts so far, by sample, each with the verdict that is being worked out."""

    request: SampleRequest
    samples: list[tuple[Rollout, PendingVerdict] | None]


@dataclass
class RolloutStream:
    """Writes what is submitted, and hands each rollout to its judge when it ends, while others are written."""

    session: GenerationSession
    _open: list[_Open] = field(default_factory=list)
    _unwritten_proposals: int = 0

    def __post_init__(self) -> None:
        self._ended = self._write()

    def submit(self, requests: Iterable[SampleRequest]) -> None:
        """Add requests, also while others are being written."""
        new = list(requests)
        if not new:
            return
        self._open += [_Open(request, [None] * request.count) for request in new]
        self._unwritten_proposals += sum(one.count for one in new if one.purpose is Purpose.PROPOSAL)
        self.session.submit(
            [one.prompt for one in new],
            [one.count for one in new],
            max_tokens=[one.max_tokens for one in new],
        )

    def proposals(self) -> Iterator[Judged]:
        """The proposals as they end, judged; what is submitted meanwhile is written with them.

        We block on a proposal's verdict after `VERDICTS_UNDER_WAY` more proposals have ended, not after a time. What is
        written together is then independent of the executor's speed, and a run can be repeated to the byte.
        """
        due: deque[tuple[tuple[int, int], Rollout, PendingVerdict]] = deque()
        while self._unwritten_proposals:
            place, rollout, verdict = next(self._ended)
            if self._open[place[0]].request.purpose is not Purpose.PROPOSAL:
                continue
            self._unwritten_proposals -= 1
            due.append((place, rollout, verdict))
            while len(due) > (VERDICTS_UNDER_WAY if self._unwritten_proposals else 0):
                place, rollout, verdict = due.popleft()
                yield Judged(place, rollout, verdict())

    def drain(self) -> None:
        """Write everything that was submitted to its end."""
        for _ in self._ended:
            pass

    def groups(self) -> list[Group]:
        """Every request with its rollouts, in the order of submission. Waits for the verdicts that are still out."""
        return [
            Group(
                one.request,
                tuple(
                    Judged((number, place), *sample_verdict(sample))
                    for place, sample in enumerate(one.samples)
                    if sample
                ),
            )
            for number, one in enumerate(self._open)
        ]

    @property
    def size(self) -> int:
        """Requests so far."""
        return len(self._open)

    def _write(self) -> Iterator[tuple[tuple[int, int], Rollout, PendingVerdict]]:
        for number, sample, rollout in self.session:
            verdict = self._open[number].request.judge(rollout)
            self._open[number].samples[sample] = (rollout, verdict)
            yield (number, sample), rollout, verdict


class Writer(Protocol):
    """Who writes and judges for an environment that needs rollouts before the first step."""

    def generate(self, phase: str, step: int) -> AbstractContextManager[RolloutStream]: ...

    def judge(self, phase: str, stream: RolloutStream) -> list[Group]: ...


def fits(encode: Callable[[str], list[int]], limit: int) -> Callable[[Prompt], bool]:
    """Whether a prompt has at most `limit` tokens."""
    # A character is at least a quarter of a token in every tokenizer we know of; most prompts need no counting.
    return lambda prompt: len(prompt.text) <= limit or len(encode(prompt.text)) <= limit


def sample_verdict(sample: tuple[Rollout, PendingVerdict]) -> tuple[Rollout, Verdict]:
    rollout, verdict = sample
    return rollout, verdict()
