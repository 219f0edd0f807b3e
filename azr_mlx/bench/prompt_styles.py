"""`azr prompts`: what a model makes of each prompt style, before anything is trained.

For each style, role and kind: the share of replies that are well formed, the share that is right at temperature 1, in
one of k samples (pass@k) and greedily, the tokens of prompt and reply, and the share that was cut off; for proposals
the share that the executor confirms, and that are new programs. What guessing would get stands beside.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from azr_mlx import config
from azr_mlx.errors import UsageError
from azr_mlx.evaluation.statistics import Estimate, estimate, pass_at_k
from azr_mlx.executor import Executor
from azr_mlx.executor.rules import ALLOWED_MODULES
from azr_mlx.files import plain_errors, write_text
from azr_mlx.run.executors import start_executor
from azr_mlx.run.held_out_tasks import HeldOutTasks, guess_rates, tasks_for
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.selfplay.prompts import Style, make_style
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.solver import Solver
from azr_mlx.selfplay.task_buffer import Buffer, program_key, seed_tasks
from azr_mlx.types import Kind, Prompt, Role, Rollout, Task, Verdict
from azr_mlx.versions import result_versions

if TYPE_CHECKING:  # importing it imports MLX
    from azr_mlx.model.policy import Policy

Judged = list[tuple[Rollout, Verdict]]  # the samples of one prompt, each with its verdict


@dataclass(frozen=True)
class StudyPlan:
    """How much is measured. `samples` is the k of pass@k; `band` 0 takes the tasks of all bands."""

    styles: tuple[str, ...]
    tasks: int = 20  # of each kind
    band: int = 1
    samples: int = 8
    proposals: int = 24  # of each kind
    tokens: int = 256  # longest reply


@dataclass(frozen=True)
class StyleRow:
    """What came of one style in one role and kind. Shares with 95 % intervals; tasks (or proposals) are the units."""

    style: str
    role: Role
    kind: Kind
    units: int
    prompt_tokens: float
    reply_tokens: float
    cut_off: float  # share of replies that ran into the token limit
    formed: Estimate | None = None  # solve: replies with the required form
    sampled: Estimate | None = None  # solve: right replies at temperature 1
    pass_at_k: Estimate | None = None  # solve: tasks that one of k samples solves
    greedy: Estimate | None = None
    valid: Estimate | None = None  # propose: tasks that the executor confirms
    new: Estimate | None = None  # propose: of programs that neither memory nor an earlier proposal has
    refused: tuple[tuple[str, int], ...] = ()  # propose: the commonest reasons


def study_command(
    settings: config.Config, plan: StudyPlan, out: Path | None = None, say: Callable[[str], None] = lambda line: None
) -> list[str]:
    """Measure the styles of the plan with the model of the settings; returns the table, and writes JSON to `out`.

    Raises AzrError, UsageError for a style that cannot be used with the model.
    """
    for name in plan.styles:
        config.load_style(name)
    with start_executor(settings) as executor:
        tasks, rows = HeldOutTasks(), list[StyleRow]()
        # Tags are ordinary text for a style that asks for them: such styles have a policy of their own.
        for tags in (False, True):
            names = [name for name in plan.styles if config.load_style(name).tags is tags]
            if not names:
                continue
            say(f"loading {settings.model.id}")
            policy = _policy(settings, names[0])
            tasks = measured_tasks(settings, plan, policy.folder)
            for name in names:
                rows += measure_style(policy, executor, settings, plan, name, tasks, say)
        rows.sort(key=lambda row: (row.role, list(Kind).index(row.kind), plan.styles.index(row.style)))
        guesses = guess_rates(tasks, executor)
    if out is not None:
        found = {
            "model": settings.model.id, "plan": asdict(plan), "temperature": settings.sampling.temperature,
            "rows": [asdict(row) for row in rows], "guesses": {k: dict(v) for k, v in guesses.items()},
            "origin": tasks.origin, "versions": result_versions(),
        }  # fmt: skip
        with plain_errors(f"cannot write {out}"):
            write_text(out, json.dumps(found, indent=1) + "\n")
    return study_lines(rows, guesses, plan, settings, tasks.origin)


def _policy(settings: config.Config, style: str) -> Policy:
    from azr_mlx.model.policy import Policy

    model = replace(settings.model, style=style)
    return Policy.load(model, settings.lora, settings.optim, settings.sampling, settings.loss, seed=settings.seed)


def measured_tasks(settings: config.Config, plan: StudyPlan, folder: Path | None) -> HeldOutTasks:
    """The first tasks of each kind that are played, of the plan's band where tasks have one. Raises UsageError."""
    found = tasks_for(settings, folder)
    keep = [i for i, band in enumerate(found.bands) if not (plan.band and band) or band == plan.band]
    found = HeldOutTasks(tuple(found.tasks[i] for i in keep), tuple(found.bands[i] for i in keep), found.origin)
    chosen = found.chosen(map(Kind, settings.tasks.kinds), plan.tasks)
    if not chosen:
        raise UsageError(
            f"prompts: no task of {', '.join(settings.tasks.kinds)} in {found.origin or 'evaluation.probe'}"
        )
    return chosen


