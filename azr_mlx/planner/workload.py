"""The rollouts that a step and a run write: as long as they may be, and as long as they are."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from azr_mlx import config
from azr_mlx.planner.lengths import VALID, Table, simulated
from azr_mlx.types import Role


@dataclass(frozen=True, slots=True)
class Workload:
    """Rollouts that are written together: `prompts` x `group` rows of P prompt and K completion tokens.

    Of the prompts, `families` sets begin with `alike` tokens that are the same in the whole set.
    """

    name: str
    prompts: int
    group: int
    prompt: int
    tokens: int
    trained: bool = True
    alike: int = 0
    families: int = 1

    @property
    def rows(self) -> int:
        return self.prompts * self.group

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts when each prompt, and what a family begins with, is computed once."""
        families = min(self.families, self.prompts)
        return self.prompts * (self.prompt - self.alike) + families * self.alike

    @property
    def prompt_pairs(self) -> float:
        """Pairs of a query and a key in a head that these tokens are."""
        own = self.prompt - self.alike
        families = min(self.families, self.prompts)
        return self.prompts * own * (self.alike + own / 2) + families * self.alike**2 / 2

    @property
    def reply_pairs(self) -> float:
        """The same of the completions."""
        return self.rows * self.tokens * (self.prompt + self.tokens / 2)


def step_workloads(settings: config.Config) -> tuple[Workload, ...]:
    """The rollouts of one step, every prompt and completion as long as it may be."""
    b, s, kinds = settings.batch, settings.sampling, len(settings.played_kinds)
    found = (
        Workload(
            "propose",
            kinds * b.proposals // b.propose_group,
            b.propose_group,
            s.prompt_tokens,
            s.propose_tokens,
            b.train_proposer,
        ),
        Workload("attempt", kinds * b.proposals, b.attempts, s.prompt_tokens, s.solve_tokens, b.train_attempts),
        # Of edited programs fewer are solved: some are no tasks, and not every kind has programs of its own.
        Workload("solve", kinds * (b.solves + b.mutations), b.solve_group, s.prompt_tokens, s.solve_tokens),
        Workload(
            "rows", settings.uses_rows * settings.rows.prompts, settings.rows.group, s.prompt_tokens, s.solve_tokens
        ),
    )
    return tuple(one for one in found if one.rows)


def typical_workloads(settings: config.Config, table: Table | None = None) -> tuple[Workload, ...]:
    """The rollouts of one step at mean lengths (none given: simulated ones), in the order of `step_workloads`; only
    valid proposals are attempted."""
    table = table or simulated(settings)
    kinds, found = len(settings.tasks.kinds), []
    for one in step_workloads(settings):
        role = Role.PROPOSE if one.name == "propose" else Role.SOLVE
        mine = [lengths for (whose, _), lengths in table.items() if whose is role]
        prompts = max(1, round(VALID * one.prompts)) if one.name == "attempt" else one.prompts
        prompt, reply, alike = (
            max(1, round(fmean(values)))
            for values in ([x.prompt for x in mine], [x.reply for x in mine], [x.alike for x in mine])
        )
        found.append(Workload(one.name, prompts, one.group, prompt, reply, one.trained, min(alike, prompt - 1), kinds))
    return tuple(found)


def other_workloads(settings: config.Config) -> tuple[Workload, ...]:
    """What else a run writes together: proposals that fill the buffer, all of a step, and the probe set."""
    s, kinds, found = settings.sampling, len(settings.played_kinds), list[Workload]()
    if kinds:
        seeds = kinds * max(settings.batch.proposals, s.max_rows // (2 * kinds))
        found.append(Workload("seed", seeds, 1, s.prompt_tokens, s.propose_tokens, False))
    # Attempts and drawn tasks may be answered side by side, and with `overlap` beside proposals.
    work = [one for one in step_workloads(settings) if s.overlap or one.name != "propose"]
    if work:
        prompts, rows = sum(one.prompts for one in work), sum(one.rows for one in work)
        tokens = max(one.tokens for one in work)
        found.append(Workload("write", prompts, -(-rows // prompts), s.prompt_tokens, tokens, False))
    if settings.evaluation.probe != "none":
        found.append(Workload("probe", s.max_rows, 1, s.prompt_tokens, s.solve_tokens, False))
    return tuple(found)
