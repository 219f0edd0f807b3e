"""Self-play: the policy proposes tasks, Python judges them, the policy solves them (AZR algorithm 1).

The environment side of a step, as one page: propose, judge, remember, attempt, solve, reward.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from azr_mlx.config import Config
from azr_mlx.errors import AzrError
from azr_mlx.generation import Group, Judged, PhaseTimer, Purpose, RolloutStream, SampleRequest, Writer, untimed
from azr_mlx.selfplay.advantages import Running, advantages
from azr_mlx.selfplay.archive import Archive, Cell, Signature
from azr_mlx.selfplay.kinds import KINDS, twins
from azr_mlx.selfplay.mutation import mutate
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.rewards import propose_reward, solve_reward
from azr_mlx.selfplay.solver import Solver, once
from azr_mlx.selfplay.task_buffer import FRONTIER, Buffer, Snapshot, seed_tasks
from azr_mlx.selfplay.task_buffer import key as task_key
from azr_mlx.selfplay.task_kind import Draft
from azr_mlx.types import Experience, Kind, PendingVerdict, Prompt, Role, Rollout, Scored, Task

BUFFER_FILE, ARCHIVE_FILE = "buffer.jsonl", "archive.jsonl"
DONORS = 4  # programs that an edit may take an expression from


@dataclass(frozen=True, slots=True)
class Remembered:
    """What self-play knows at one moment, for `restore`."""

    buffer: Snapshot
    running: dict[str, tuple[float, float]]
    cells: dict[Signature, Cell]


@dataclass
class SelfPlay:
    """Proposer, solver and task memory of one run, and what happens between them in a step.

    `fits` says whether a prompt is short enough.
    """

    config: Config
    proposer: Proposer
    solver: Solver
    buffer: Buffer
    fits: Callable[[Prompt], bool]
    running: Running = field(default_factory=Running)
    archive: Archive | None = None
    phase: PhaseTimer = untimed
    proposals: list[Judged] = field(default_factory=list)  # of the step under way, and
    edited: list[Task] = field(default_factory=list)  # the new tasks that edits of programs made in it

    def __post_init__(self) -> None:
        self.kinds = [Kind(name) for name in self.config.tasks.kinds]

    @property
    def stop(self) -> tuple[str, ...]:
        return ()  # each prompt has its own

    def tasks(self) -> Mapping[Kind, list[Task]]:
        return {kind: self.buffer.tasks(kind) for kind in self.kinds}

    # A step -----------------------------------------------------------------------------------------------------

    def ask(self, stream: RolloutStream, step: int) -> None:
        """Propose, judge, remember, attempt, solve.

        Everything is written in one generation session: a task that Python has confirmed is attempted while others
        are proposed (`sampling.overlap`), or when all are judged.
        """
        self.proposals = []
        edited = self.mutations(step)
        stream.submit(self.proposal_requests(step))
        waiting: list[SampleRequest] = []
        for proposal in stream.proposals():
            self.proposals.append(self.remember(proposal))
            waiting += self.attempts_at(self.proposals[-1])
            if self.config.sampling.overlap:
                stream.submit(waiting)
                waiting = []
        stream.submit(waiting)
        stream.submit(self.solutions_of(edited))
        stream.submit(self.solution_requests(step))

    def score(self, step: int, groups: Sequence[Group]) -> Experience:
        """Reward, and advantages over what is trained on."""
        attempts = [group for group in groups if group.request.purpose is Purpose.ATTEMPT]
        solutions = [group for group in groups if group.request.purpose is Purpose.SOLUTION]
        self.note_solve_rates([*attempts, *solutions])
        crowding = self.count_programs(self.proposals)
        proposed = self.score_proposals(self.proposals, attempts, crowding)
        attempted, solved = self.score_solutions(attempts), self.score_solutions(solutions)
        batch = self.config.batch
        scored = [*proposed] * batch.train_proposer + [*attempted] * batch.train_attempts + solved
        trained = [one for one in scored if not (self.config.loss.mask_truncated and cut_off(one))]
        judged = [one for group in (*attempts, *solutions) for one in group.judged]
        self.solver.forget()
        return Experience(
            trained,
            advantages(trained, self.config.advantage, self.running),
            proposals=proposed,
            attempts=attempted,
            solutions=solved,
            dropped=sum(one.verdict.dropped for one in (*self.proposals, *judged)),
            masked=len(scored) - len(trained),
            metrics=self.metrics(solutions),
        )

    def metrics(self, solutions: Sequence[Group]) -> dict[str, float]:
        """What the rollouts do not say: filled cells of the archive, and what became of edited programs."""
        found: dict[str, float] = {} if self.archive is None else {"cells/filled": len(self.archive)}
        if self.config.batch.mutations:
            edited = {task_key(task) for task in self.edited}
            tried = [one.solve_rate for one in solutions if (t := one.request.prompt.task) and task_key(t) in edited]
            rates = [rate for rate in tried if rate is not None]
            found["mutations/tasks"] = len(self.edited)
            if rates:
                found["mutations/learnable"] = fmean(0.0 < rate < 1.0 for rate in rates)
        return found

    # What is written --------------------------------------------------------------------------------------------

    def proposal(self, prompt: Prompt, step: int, count: int = 1, tags: bool = True) -> SampleRequest:
        """The request for `count` proposals; the tasks that they may be carry `step`. `tags`: see `Proposer.judge`."""

        def judge(rollout: Rollout) -> PendingVerdict:
            return once(self.proposer.judge(rollout, step, tags))

        return SampleRequest(prompt, Purpose.PROPOSAL, judge, self.config.sampling.propose_tokens, count)

    def solution(
        self, task: Task, purpose: Purpose, count: int, proposal: tuple[int, int] | None = None
    ) -> SampleRequest:
        """The request for `count` solutions of a task. Attempts need no tags, as in the released code."""

        def judge(rollout: Rollout) -> PendingVerdict:
            return self.solver.judge(rollout, tags=purpose is not Purpose.ATTEMPT)

        limit = self.config.sampling.solve_tokens
        return SampleRequest(self.solver.ask(task), purpose, judge, limit, count, proposal)

    def proposal_requests(self, step: int) -> list[SampleRequest]:
        group = self.config.batch.propose_group
        count = self.config.batch.proposals // group
        return [
            self.proposal(prompt, step, group)
            for kind in self.kinds
            for prompt in self.proposal_prompts(kind, count, step, "propose")
        ]

    def attempts_at(self, proposal: Judged) -> list[SampleRequest]:
        """The request that measures how often a proposed task is solved; none for what is no task."""
        task = proposal.verdict.task
        if task is None:
            return []
        return [self.solution(task, Purpose.ATTEMPT, self.config.batch.attempts, proposal.place)]

    def solution_requests(self, step: int) -> list[SampleRequest]:
        """Practice on old and new tasks, drawn from memory when the proposals of the step are in it."""
        count = self.config.batch.solve_group
        return [
            self.solution(task, Purpose.SOLUTION, count) for kind in self.kinds for task in self.drawn_tasks(kind, step)
        ]

    def solutions_of(self, edited: Sequence[PendingVerdict]) -> list[SampleRequest]:
        """Practice on what is a task of the edited programs, and new. The archive counts them: the run has them."""
        tasks = [task for verdict in edited if (task := verdict().task) is not None]
        self.edited = [task for task in tasks if self.fits(self.solver.ask(task)) and self.buffer.add(task)]
        if self.archive is not None:
            self.archive.add(self.edited)
        return [self.solution(task, Purpose.SOLUTION, self.config.batch.solve_group) for task in self.edited]

    def mutations(self, step: int) -> list[PendingVerdict]:
        """Edited programs with the inputs that they had, on their way through the executor.

        Of the kinds whose tasks are one program with one input.
        """
        edited: list[PendingVerdict] = []
        if not self.config.batch.mutations:
            return edited
        for kind in (kind for kind in self.kinds if KINDS[kind].one_case_of_own_program):
            rng = random.Random(f"{self.config.seed}/{step}/mutate/{kind}")
            for task in self.buffer.references(kind, self.config.batch.mutations, rng, FRONTIER):
                others = [other.program for other in self.buffer.references(kind, DONORS, rng)]
                program = mutate(task.program, others, rng)
                if program is not None:
                    edited.append(self.proposer.check(KINDS[kind], Draft(program, (task.cases[0].input,)), step))
        return edited

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
        tasks = self.buffer.draw(kind, batch.solves, step, rng, batch.fresh_share, batch.draw)
        return [task for task in tasks if self.fits(self.solver.ask(task))]

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

    def prepare(self, writer: Writer, say: Callable[[str], None]) -> dict[str, int]:
        """Collect first tasks."""
        say("seeding: the model proposes, nothing is learned yet")
        refused = self.seed(writer)
        sizes = ", ".join(f"{len(tasks)} {kind}" for kind, tasks in self.tasks().items())
        common = ", ".join(f"{why} {n}" for why, n in sorted(refused.items(), key=lambda item: -item[1])[:4])
        say(f"seeds: {sizes}" + (f"   refused: {common}" if common else ""))
        return refused

    def seed(self, writer: Writer) -> dict[str, int]:
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
            for proposal in self.seed_proposals(writer, short, step=-1 - settings.seed_rounds + round_):
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
            self.archive.add([task for tasks in self.tasks().values() for task in tasks if chosen_program(task)])
        return reasons

    def seed_proposals(self, writer: Writer, kinds: Sequence[Kind], step: int) -> list[Judged]:
        """A round of proposals of these kinds, as many as are decoded together, in the order of their prompts."""
        count = max(self.config.batch.proposals, self.config.sampling.max_rows // (2 * len(kinds)))
        with writer.generate("seed", step) as stream:
            stream.submit(
                self.proposal(prompt, step, tags=False)  # as in the released code
                for kind in kinds
                for prompt in self.proposal_prompts(kind, count, step, "seed")
            )
            for _ in stream.proposals():
                pass
        return [one for group in writer.judge("execute", stream) for one in group.judged]

    # A step is given up, or kept --------------------------------------------------------------------------------

    def snapshot(self) -> Remembered:
        cells = {} if self.archive is None else self.archive.snapshot()
        return Remembered(self.buffer.snapshot(), self.running.snapshot(), cells)

    def restore(self, remembered: Remembered) -> None:
        self.buffer.restore(remembered.buffer)
        self.running.restore(remembered.running)
        if self.archive is not None:
            self.archive.restore(remembered.cells)

    def save(self, folder: Path) -> dict[str, Any]:
        """buffer.jsonl and archive.jsonl, all that is in memory; the running baselines go into state.json."""
        (folder / BUFFER_FILE).write_text("".join(json.dumps(row) + "\n" for row in self.buffer.rows()))
        if self.archive is not None:
            (folder / ARCHIVE_FILE).write_text("".join(json.dumps(row) + "\n" for row in self.archive.rows()))
        return {"running": {name: list(pair) for name, pair in self.running.moments.items()}}

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Tasks of the buffer that are left out are told on stderr, with the reasons."""
        left_out = self.buffer.load(json.loads(line) for line in (folder / BUFFER_FILE).read_text().splitlines())
        if left_out:
            reasons = ", ".join(f"{why} {number}" for why, number in left_out.most_common())
            sys.stderr.write(f"{left_out.total()} tasks of {folder / BUFFER_FILE} are left out: {reasons}\n")
        self.running.restore({name: (pair[0], pair[1]) for name, pair in state["running"].items()})
        if self.archive is not None:
            try:
                self.archive.load(json.loads(line) for line in (folder / ARCHIVE_FILE).read_text().splitlines())
            except (OSError, ValueError) as error:
                raise AzrError(f"{folder / ARCHIVE_FILE} cannot be read: {error}") from None


def chosen_program(task: Task | None) -> Task | None:
    """The task, if its program is its proposer's own and was not lent."""
    return task if task is not None and KINDS[task.kind].chooses_program else None


def cut_off(one: Scored) -> bool:
    """A solver completion that ran into the token limit: it was not given the chance to be right."""
    return one.role is Role.SOLVE and one.rollout.completion.truncated
