"""THE LOOP: a policy proposes tasks, Python judges them, the policy solves them, and learns from both.

Absolute Zero (Zhao et al. 2025, algorithm 1). The collaborators come in as arguments: who generates and who judges
never hold each other, and anything with the same verbs can take their place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Protocol

from azr_mlx.advantages import Running, advantages
from azr_mlx.buffer import Buffer, seed_tasks
from azr_mlx.config import Config
from azr_mlx.proposer import Pending, Proposer
from azr_mlx.rewards import propose_reward, solve_reward
from azr_mlx.solver import Solver
from azr_mlx.types import Kind, Prompt, Role, Rollout, Scored, Step, Task, Update, Verdict

Judged = tuple[Rollout, Verdict]


class SpeakingPolicy(Protocol):
    """What the loop needs of a policy: to write, to learn, to count tokens."""

    def sample(
        self,
        prompts: Sequence[Prompt],
        n: int | Sequence[int] = 1,
        *,
        seed: Sequence[int],
        max_tokens: int | Sequence[int],
        temperature: float = 1.0,
        top_p: float = 1.0,
        stop: Sequence[str] = (),
        progress: Callable[[int, int, int], None] | None = None,
    ) -> Iterator[tuple[int, int, Rollout]]: ...

    def update(self, rollouts: Sequence[Rollout], advantages: Sequence[float]) -> Update: ...

    def encode(self, text: str) -> list[int]: ...


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

        The attempts that measure fresh tasks and the solutions of drawn ones are written in one phase: both are answers
        of the same policy, and the batch stays wide for longer.
        """
        batch, reward = self.config.batch, self.config.reward

        wishes = [prompt for kind in self.kinds for prompt in self.ask(kind, batch.proposals, step)]
        proposed = self.write("propose", wishes, 1, step, lambda rollout: self.proposer.judge(rollout, step))
        judged = [self.remember(rollout, verdict) for [(rollout, verdict)] in proposed]
        fresh = [verdict.task for _, verdict in judged if verdict.task is not None]

        drawn = [task for kind in self.kinds for task in self.draw(kind, step)]
        counts = [batch.attempts] * len(fresh) + [batch.solve_group] * len(drawn)
        answers = self.write("solve", map(self.solver.ask, fresh + drawn), counts, step, self.solver.judge)
        tried, solved = answers[: len(fresh)], answers[len(fresh) :]

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
        tasks = self.buffer.draw(kind, batch.solves, step, rng, batch.fresh_share)
        return [task for task in tasks if self.fits(self.solver.ask(task))]

    def fits(self, prompt: Prompt) -> bool:
        # A character is at least a quarter of a token in every tokenizer we know of; most prompts need no counting.
        limit = self.config.sampling.prompt_tokens
        return len(prompt.text) <= limit or len(self.policy.encode(prompt.text)) <= limit

    def write(
        self,
        name: str,
        prompts: Iterable[Prompt],
        n: int | Sequence[int],
        step: int,
        judge: Callable[[Rollout], Pending],
    ) -> list[list[Judged]]:
        """n judged rollouts of each prompt (n: of all, or one number each).

        A rollout is handed to its judge when it ends, while others are written.
        """
        prompts, sampling = list(prompts), self.config.sampling
        counts = [n] * len(prompts) if isinstance(n, int) else list(n)
        groups: list[list[tuple[Rollout, Pending] | None]] = [[None] * count for count in counts]
        rows = sum(counts)
        if not rows:
            return [[] for _ in prompts]
        limits = [sampling.propose_tokens if p.role is Role.PROPOSE else sampling.solve_tokens for p in prompts]
        with self.phase(name, rows) as progress:
            rollouts = self.policy.sample(
                prompts,
                counts,
                seed=(self.config.seed, step + 1, PHASES.index(name)),
                max_tokens=limits,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                stop=self.proposer.style.stop,
                progress=progress,
            )
            for i, j, rollout in rollouts:
                groups[i][j] = (rollout, judge(rollout))
        with self.phase("execute", rows):
            return [[(one[0], one[1]()) for one in group if one is not None] for group in groups]

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

    def score(self, judged: Judged, attempt: bool = False) -> Scored:
        rollout, verdict = judged
        return Scored(rollout, verdict, solve_reward(verdict, self.config.reward), attempt=attempt)

    # Before the first step --------------------------------------------------------------------------------------

    def seed(self, tell: Callable[[int, int], None] = lambda have, want: None) -> dict[str, int]:
        """Fill the buffer by proposing without learning (AZR section 3.3.1); returns what was refused and why.

        Deduction and abduction share what they find, as in the released code. Stops at `buffer.seed_size` tasks of
        each kind, or after `buffer.seed_rounds` rounds.
        """
        dials, reasons = self.config.buffer, dict[str, int]()
        for task in seed_tasks(self.kinds, self.config.tasks.induction_pairs):
            self.buffer.add(task)
        pairs = [kind for kind in self.kinds if kind is not Kind.INDUCTION]
        for round_ in range(dials.seed_rounds):
            short = [kind for kind in self.kinds if len(self.buffer.tasks(kind)) < dials.seed_size]
            if short and short != [Kind.INDUCTION]:
                short = [kind for kind in short if kind is not Kind.INDUCTION]
            tell(min(len(self.buffer.tasks(kind)) for kind in self.kinds), dials.seed_size)
            if not short:
                break
            count = max(self.config.batch.proposals, self.config.sampling.max_rows // (2 * len(short)))
            step = -1 - dials.seed_rounds + round_
            wishes = [prompt for kind in short for prompt in self.ask(kind, count, step, "seed")]
            for [(_, verdict)] in self.write("seed", wishes, 1, step, self.proposer.judge):
                if verdict.task is None:
                    reasons[verdict.why] = reasons.get(verdict.why, 0) + 1
                    continue
                for kind in pairs if verdict.task.kind is not Kind.INDUCTION else [Kind.INDUCTION]:
                    twin = replace(verdict.task, kind=kind, step=-1)
                    if len(self.buffer.tasks(kind)) < dials.seed_size:
                        why = self.buffer.refusal(twin)
                        if why is not None:
                            reasons[why] = reasons.get(why, 0) + 1
                        self.buffer.add(twin)
        return reasons


PHASES = ("seed", "propose", "solve", "probe")


def solve_rate(group: Sequence[Judged]) -> float | None:
    """Share of right answers among the attempts that could be judged; None when there are none."""
    counted = [verdict.correct for _, verdict in group if not verdict.dropped]
    return fmean(counted) if counted else None


def cut_off(one: Scored) -> bool:
    """A solver completion that ran into the token limit: it was not given the chance to be right."""
    return one.role is Role.SOLVE and one.rollout.completion.truncated