def measure_style(
    policy: Policy, executor: Executor, settings: config.Config, plan: StudyPlan, name: str, tasks: Sequence[Task],
    say: Callable[[str], None] = lambda line: None,
) -> Iterator[StyleRow]:  # fmt: skip
    """The rows of one style: solving the tasks, and proposing with those of the same kind as memory."""
    try:
        style = make_style(
            name, seconds=settings.executor.wall_seconds, modules=sorted(ALLOWED_MODULES), render=policy.render_chat
        )
        style.solve(tasks[0])
    except ValueError as error:
        raise UsageError(f"prompts: {error}") from None
    memory = Buffer(settings.buffer.capacity)
    for task in (*seed_tasks(list(map(Kind, settings.tasks.kinds)), settings.tasks.induction_pairs), *tasks):
        memory.add(task)
    for kind in map(Kind, settings.tasks.kinds):
        mine = [task for task in tasks if task.kind is kind]
        if mine:
            say(f"{name}: solving {kind}")
            yield _solving(policy, Solver(style, executor), settings, plan, name, mine)
        if plan.proposals:
            say(f"{name}: proposing {kind}")
            yield _proposing(policy, style, executor, settings, plan, name, kind, memory)


def _written(
    policy: Policy, prompts: Sequence[Prompt], n: int, settings: config.Config, plan: StudyPlan, temperature: float
) -> list[list[Rollout]]:
    return policy.sample_all(
        prompts, n, seed=(settings.seed, 0, 0), max_tokens=plan.tokens, temperature=temperature,
        top_p=settings.sampling.top_p,
    )  # fmt: skip


def _solving(
    policy: Policy, solver: Solver, settings: config.Config, plan: StudyPlan, name: str, tasks: Sequence[Task]
) -> StyleRow:
    prompts = [solver.ask(task) for task in tasks]

    def judged(n: int, temperature: float) -> list[Judged]:
        groups = _written(policy, prompts, n, settings, plan, temperature)
        pending = [[(rollout, solver.judge(rollout)) for rollout in group] for group in groups]
        return [[(rollout, verdict()) for rollout, verdict in group] for group in pending]

    groups, greedy = judged(plan.samples, settings.sampling.temperature), judged(1, 0.0)
    solver.forget()
    right = [sum(verdict.correct for _, verdict in group) for group in groups]
    every = [rollout for group in groups for rollout, _ in group]
    return StyleRow(
        name, Role.SOLVE, tasks[0].kind, len(tasks), *_lengths(every),
        formed=estimate([fmean(verdict.valid for _, verdict in group) for group in groups]),
        sampled=estimate([count / plan.samples for count in right]),
        pass_at_k=estimate([pass_at_k(plan.samples, count, plan.samples) for count in right]),
        greedy=estimate([float(group[0][1].correct) for group in greedy]),
    )  # fmt: skip


