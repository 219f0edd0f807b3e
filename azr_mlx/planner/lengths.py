"""How long prompts and replies are: simulated for each prompt style, or measured in a run.

Limits say how long they may be, which is what memory is planned for; time follows from how long they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from azr_mlx import config
from azr_mlx.types import Kind, Role

Row = Mapping[str, Any]
# Shares that the simulation assumes: valid proposals, whose tasks are attempted.
VALID = 0.6
LAST = 10  # steps of a run that its lengths are taken from: they change while it learns


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean tokens of the rollouts of one role and kind. `alike` tokens begin all of their prompts."""

    alike: int
    prompt: int
    reply: int


# What benchmarks/speed/simulate.py prints with tasks.references=0, batch.propose_group=1 and all three kinds, tokens of
# Qwen's vocabulary (r1: the preset qwen2.5-coder-3b, chat: qwen2.5-coder-1.5b-instruct). Replies rest on its
# assumptions. compact: means over 13 steps of nano, tokens of its own vocabulary.
_SIMULATED: Mapping[str, Mapping[tuple[Role, Kind], Lengths]] = {
    "r1": {
        (Role.PROPOSE, Kind.DEDUCTION): Lengths(365, 365, 413),
        (Role.PROPOSE, Kind.ABDUCTION): Lengths(367, 367, 385),
        (Role.PROPOSE, Kind.INDUCTION): Lengths(87, 302, 578),
        (Role.SOLVE, Kind.DEDUCTION): Lengths(174, 325, 245),
        (Role.SOLVE, Kind.ABDUCTION): Lengths(184, 323, 238),
        (Role.SOLVE, Kind.INDUCTION): Lengths(303, 534, 360),
    },
    "chat": {
        (Role.PROPOSE, Kind.DEDUCTION): Lengths(305, 305, 304),
        (Role.PROPOSE, Kind.ABDUCTION): Lengths(307, 307, 335),
        (Role.PROPOSE, Kind.INDUCTION): Lengths(27, 238, 351),
        (Role.SOLVE, Kind.DEDUCTION): Lengths(114, 265, 185),
        (Role.SOLVE, Kind.ABDUCTION): Lengths(119, 247, 179),
        (Role.SOLVE, Kind.INDUCTION): Lengths(243, 403, 226),
    },
    "compact": {
        (Role.PROPOSE, Kind.DEDUCTION): Lengths(0, 3, 25),
        (Role.PROPOSE, Kind.ABDUCTION): Lengths(0, 3, 23),
        (Role.PROPOSE, Kind.INDUCTION): Lengths(0, 25, 42),
        (Role.SOLVE, Kind.DEDUCTION): Lengths(0, 28, 14),
        (Role.SOLVE, Kind.ABDUCTION): Lengths(0, 28, 6),
        (Role.SOLVE, Kind.INDUCTION): Lengths(0, 46, 20),
    },
}
# Tokens of one example in the prompt of a proposer that chooses its program, from the same outputs.
_REFERENCE = {"r1": 152, "chat": 152, "compact": 34}

Table = Mapping[tuple[Role, Kind], Lengths]


def simulated(settings: config.Config) -> Table:
    """Lengths by role and kind under a configuration, cut at its limits. A kind not simulated is as deduction."""
    style, sampling = settings.model.style, settings.sampling
    known = _SIMULATED.get(style, _SIMULATED["chat"])
    reference = _REFERENCE.get(style, _REFERENCE["chat"])
    found = {}
    for kind in map(Kind, settings.tasks.kinds):
        for role in Role:
            one = known.get((role, kind), known[role, Kind.DEDUCTION])
            examples = (
                settings.tasks.references * reference if role is Role.PROPOSE and kind is not Kind.INDUCTION else 0
            )
            limit = sampling.propose_tokens if role is Role.PROPOSE else sampling.solve_tokens
            prompt = min(sampling.prompt_tokens, one.prompt + examples)
            found[role, kind] = Lengths(min(one.alike, prompt - 1), prompt, min(limit, one.reply))
    return found


def measured(settings: config.Config, rows: Sequence[Row]) -> Table | None:
    """The same with replies as long as in the last steps of a run (metrics joined with timings), and prompts longer or
    shorter by as much as all of them were; None when the run has no such numbers."""
    last, table = list(rows)[-LAST:], dict(simulated(settings))
    asked = expected = 0.0
    for (role, kind), one in table.items():
        replies = [float(row[f"length/{role}/{kind}"]) for row in last if f"length/{role}/{kind}" in row]
        if replies:
            table[role, kind] = replace(one, reply=max(1, round(fmean(replies))))
    for row in last:
        if row.get("tokens/prefill/asked"):
            asked += float(row["tokens/prefill/asked"])
            expected += float(row.get("rollouts", 0)) * mean_prompt(settings, table)
    if not any(name.startswith("length/") for row in last for name in row):
        return None
    if asked and expected:
        factor = asked / expected
        table = {
            name: replace(one, alike=round(factor * one.alike), prompt=max(1, round(factor * one.prompt)))
            for name, one in table.items()
        }
    return table


def mean_prompt(settings: config.Config, table: Table) -> float:
    """Mean prompt of a rollout of a step."""
    batch = settings.batch
    propose = fmean(one.prompt for (role, _), one in table.items() if role is Role.PROPOSE)
    solve = fmean(one.prompt for (role, _), one in table.items() if role is Role.SOLVE)
    proposals, solutions = batch.proposals, batch.solves * batch.solve_group
    attempts = VALID * batch.proposals * batch.attempts
    return (proposals * propose + (attempts + solutions) * solve) / (proposals + attempts + solutions)
