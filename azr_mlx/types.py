"""The words of azr_mlx: every noun that travels between modules, frozen.

    Task -> Prompt -> Completion -> Rollout -> Verdict -> Scored -> advantages -> Update

Letters used in shapes everywhere: P prompts, K completions of each, B = P*K rows, T tokens, V vocabulary.
This module imports the standard library only, so that any module may import it.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


def _further_kinds(known: Iterable[str]) -> dict[str, str]:
    """Member names and values for the other modules of `selfplay/kinds`, sorted. None of them is imported."""
    folder = Path(__file__).parent / "selfplay" / "kinds"
    names = sorted(module.name for module in pkgutil.iter_modules([str(folder)]))
    return {name.upper(): name for name in names if name.upper() not in known and not name.startswith("_")}


GB = 10**9  # a gigabyte of memory or disk in bytes, decimal as they are sold


class Role(StrEnum):
    """Which of its two parts the policy plays."""

    PROPOSE = "propose"
    SOLVE = "solve"


class Kind(StrEnum):
    """The names of the task kinds: one for each module of `azr_mlx/selfplay/kinds`, where everything else about it is.

    Those of AZR (section 3.2) come first and are spelled out here, for their order is that of metrics and buffers and a
    type checker knows them. Every other module adds a member: kinds/repair.py is Kind("repair").
    """

    DEDUCTION = "deduction"  # the output is hidden
    ABDUCTION = "abduction"  # the input is hidden
    INDUCTION = "induction"  # the program is hidden

    vars().update(_further_kinds(tuple(vars())))


class Stop(StrEnum):
    """Why a completion ended."""

    EOS = "eos"  # the model wrote its end token (kept as the last token)
    TEXT = "text"  # a stop text appeared (kept in the tokens and in the text)
    LENGTH = "length"  # the token limit was reached: the completion is truncated


@dataclass(frozen=True, slots=True)
class Case:
    """One run of a program: the text of its arguments and the text (`repr`) of what it returned."""

    input: str
    output: str


@dataclass(frozen=True, slots=True)
class Task:
    """A reasoning task that Python has confirmed: `program` maps each case's input to its output.

    How many cases it has and what else must hold is its kind's to say (`azr_mlx.selfplay.kinds`). `step` is the step
    that proposed it, -1 for a seed.
    """

    kind: Kind
    program: str
    cases: tuple[Case, ...]
    message: str = ""
    step: int = -1

    @property
    def shown(self) -> tuple[Case, ...]:
        """The first N // 2 of N cases (AZR section 3.2)."""
        return self.cases[: len(self.cases) // 2]

    @property
    def hidden(self) -> tuple[Case, ...]:
        """The other cases."""
        return self.cases[len(self.cases) // 2 :]


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the policy reads. Rollouts of equal prompts form one group.

    `text` ends with `opening`, the part of the reply that is written for the model (for example
    "<think>" or "```output\\n"); parsing sees `opening + completion.text`.
    """

    role: Role
    kind: Kind | None  # None: a prompt of the user's own, whose role is to solve
    text: str
    opening: str = ""
    task: Task | None = None  # solve: the task. propose: the task whose program it is about, if the prompt gives one.
    references: tuple[Task, ...] = ()  # propose: the K examples shown, if the proposer writes a program of its own
    stop: tuple[str, ...] = ()  # texts that end its completions, kept in them

    def __post_init__(self) -> None:
        if not self.text.endswith(self.opening):
            raise ValueError("a prompt's text must end with its opening")


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy wrote: T sampled token ids, their log-probabilities (nats, f32), text and stop reason.

    A sampled end token is the last of `tokens`; `text` never contains it.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    stop: Stop

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.logprobs):
            raise ValueError(f"{len(self.tokens)} tokens but {len(self.logprobs)} logprobs")

    @property
    def truncated(self) -> bool:
        return self.stop is Stop.LENGTH


@dataclass(frozen=True, slots=True)
class Rollout:
    """One prompt and one completion of it, with the prompt's token ids as the sampler saw them."""

    prompt: Prompt
    prompt_tokens: tuple[int, ...]
    completion: Completion

    @property
    def reply(self) -> str:
        """The whole reply as the parser sees it."""
        return self.prompt.opening + self.completion.text


@dataclass(frozen=True, slots=True)
class Verdict:
    """What Python says of a rollout.

    Proposals: `valid` says that the executor confirmed a task, which is `task`; `correct` equals `valid`.
    Solutions: `valid` says that the reply had the required form, `correct` that it was right.
    `why` is a short fixed reason ("ok", "syntax error", ...), `detail` may quote the program.
    `dropped` marks a rollout that the harness failed to judge: it gets no reward at all.
    Answers to a row of the user's: `rewards` is what each ready-made reward function says, in their order; a function
    of the user's is asked later, about all answers of a step at once.
    """

    valid: bool
    correct: bool
    why: str
    task: Task | None = None
    detail: str = ""
    dropped: bool = False
    rewards: tuple[float | None, ...] = ()


PendingVerdict = Callable[[], Verdict]  # a verdict that may still be under way: calling it waits


@dataclass(frozen=True, slots=True)
class Scored:
    """A judged rollout with its reward.

    Proposals also carry the solve rate their task was measured at, and how crowded the archive was with programs like
    theirs (None without an archive).
    """

    rollout: Rollout
    verdict: Verdict
    reward: float
    solve_rate: float | None = None
    attempt: bool = False  # one of the n solver rollouts that measured a fresh task
    crowding: float | None = None

    @property
    def role(self) -> Role:
        return self.rollout.prompt.role

    @property
    def kind(self) -> Kind | None:
        return self.rollout.prompt.kind


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """An answer to a row of the user's data, with what each reward function gave for it (None: it does not apply)."""

    rollout: Rollout
    row: int  # the row's number in its file, from 1
    rewards: Mapping[str, float | None]  # by the name of the function
    reward: float  # their weighted sum; nan when every one is None
    why: str = "ok"  # why there is no reward, in a few fixed words


@dataclass(frozen=True, slots=True)
class Update:
    """What one policy-gradient step did. Logarithms are natural, means are over trained tokens."""

    loss: float
    grad_norm: float  # before clipping
    learning_rate: float
    entropy: float  # of the next-token distribution, nats
    kl: float  # policy to reference (adapters off), k3 estimate, nats; nan when not measured
    delta_logp_mean: float  # |trainer logprob - sampler logprob|
    delta_logp_max: float
    ratio_outside: float  # share of tokens whose raw ratio leaves [0.8, 1.25]
    clipped: float  # share of tokens whose ratio was clipped
    rows: int  # rollouts that entered the backward pass
    tokens: int  # completion tokens that entered the backward pass
    seconds: float = 0.0
    peak_memory: int = 0  # bytes
    # Tokens and operations of the step's generation and of the update, by their names in timings.jsonl.
    work: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Experience:
    """What one environment makes of a step's rollouts: what is learned from, and all of it for whoever reports."""

    trained: Sequence[Scored | ScoredRow]  # what is learned from, and
    advantages: Sequence[float]  # the advantage of each
    proposals: Sequence[Scored] = ()
    attempts: Sequence[Scored] = ()
    solutions: Sequence[Scored] = ()
    rows: Sequence[ScoredRow] = ()
    dropped: int = 0  # rollouts that could not be judged
    masked: int = 0  # truncated rollouts that are left out of the loss
    metrics: Mapping[str, float] = field(default_factory=dict)  # what only the environment can say, by name


@dataclass(frozen=True, slots=True)
class Step:
    """What happened in one step of training, for whoever reports it."""

    number: int
    proposals: list[Scored]
    attempts: list[Scored]
    solutions: list[Scored]
    trained: list[Scored | ScoredRow]  # those that were learned from, and
    advantages: list[float]  # the advantage of each
    update: Update
    dropped: int  # rollouts that the harness could not judge
    masked: int  # truncated rollouts that were left out of the loss
    rows: list[ScoredRow] = field(default_factory=list)
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def joined(cls, number: int, parts: Sequence[Experience], update: Update) -> Step:
        """The step that these parts, in their order, and one update of the policy were."""
        return cls(
            number,
            proposals=[one for part in parts for one in part.proposals],
            attempts=[one for part in parts for one in part.attempts],
            solutions=[one for part in parts for one in part.solutions],
            trained=[one for part in parts for one in part.trained],
            advantages=[value for part in parts for value in part.advantages],
            update=update,
            dropped=sum(part.dropped for part in parts),
            masked=sum(part.masked for part in parts),
            rows=[one for part in parts for one in part.rows],
            metrics={name: value for part in parts for name, value in part.metrics.items()},
        )