def _proposing(
    policy: Policy, style: Style, executor: Executor, settings: config.Config, plan: StudyPlan, name: str, kind: Kind,
    memory: Buffer,
) -> StyleRow:  # fmt: skip
    proposer = Proposer(style, executor, settings.tasks)
    prompts = proposer.ask(kind, plan.proposals, memory, random.Random(f"{settings.seed}/{kind}"))
    every = [group[0] for group in _written(policy, prompts, 1, settings, plan, settings.sampling.temperature)]
    verdicts = [verdict() for verdict in [proposer.judge(rollout) for rollout in every]]
    known = {program_key(task) for task in memory.tasks(kind)} | style.shown
    new = []
    for verdict in verdicts:
        # Where the program is given, it is the inputs that are the proposer's.
        program = program_key(verdict.task) if verdict.task and KINDS[kind].chooses_program else ""
        new.append(verdict.valid and (not program or program not in known))
        known |= {program} if program else set()
    return StyleRow(
        name, Role.PROPOSE, kind, len(every), *_lengths(every),
        valid=estimate([float(verdict.valid) for verdict in verdicts]), new=estimate([float(one) for one in new]),
        refused=tuple(Counter(verdict.why for verdict in verdicts if not verdict.valid).most_common(3)),
    )  # fmt: skip


def _lengths(rollouts: Sequence[Rollout]) -> tuple[float, float, float]:
    """Mean tokens of prompt and completion, and the share that was cut off."""
    return (
        fmean(len(rollout.prompt_tokens) for rollout in rollouts),
        fmean(len(rollout.completion.tokens) for rollout in rollouts),
        fmean(rollout.completion.truncated for rollout in rollouts),
    )


# The table --------------------------------------------------------------------------------------------------------


def study_lines(
    rows: Sequence[StyleRow], guesses: dict[str, dict[Kind, float]], plan: StudyPlan, settings: config.Config,
    origin: str,
) -> list[str]:  # fmt: skip
    """The rows as a table in Markdown, which is also how docs/prompts.md shows them."""
    k, temperature = plan.samples, settings.sampling.temperature
    band = f", band {plan.band}" if plan.band else ""
    lines = [
        f"{settings.model.id}: {plan.tasks} tasks of each kind ({origin}{band}), {k} samples at temperature "
        f"{temperature:g}, {plan.proposals} proposals, at most {plan.tokens} tokens; percent, with 95 % intervals",
        "",
    ]
    solving = [row for row in rows if row.role is Role.SOLVE]
    if solving:
        lines += [
            f"| kind | style | well formed | solved T={temperature:g} | pass@{k} | greedy | prompt | reply | cut off |",
            "|---|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
    for row in solving:
        shares = " | ".join(map(_share, (row.formed, row.sampled, row.pass_at_k, row.greedy)))
        lines.append(f"| {row.kind} | {row.style} | {shares} | {_tokens(row)} |")
    for kind in dict.fromkeys(row.kind for row in solving):
        for guess, rates in guesses.items():
            if kind in rates:
                named = {"copying": "guess: a copy", "commonest": "guess: the commonest"}.get(guess, guess)
                lines.append(f"| {kind} | {named} | | {100 * rates[kind]:.0f} | | | | | |")
    proposing = [row for row in rows if row.role is Role.PROPOSE]
    if proposing:
        lines += [
            "",
            "| kind | style | valid | valid and new | prompt | reply | cut off | refused because |",
            "|---|---|--:|--:|--:|--:|--:|---|",
        ]
    for row in proposing:
        why = ", ".join(f"{reason} {count}" for reason, count in row.refused)
        lines.append(f"| {row.kind} | {row.style} | {_share(row.valid)} | {_share(row.new)} | {_tokens(row)} | {why} |")
    return lines


def _share(one: Estimate | None) -> str:
    return f"{100 * one.value:.1f} ({100 * one.low:.0f} to {100 * one.high:.0f})" if one else ""


def _tokens(row: StyleRow) -> str:
    return f"{row.prompt_tokens:.0f} | {row.reply_tokens:.0f} | {100 * row.cut_off:.0f}"
