"""The proposer: asking for tasks, and asking Python whether they are any.

    prompts = proposer.ask(Kind.DEDUCTION, 8, buffer, rng)
    pending = proposer.judge(rollout)     # the executor starts at once
    verdict = pending()                   # waits for it

Neither half holds a policy: who writes the completion is the trainer's business.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from azr_mlx import config
from azr_mlx.executor import Executor, Job, Outcome, Status, boundary, rules
from azr_mlx.executor.boundary import Refused
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.kinds import KINDS, kind_of, twins
from azr_mlx.selfplay.prompts import Style
from azr_mlx.selfplay.task_buffer import Buffer
from azr_mlx.selfplay.task_kind import Draft, ProposalContext, Run, TaskKind, settled
from azr_mlx.types import Case, Kind, PendingVerdict, Prompt, Rollout, Task, Verdict


@dataclass(frozen=True)
class Proposer:
    """Words prompts for new tasks and validates what comes back (AZR section 3.3.3, HARDENED as said in each place)."""

    style: Style
    executor: Executor
    settings: config.TasksConfig

    def ask(self, kind: Kind, count: int, buffer: Buffer, rng: random.Random) -> list[Prompt]:
        """`count` prompts, each with its own K references or its own source program."""
        return [self._ask_one(kind, buffer, rng) for _ in range(count)]

    def _ask_one(self, kind: Kind, buffer: Buffer, rng: random.Random) -> Prompt:
        if KINDS[kind].chooses_program:
            return self.style.propose(kind, buffer.references(kind, self.settings.references, rng, self.settings.draw))
        return self.style.propose(
            kind, source=buffer.program(rng, self.settings.draw), cases=self.settings.induction_pairs
        )

    def judge(self, rollout: Rollout, step: int = -1, tags: bool = True) -> PendingVerdict:
        """Whether a proposal is a task: parsed, within the rules, run twice, plain data. The task carries `step`.

        What can be refused by reading is refused at once; the rest runs while the caller goes on. tags False: the whole
        reply is read, with or without the sections of a style that has them (so are seeds in AZR's released code).
        """
        reply, prompt, kind = rollout.reply, rollout.prompt, kind_of(rollout.prompt)
        tags = tags and self.style.tags
        if tags and not parsing.well_formed(reply):
            return _refused("bad tags")
        answer = parsing.answer_section(reply) if tags else reply
        context = ProposalContext(prompt.references, prompt.task, self.settings.induction_pairs)
        try:
            draft = kind.parse_proposal(answer, context)
        except parsing.ParseError as error:
            return _refused(str(error))
        return self.check(kind, draft, step)

    def check(self, kind: TaskKind, draft: Draft, step: int = -1) -> PendingVerdict:
        """Whether a draft is a task, wherever it comes from."""
        why = self._refuse(kind, draft)
        if why is not None:
            return _refused(why)
        futures = [self.executor.submit_check(Job(program, draft.inputs)) for program in kind.programs(draft)]
        return lambda: self._confirm(kind, draft, step, [future.result() for future in futures])

    def _refuse(self, kind: TaskKind, draft: Draft) -> str | None:
        """The reason that reading alone gives, or None."""
        why = rules.check_program(draft.program, self.settings.max_program_chars)
        if why is not None:
            return why
        if any(len(text) > self.settings.max_input_chars for text in draft.inputs):
            return "input too long"
        if any(isinstance(boundary.check_call(text), Refused) for text in draft.inputs):
            return "bad input"
        if not boundary.encodable(draft.program, draft.message, *draft.inputs):
            return "not a text"  # no tokenizer would take the task's prompt
        if self.style.shown and kind.chooses_program and rules.normalised_key(draft.program) in self.style.shown:
            return "copied example"
        why = kind.refuse(draft)
        if why is not None:
            return why
        if self.settings.reject_constant and not rules.reads_arguments(draft.program):
            return "ignores its arguments"
        return None

    def _confirm(self, kind: TaskKind, draft: Draft, step: int, outcomes: Sequence[Outcome]) -> Verdict:
        runs = []
        for outcome in outcomes:
            if outcome.status is Status.SANDBOX_ERROR:
                return Verdict(False, False, "sandbox error", detail=outcome.detail, dropped=True)
            if not outcome.ok:
                return Verdict(False, False, str(outcome.status).replace("-", " "), detail=outcome.detail)
            if len(outcome.values) != len(draft.inputs):
                detail = f"{len(outcome.values)} values of {len(draft.inputs)}"
                return Verdict(False, False, "bad result", detail=detail)
            cases = []
            for text, value in zip(draft.inputs, outcome.values, strict=True):
                gold = boundary.write_gold(value, self.settings.max_output_chars)
                if isinstance(gold, Refused):
                    return Verdict(False, False, gold.why, detail=gold.detail)
                cases.append(Case(text, gold))
            runs.append(Run(outcome.values, tuple(cases)))
        made = kind.make_task(draft, runs, step)
        if not isinstance(made, str) and self.settings.reject_identity and self._solved_by_copying(made):
            made = "a copy solves it"
        return Verdict(False, False, made) if isinstance(made, str) else Verdict(True, True, "ok", task=made)

    def _solved_by_copying(self, task: Task) -> bool:
        """Whether a copy of what a solver is shown is right, as a task of its kind or of one that could share it."""
        same = [replace(task, kind=kind) for kind in twins(task.kind, Kind)]
        return any(
            KINDS[twin.kind].verify(twin, answer, self.executor)().correct
            for twin in same
            for answer in KINDS[twin.kind].copies(twin)
        )


def _refused(why: str) -> PendingVerdict:
    return settled(Verdict(False, False, why))
