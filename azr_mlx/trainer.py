"""One step of training, where the environment and the model meet: propose, judge, attempt, solve, reward, learn.

Absolute Zero (Zhao et al. 2025, algorithm 1). The collaborators come in as arguments: who generates and who judges
never hold each other, and anything with the same methods can take their place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace

from azr_mlx.config import Config
from azr_mlx.generation import (
    Group,
    Judged,
    Progress,
    Purpose,
    RolloutStream,
    SampleRequest,
    TrainablePolicy,
)
from azr_mlx.selfplay.advantages import Running, advantages
from azr_mlx.selfplay.archive import Archive
from azr_mlx.selfplay.kinds import KINDS, twins
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.rewards import propose_reward, solve_reward
from azr_mlx.selfplay.solver import Solver, once
from azr_mlx.selfplay.task_buffer import Buffer, seed_tasks
from azr_mlx.types import Kind, PendingVerdict, Prompt, Role, Rollout, Scored, Step, Task

PHASES = ("seed", "write", "probe")  # the position of a phase is part of the key of its draws
PhaseTimer = Callable[[str, int], AbstractContextManager[Progress | None]]


def untimed(name: str, rows: int) -> AbstractContextManager[None]:
    """A phase that nobody watches."""
    return nullcontext()


@dataclass
class Trainer:
    """Policy, proposer, solver and task memory of one run, and what happens between them in a step."""

    config: Config
    policy: TrainablePolicy
    proposer: Proposer
    solver: Solver
    buffer: Buffer
    running: Running = field(default_factory=Running)
    archive: Archive | None = None
    phase: PhaseTimer = untimed

    def __post_init__(self) -> None:
        self.kinds = [Kind(name) for name in self.config.tasks.kinds]

    # A step -----------------------------------------------------------------------------------------------------

    def train_step(self, step: int) -> Step:
        """Propose, judge, remember, attempt, solve, reward, learn (AZR algorithm 1).

        Everything is written in one generation session: a task that Python has confirmed is attempted while others
        are proposed (`sampling.overlap`), or when all are judged.
        """
        proposals: list[Judged] = []
        with self.generate("write", step, self.proposal_requests(step)) as stream:
            waiting: list[SampleRequest] = []
            for proposal in stream.proposals():
                proposals.append(self.remember(proposal))
                waiting += self.attempts_at(proposals[-1])
                if self.config.sampling.overlap:
                    stream.submit(waiting)
                    waiting = []
            stream.submit(waiting)
            stream.submit(self.solution_requests(step))
        groups = self.judge("execute", stream)
        attempts = [group for group in groups if group.request.purpose is Purpose.ATTEMPT]
        solutions = [group for group in groups if group.request.purpose is Purpose.SOLUTION]
        self.note_solve_rates([*attempts, *solutions])
        crowding = self.count_programs(proposals)
        return self.learn(
            step,
            proposals=self.score_proposals(proposals, attempts, crowding),
            attempts=self.score_solutions(attempts),
            solutions=self.score_solutions(solutions),
            dropped=sum(
                one.verdict.dropped
                for one in (*proposals, *(one for group in (*attempts, *solutions) for one in group.judged))
            ),
        )

    def learn(
        self, step: int, proposals: list[Scored], attempts: list[Scored], solutions: list[Scored], dropped: int
    ) -> Step:
        """Advantages over what is trained on, and one update of the policy."""
        batch = self.config.batch
        scored = [*proposals] * batch.train_proposer + [*attempts] * batch.train_attempts + solutions
        trained = [one for one in scored if not (self.config.loss.mask_truncated and cut_off(one))]
        weights = advantages(trained, self.config.advantage, self.running)
        with self.phase("update", len(trained)):
            update = self.policy.update([one.rollout for one in trained], weights)
        self.solver.forget()
        return Step(
            step, proposals, attempts, solutions, trained, weights, update, dropped, masked=len(scored) - len(trained),
            cells=None if self.archive is None else len(self.archive),
        )  # fmt: skip

    # What is written --------------------------------------------------------------------------------------------

    def proposal_requests(self, step: int) -> list[SampleRequest]:
        group = self.config.batch.propose_group
        count = self.config.batch.proposals // group
        return [
            SampleRequest(prompt, Purpose.PROPOSAL, group)
            for kind in self.kinds
            for prompt in self.proposal_prompts(kind, count, step, "propose")
        ]

    def attempts_at(self, proposal: Judged) -> list[SampleRequest]:
        """The request that measures how often a proposed task is solved; none for what is no task."""
        task = proposal.verdict.task
        if task is None:
            return []
        prompt = self.solver.ask(task)
        return [SampleRequest(prompt, Purpose.ATTEMPT, self.config.batch.attempts, proposal.place)]

    def solution_requests(self, step: int) -> list[SampleRequest]:
        """Practice on old and new tasks, drawn from memory when the proposals of the step are in it."""
        count = self.config.batch.solve_group
        return [
            SampleRequest(self.solver.ask(task), Purpose.SOLUTION, count)
            for kind in self.kinds
            for task in self.drawn_tasks(kind, step)
        ]

    def proposal_prompts(self, kind: Kind, count: int, step: int, phase: str) -> list[Prompt]:
        """Prompts for proposals; one that is too long is drawn again, a few times, and then left out."""
        rng = random.Random(f"{self.config.seed}/{step}/{phase}/{kind}")
        prompts: list[Prompt] = []
        for _ in range(4 * count):
            if len(prompts) < count:
                prompts += [p for p in self.proposer.ask(kind, 1, self.buffer, rng) if self.fits(p)]
        return prompts

    def drawn_tasks(self, kind: Kind, step: int) -> list[Task]:
        """Old and new tasks to solve, whose prompts fit."""
        rng = random.Random(f"{self.config.seed}/{step}/solve/{kind}")
        batch = self.config.batch
        tasks = self.buffer.draw(kind, batch.solves, step, rng, batch.fresh_share, batch.draw == "learnable")
        return [task for task in tasks if self.fits(self.solver.ask(task))]

    def fits(self, prompt: Prompt) -> bool:
        # A character is at least a quarter of a token in every tokenizer we know of; most prompts need no counting.
        limit = self.config.sampling.prompt_tokens
        return len(prompt.text) <= limit or len(self.policy.encode(prompt.text)) <= limit

    @contextmanager
    def generate(self, phase: str, step: int, requests: Sequence[SampleRequest]) -> Iterator[RolloutStream]:
        """A generation session that begins with `requests`; it is written to its end when the block is left."""
        sampling = self.config.sampling

        def judge(rollout: Rollout) -> PendingVerdict:
            if rollout.prompt.role is Role.PROPOSE:
                return once(self.proposer.judge(rollout, step))
            return self.solver.judge(rollout)

        def token_limit(prompt: Prompt) -> int:
            return sampling.propose_tokens if prompt.role is Role.PROPOSE else sampling.solve_tokens

        with self.phase(phase, sum(request.count for request in requests)) as progress:
            session = self.policy.generate(
                seed=(self.config.seed, step + 1, PHASES.index(phase)), temperature=sampling.temperature,
                top_p=sampling.top_p, stop=self.proposer.style.stop, progress=progress,
            )  # fmt: skip
            stream = RolloutStream(session, judge, token_limit)
            stream.submit(requests)
            yield stream
            stream.drain()

    def judge(self, phase: str, stream: RolloutStream) -> list[Group]:
        """Everything that was written, judged."""
        with self.phase(phase, stream.size):
            return stream.groups()

    # What Python says of it -------------------------------------------------------------------------------------

    def remember(self, proposal: Judged) -> Judged:
        """A valid task joins the buffer; one that is already there, or held out, is no new task."""
        task = proposal.verdict.task
        if task is None:
            return proposal
        why = self.buffer.refusal(task)
        if why is not None:
            return proposal.refused(why)
        if not self.fits(self.solver.ask(task)):
            return proposal.refused("prompt too long")
        self.buffer.add(task)
        return proposal

    def count_programs(self, proposals: Sequence[Judged]) -> dict[tuple[int, int], float]:
        """How crowded the archive was with programs like those of the new tasks, by place; then they are in it.

        Of the kinds whose proposers choose the program. Empty without an archive.
        """
        new = {one.place: task for one in proposals if (task := chosen_program(one.verdict.task)) is not None}
        if self.archive is None:
            return {}
        with self.phase("execute", len(new)):
            return dict(zip(new, self.archive.add([*new.values()]), strict=True))

    def note_solve_rates(self, groups: Iterable[Group]) -> None:
        """The buffer learns how often each task was solved."""
        for group in groups:
            rate, task = group.solve_rate, group.request.prompt.task
            if rate is not None and task is not None:
                self.buffer.note(task, rate)

    def score_proposals(
        self, proposals: Sequence[Judged], attempts: Sequence[Group], crowding: Mapping[tuple[int, int], float]
    ) -> list[Scored]:
        """A proposal earns what the attempts at its task say of it, less what the archive has of its sort.

        What could not be judged earns nothing at all.
        """
        rates = {group.request.proposal: group.solve_rate for group in attempts}
        scored = []
        for one in proposals:
            rate = rates.get(one.place)
            if not one.verdict.dropped and (rate is not None or not one.verdict.valid):
                crowded = crowding.get(one.place)
                reward = propose_reward(one.verdict, rate, self.config.reward, crowded or 0.0)
                scored.append(Scored(one.rollout, one.verdict, reward, rate, crowding=crowded))
        return scored

    def score_solutions(self, groups: Iterable[Group]) -> list[Scored]:
        return [
            Scored(
                one.rollout, one.verdict, solve_reward(one.verdict, self.config.reward),
                attempt=group.request.purpose is Purpose.ATTEMPT,
            )
            for group in groups
            for one in group.judged
            if not one.verdict.dropped
        ]  # fmt: skip

    # Before the first step --------------------------------------------------------------------------------------

    def seed(self) -> dict[str, int]:
        """Fill the buffer by proposing without learning (AZR section 3.3.1); returns what was refused and why.

        Kinds that hide a part of one triplet share what they find, as in the released code; those whose proposers are
        given a program wait until the others have found enough. Stops at `buffer.seed_size` tasks of each kind, or
        after `buffer.seed_rounds` rounds.
        """
        settings, reasons = self.config.buffer, dict[str, int]()
        for first in seed_tasks(self.kinds, self.config.tasks.induction_pairs):
            self.buffer.add(first)
        for round_ in range(settings.seed_rounds):
            short = [kind for kind in self.kinds if len(self.buffer.tasks(kind)) < settings.seed_size]
            short = [kind for kind in short if KINDS[kind].chooses_program] or short
            if not short:
                break
            for proposal in self.seed_proposals(short, step=-1 - settings.seed_rounds + round_):
                task = proposal.verdict.task
                if task is None:
                    reason = "cut off" if proposal.rollout.completion.truncated else proposal.verdict.why
                    reasons[reason] = reasons.get(reason, 0) + 1
                    continue
                for kind in twins(task.kind, self.kinds):
                    twin = replace(task, kind=kind, step=-1)
                    if len(self.buffer.tasks(kind)) < settings.seed_size:
                        why = self.buffer.refusal(twin)
                        if why is None:
                            self.buffer.add(twin)
                        else:
                            reasons[why] = reasons.get(why, 0) + 1
        if self.archive is not None:
            self.archive.add([task for kind in self.kinds for task in self.buffer.tasks(kind) if chosen_program(task)])
        return reasons

    def seed_proposals(self, kinds: Sequence[Kind], step: int) -> list[Judged]:
        """A round of proposals of these kinds, as many as are decoded together, in the order of their prompts."""
        count = max(self.config.batch.proposals, self.config.sampling.max_rows // (2 * len(kinds)))
        requests = [
            SampleRequest(prompt, Purpose.PROPOSAL)
            for kind in kinds
            for prompt in self.proposal_prompts(kind, count, step, "seed")
        ]
        with self.generate("seed", step, requests) as stream:
            for _ in stream.proposals():
                pass
        return [one for group in self.judge("execute", stream) for one in group.judged]


def chosen_program(task: Task | None) -> Task | None:
    """The task, if its program is its proposer's own and was not lent."""
    return task if task is not None and KINDS[task.kind].chooses_program else None


def cut_off(one: Scored) -> bool:
    """A solver completion that ran into the token limit: it was not given the chance to be right."""
    return one.role is Role.SOLVE and one.rollout.completion.truncated
