"""THE LOOP: a policy proposes tasks, Python judges them, the policy solves them, and learns from both.

Absolute Zero (Zhao et al. 2025, algorithm 1). The collaborators come in as arguments: who generates and who judges
never hold each other, and anything with the same verbs can take their place.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Protocol

from azr_mlx.config import Config
from azr_mlx.selfplay.advantages import Running, advantages
from azr_mlx.selfplay.kinds import KINDS, twins
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.rewards import propose_reward, solve_reward
from azr_mlx.selfplay.solver import Solver, once
from azr_mlx.selfplay.task_buffer import Buffer, seed_tasks
from azr_mlx.types import Kind, Pending, Prompt, Role, Rollout, Scored, Step, Task, Update, Verdict

Judged = tuple[Rollout, Verdict]


class Conversation(Protocol):
    """Completions under way. Iterating yields (number of the prompt, sample, rollout) as they end; `ask` may add
    prompts meanwhile. They are numbered in the order in which they were asked."""

    def ask(
        self, prompts: Sequence[Prompt], n: int | Sequence[int] = 1, *, max_tokens: int | Sequence[int]
    ) -> None: ...

    def __iter__(self) -> Iterator[tuple[int, int, Rollout]]: ...


class SpeakingPolicy(Protocol):
    """What the loop needs of a policy: to write, to learn, to count tokens."""

    def converse(
        self,
        *,
        seed: Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        progress: Callable[[int, int, int], None] | None = None,
    ) -> Conversation: ...

    def update(self, rollouts: Sequence[Rollout], advantages: Sequence[float]) -> Update: ...

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """A prompt and how many completions of it; `attempt` marks those that measure a fresh task."""

    prompt: Prompt
    count: int = 1
    attempt: bool = False


Progress = Callable[[int, int, int], None]  # rollouts finished, of how many, tokens written
Phase = Callable[[str, int], AbstractContextManager[Progress | None]]


def silent(name: str, rows: int) -> AbstractContextManager[None]:
    """A phase that nobody watches."""
    return nullcontext()


@dataclass
class Game:
    """The players, the rules and the memory of one run."""

    config: Config
    policy: SpeakingPolicy
    proposer: Proposer
    solver: Solver
    buffer: Buffer
    running: Running = field(default_factory=Running)
    phase: Phase = silent

    def __post_init__(self) -> None:
        self.kinds = [Kind(name) for name in self.config.tasks.kinds]

    # The page ---------------------------------------------------------------------------------------------------

    def play(self, step: int) -> Step:
        """One step of self-play (AZR algorithm 1): propose, judge, remember, solve, reward, learn.

        All is written in one conversation: a task that Python has confirmed is attempted while others are proposed.
        """
        batch, reward = self.config.batch, self.config.reward
        judged: list[Judged] = []

        def measure(rollout: Rollout, verdict: Verdict) -> list[Wish]:
            """A proposal is judged: a real task joins the buffer, and attempts at it join the conversation."""
            judged.append(self.remember(rollout, verdict))
            task = judged[-1][1].task
            return [Wish(self.solver.ask(task), batch.attempts, attempt=True)] if task is not None else []

        def solve() -> list[Wish]:
            """All are judged: tasks old and new are drawn and solved."""
            drawn = [task for kind in self.kinds for task in self.draw(kind, step)]
            return [Wish(self.solver.ask(task), batch.solve_group) for task in drawn]

        wishes = [Wish(prompt) for kind in self.kinds for prompt in self.ask(kind, batch.proposals, step)]
        written = self.write("write", wishes, step, measure, solve)
        tried = [group for wish, group in written if wish.attempt]
        solved = [group for wish, group in written[len(wishes) :] if not wish.attempt]
        self.note([*tried, *solved])

        rates = iter([solve_rate(group) for group in tried])
        proposals = []
        for rollout, verdict in judged:
            rate = next(rates) if verdict.task is not None else None
            if not verdict.dropped and (rate is not None or not verdict.valid):
                proposals.append(Scored(rollout, verdict, propose_reward(verdict, rate, reward), rate))
        attempts = [self.score(one, attempt=True) for group in tried for one in group if not one[1].dropped]
        solutions = [self.score(one) for group in solved for one in group if not one[1].dropped]

        trained = [*proposals] * batch.train_proposer + [*attempts] * batch.train_attempts + solutions
        everything = len(trained)
        trained = [one for one in trained if not (self.config.loss.mask_truncated and cut_off(one))]
        worth = advantages(trained, self.config.advantage, self.running)
        with self.phase("update", len(trained)):
            update = self.policy.update([one.rollout for one in trained], worth)
        self.solver.forget()
        dropped = sum(verdict.dropped for group in (judged, *tried, *solved) for _, verdict in group)
        return Step(step, proposals, attempts, solutions, trained, worth, update, dropped, everything - len(trained))

    # The verbs --------------------------------------------------------------------------------------------------

    def ask(self, kind: Kind, count: int, step: int, phase: str = "propose") -> list[Prompt]:
        """Prompts for proposals; one that is too long is drawn again, a few times, and then left out."""
        rng = random.Random(f"{self.config.seed}/{step}/{phase}/{kind}")
        prompts: list[Prompt] = []
        for _ in range(4 * count):
            if len(prompts) < count:
                prompts += [p for p in self.proposer.ask(kind, 1, self.buffer, rng) if self.fits(p)]
        return prompts

    def draw(self, kind: Kind, step: int) -> list[Task]:
        """Old and new tasks to solve, whose prompts fit."""
        rng = random.Random(f"{self.config.seed}/{step}/solve/{kind}")
        batch = self.config.batch
        tasks = self.buffer.draw(kind, batch.solves, step, rng, batch.fresh_share, batch.draw == "learnable")
        return [task for task in tasks if self.fits(self.solver.ask(task))]

    def fits(self, prompt: Prompt) -> bool:
        # A character is at least a quarter of a token in every tokenizer we know of; most prompts need no counting.
        limit = self.config.sampling.prompt_tokens
        return len(prompt.text) <= limit or len(self.policy.encode(prompt.text)) <= limit

    def write(
        self,
        name: str,
        wishes: Sequence[Wish],
        step: int,
        follow: Callable[[Rollout, Verdict], Iterable[Wish]] = lambda rollout, verdict: (),
        last: Callable[[], Iterable[Wish]] = tuple,
    ) -> list[tuple[Wish, list[Judged]]]:
        """Every wish with its judged rollouts, in the order in which they were asked.

        A rollout is handed to its judge when it ends, while others are written. `follow` is told each judged proposal
        and may wish for more, which joins the conversation; `last` may when the last proposal is judged.
        """
        sampling, asked = self.config.sampling, list[Wish]()
        groups: list[list[tuple[Rollout, Pending] | None]] = []
        due: deque[tuple[Rollout, Pending]] = deque()  # proposals whose verdict nobody has waited for
        held: list[Wish] = []  # wishes that wait for the last proposal, where nothing overlaps
        proposals = len(wishes)  # still being written

        with self.phase(name, sum(wish.count for wish in wishes)) as progress:
            talk = self.policy.converse(
                seed=(self.config.seed, step + 1, PHASES.index(name)), temperature=sampling.temperature,
                top_p=sampling.top_p, stop=self.proposer.style.stop, progress=progress,
            )  # fmt: skip

            def ask(more: Iterable[Wish]) -> None:
                new = list(more)
                asked.extend(new)
                groups.extend([None] * wish.count for wish in new)
                limits = [
                    sampling.propose_tokens if wish.prompt.role is Role.PROPOSE else sampling.solve_tokens
                    for wish in new
                ]
                talk.ask([wish.prompt for wish in new], [wish.count for wish in new], max_tokens=limits)

            ask(wishes or last())
            for i, j, rollout in talk:
                proposal = rollout.prompt.role is Role.PROPOSE
                judge = once(self.proposer.judge(rollout, step)) if proposal else self.solver.judge(rollout)
                groups[i][j] = (rollout, judge)
                if not proposal:
                    continue
                due.append((rollout, judge))
                proposals -= 1
                # Waited for in an order and at moments that no clock decides, so that a run can be repeated.
                while len(due) > (VERDICTS_UNDER_WAY if proposals else 0):
                    one, pending = due.popleft()
                    held.extend(follow(one, pending()))
                    if sampling.overlap or not proposals:
                        ask(held)
                        held.clear()
                if not proposals:
                    ask(last())
        with self.phase("execute", len(asked)):
            judged = [[(one[0], one[1]()) for one in group if one is not None] for group in groups]
        return list(zip(asked, judged, strict=True))

    def remember(self, rollout: Rollout, verdict: Verdict) -> Judged:
        """A valid task joins the buffer; one that is already there, or held out, is no new task."""
        if verdict.task is None:
            return rollout, verdict
        why = self.buffer.refusal(verdict.task)
        if why is not None:
            return rollout, Verdict(False, False, why)
        if not self.fits(self.solver.ask(verdict.task)):
            return rollout, Verdict(False, False, "prompt too long")
        self.buffer.add(verdict.task)
        return rollout, verdict

    def note(self, groups: Iterable[Sequence[Judged]]) -> None:
        """The buffer learns how often each task was solved."""
        for group in groups:
            rate, task = solve_rate(group), group[0][0].prompt.task
            if rate is not None and task is not None:
                self.buffer.note(task, rate)

    def score(self, judged: Judged, attempt: bool = False) -> Scored:
        rollout, verdict = judged
        return Scored(rollout, verdict, solve_reward(verdict, self.config.reward), attempt=attempt)

    # Before the first step --------------------------------------------------------------------------------------

    def seed(self, tell: Callable[[int, int], None] = lambda have, want: None) -> dict[str, int]:
        """Fill the buffer by proposing without learning (AZR section 3.3.1); returns what was refused and why.

        Kinds that hide a part of one triplet share what they find, as in the released code; those whose proposers are
        given a program wait until the others have found enough. Stops at `buffer.seed_size` tasks of
        each kind, or after `buffer.seed_rounds` rounds.
        """
        dials, reasons = self.config.buffer, dict[str, int]()
        for task in seed_tasks(self.kinds, self.config.tasks.induction_pairs):
            self.buffer.add(task)
        for round_ in range(dials.seed_rounds):
            short = [kind for kind in self.kinds if len(self.buffer.tasks(kind)) < dials.seed_size]
            short = [kind for kind in short if KINDS[kind].chooses_program] or short
            tell(min(len(self.buffer.tasks(kind)) for kind in self.kinds), dials.seed_size)
            if not short:
                break
            count = max(self.config.batch.proposals, self.config.sampling.max_rows // (2 * len(short)))
            step = -1 - dials.seed_rounds + round_
            wishes = [Wish(prompt) for kind in short for prompt in self.ask(kind, count, step, "seed")]
            for _, [(_, verdict)] in self.write("seed", wishes, step):
                if verdict.task is None:
                    reasons[verdict.why] = reasons.get(verdict.why, 0) + 1
                    continue
                for kind in twins(verdict.task.kind, self.kinds):
                    twin = replace(verdict.task, kind=kind, step=-1)
                    if len(self.buffer.tasks(kind)) < dials.seed_size:
                        why = self.buffer.refusal(twin)
                        if why is None:
                            self.buffer.add(twin)
                        else:
                            reasons[why] = reasons.get(why, 0) + 1
        return reasons


PHASES = ("seed", "write", "probe")  # their places key the draws

# Proposals that may wait for their verdicts while later ones end: a verdict takes milliseconds, so it is there by then.
VERDICTS_UNDER_WAY = 4


def solve_rate(group: Sequence[Judged]) -> float | None:
    """Share of right answers among the attempts that could be judged; None when there are none."""
    counted = [verdict.correct for _, verdict in group if not verdict.dropped]
    return fmean(counted) if counted else None


def cut_off(one: Scored) -> bool:
    """A solver completion that ran into the token limit: it was not given the chance to be right."""
    return one.role is Role.SOLVE and one.rollout.completion.truncated
