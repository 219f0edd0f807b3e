"""The proposer's side of the game: asking for tasks, and asking Python whether they are any.

    prompts = proposer.ask(Kind.DEDUCTION, 8, buffer, rng)
    pending = proposer.judge(rollout)     # the executor starts at once
    verdict = pending()                   # waits for it

Neither half holds a policy: who writes the completion is the trainer's business.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from azr_mlx import config
from azr_mlx.executor import Executor, Job, Outcome, Status, boundary, rules, values
from azr_mlx.executor.boundary import Refused
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.prompts import Style
from azr_mlx.selfplay.task_buffer import Buffer
from azr_mlx.types import Case, Kind, Prompt, Rollout, Task, Verdict

Pending = Callable[[], Verdict]


@dataclass(frozen=True)
class Proposer:
    """Words prompts for new tasks and validates what comes back (AZR section 3.3.3, HARDENED as said in each place)."""

    style: Style
    executor: Executor
    dials: config.TasksConfig

    def ask(self, kind: Kind, count: int, buffer: Buffer, rng: random.Random) -> list[Prompt]:
        """`count` prompts, each with its own K references or its own lent program."""
        return [self._ask_one(kind, buffer, rng) for _ in range(count)]

    def _ask_one(self, kind: Kind, buffer: Buffer, rng: random.Random) -> Prompt:
        if kind is Kind.INDUCTION:
            return self.style.propose_induction(buffer.program(rng), self.dials.induction_pairs)
        return self.style.propose(kind, buffer.references(kind, self.dials.references, rng))

    def judge(self, rollout: Rollout, step: int = -1) -> Pending:
        """Whether a proposal is a task: parsed, within the rules, run twice, plain data. The task carries `step`.

        What can be refused by reading is refused at once; the rest runs while the caller goes on.
        """
        reply, kind = rollout.reply, rollout.prompt.kind
        if self.style.tags and not parsing.well_formed(reply):
            return _settled("bad tags")
        answer = parsing.answer_section(reply) if self.style.tags else reply
        try:
            program, inputs, message = self._parse(answer, rollout.prompt)
        except parsing.ParseError as error:
            return _settled(str(error))
        why = self._refuse(program, inputs, message)
        if why is not None:
            return _settled(why)
        future = self.executor.submit_check(Job(program, inputs))
        return lambda: self._confirm(kind, program, inputs, message, step, future.result())

    def _parse(self, answer: str, prompt: Prompt) -> tuple[str, tuple[str, ...], str]:
        if prompt.kind is Kind.INDUCTION:
            proposed = parsing.induction_proposal(answer, self.dials.induction_pairs)
            if prompt.task is None:
                raise ValueError("a prompt for an induction proposal carries the task that lends its program")
            return prompt.task.program, proposed.inputs, proposed.message
        single = parsing.proposal(answer)
        return single.program, (single.input,), ""

    def _refuse(self, program: str, inputs: tuple[str, ...], message: str) -> str | None:
        """The reason that reading alone gives, or None."""
        why = rules.check_program(program, self.dials.max_program_chars)
        if why is not None:
            return why
        if any(len(text) > self.dials.max_input_chars for text in inputs):
            return "input too long"
        if any(isinstance(boundary.check_call(text), Refused) for text in inputs):
            return "bad input"
        if not boundary.encodable(program, message, *inputs):
            return "not a text"  # no tokenizer would take the task's prompt
        if len(inputs) > 1:
            if len({"".join(text.split()) for text in inputs}) < 0.8 * len(inputs):
                return "repeated inputs"  # HARDENED: of ten inputs at least eight differ
            if "def f" in message:
                return "message tells the code"  # HARDENED: the prompt forbids it, the official code never looks
        if self.dials.reject_constant and not rules.reads_arguments(program):
            return "ignores its arguments"
        return None

    def _confirm(
        self, kind: Kind, program: str, inputs: tuple[str, ...], message: str, step: int, outcome: Outcome
    ) -> Verdict:
        if outcome.status is Status.SANDBOX_ERROR:
            return Verdict(False, False, "sandbox error", detail=outcome.detail, dropped=True)
        if not outcome.ok:
            return Verdict(False, False, str(outcome.status).replace("-", " "), detail=outcome.detail)
        if len(outcome.values) != len(inputs):
            return Verdict(False, False, "bad result", detail=f"{len(outcome.values)} values of {len(inputs)}")
        cases = []
        for text, value in zip(inputs, outcome.values, strict=True):
            gold = boundary.write_gold(value, self.dials.max_output_chars)
            if isinstance(gold, Refused):
                return Verdict(False, False, gold.why, detail=gold.detail)
            cases.append(Case(text, gold))
        if len(cases) > 1 and all(values.equal(outcome.values[0], value) for value in outcome.values[1:]):
            return Verdict(False, False, "constant output")  # HARDENED
        return Verdict(True, True, "ok", task=Task(kind, program, tuple(cases), message, step))


def _settled(why: str) -> Pending:
    verdict = Verdict(False, False, why)
    return lambda: verdict
