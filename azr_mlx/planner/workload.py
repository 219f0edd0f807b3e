"""The rollouts that a step and a run write, each prompt and completion as long as it may be."""

from __future__ import annotations

from dataclasses import dataclass, replace

from azr_mlx import config


@dataclass(frozen=True, slots=True)
class Workload:
    """Rollouts that are written together: `prompts` x `group` rows of at most P prompt and K completion tokens."""

    name: str
    prompts: int
    group: int
    prompt: int
    tokens: int
    trained: bool = True

    @property
    def rows(self) -> int:
        return self.prompts * self.group

    def shorter(self, share: float) -> Workload:
        return replace(self, prompt=max(1, round(share * self.prompt)), tokens=max(1, round(share * self.tokens)))


def step_workloads(settings: config.Config) -> tuple[Workload, ...]:
    """The rollouts of one step, every prompt and completion as long as it may be."""
    b, s, kinds = settings.batch, settings.sampling, len(settings.tasks.kinds)
    found = (
        Workload("propose", kinds * b.proposals, 1, s.prompt_tokens, s.propose_tokens, b.train_proposer),
        Workload("attempt", kinds * b.proposals, b.attempts, s.prompt_tokens, s.solve_tokens, b.train_attempts),
        Workload("solve", kinds * b.solves, b.solve_group, s.prompt_tokens, s.solve_tokens),
    )
    return tuple(one for one in found if one.rows)


def other_workloads(settings: config.Config) -> tuple[Workload, ...]:
    """What else a run writes together: proposals that fill the buffer, all of a step, and the probe set."""
    s, kinds = settings.sampling, len(settings.tasks.kinds)
    seeds = kinds * max(settings.batch.proposals, s.max_rows // (2 * kinds))
    found = [Workload("seed", seeds, 1, s.prompt_tokens, s.propose_tokens, False)]
    # Attempts and drawn tasks may be answered side by side, and with `overlap` beside proposals.
    work = [one for one in step_workloads(settings) if s.overlap or one.name != "propose"]
    if work:
        prompts, rows = sum(one.prompts for one in work), sum(one.rows for one in work)
        tokens = max(one.tokens for one in work)
        found.append(Workload("write", prompts, -(-rows // prompts), s.prompt_tokens, tokens, False))
    if settings.evaluation.probe != "none":
        found.append(Workload("probe", s.max_rows, 1, s.prompt_tokens, s.solve_tokens, False))
    return tuple(found)
