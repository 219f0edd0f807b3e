"""The environments of a run, built from its configuration around the policy and the executor that it has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from azr_mlx.config import Config, with_values
from azr_mlx.environment import Environment
from azr_mlx.executor import Executor
from azr_mlx.executor.rules import ALLOWED_MODULES
from azr_mlx.generation import PhaseTimer, fits, untimed
from azr_mlx.rows.environment import Rewards, RowsEnvironment
from azr_mlx.rows.reading import Message, Table
from azr_mlx.selfplay.archive import Archive
from azr_mlx.selfplay.environment import SelfPlay
from azr_mlx.selfplay.prompts import make_style
from azr_mlx.selfplay.proposer import Proposer
from azr_mlx.selfplay.solver import Solver
from azr_mlx.selfplay.task_buffer import Buffer


class PromptWriter(Protocol):
    """What an environment needs to know of a policy: its chat template and how it counts tokens."""

    def encode(self, text: str) -> list[int]: ...

    def render_chat(self, user_text: str, prefill: str = "", earlier: Sequence[tuple[str, str]] = ()) -> str: ...

    def render_messages(self, messages: Sequence[Message]) -> str: ...


def solver(settings: Config, policy: PromptWriter, executor: Executor) -> Solver:
    """Who asks for answers in the run's prompt style, and checks them."""
    style = make_style(
        settings.model.style, seconds=settings.executor.wall_seconds, modules=sorted(ALLOWED_MODULES),
        render=policy.render_chat,
    )  # fmt: skip
    return Solver(style, executor)


def self_play(
    settings: Config,
    policy: PromptWriter,
    solver: Solver,
    held_out: Iterable[str] = (),
    phase: PhaseTimer = untimed,
) -> SelfPlay:
    """Self-play whose buffer never takes the programs of `held_out` (their keys)."""
    if settings.mode == "mix":
        share, batch = settings.mix.selfplay, settings.batch
        group = batch.propose_group
        proposals = max(group, round(share * batch.proposals / group) * group) if batch.proposals else 0
        solves = max(1, round(share * batch.solves)) if batch.solves else 0
        settings = with_values(settings, {"batch.proposals": proposals, "batch.solves": solves})
    return SelfPlay(
        settings,
        Proposer(solver.style, solver.executor, settings.tasks),
        solver,
        Buffer(settings.buffer.capacity, held_out, settings.buffer.per_program),
        fits(policy.encode, settings.sampling.prompt_tokens),
        archive=Archive(solver.executor) if settings.buffer.archive else None,
        phase=phase,
    )


def rows(
    settings: Config,
    found: tuple[Table, Rewards] | None,
    policy: PromptWriter,
    executor: Executor,
    say: Callable[[str], None],
    phase: PhaseTimer = untimed,
) -> RowsEnvironment | None:
    """The user's rows (of `rows.environment.material`); None for a run of self-play alone."""
    if found is None:
        return None
    if settings.mode == "mix":
        prompts = max(1, round(settings.mix.rows * settings.rows.prompts))
        settings = with_values(settings, {"rows.prompts": prompts})
    short = fits(policy.encode, settings.sampling.prompt_tokens)
    return RowsEnvironment.open(settings, found, executor, policy.render_messages, short, say, phase)


def playing(
    settings: Config,
    policy: PromptWriter,
    solver: Solver,
    rows: RowsEnvironment | None,
    held_out: Iterable[str],
    phase: PhaseTimer = untimed,
) -> list[Environment]:
    """The environments of a run, in the order in which they ask: self-play reads its proposals off the stream, and what
    was submitted before is written beside them."""
    found: list[Environment] = [] if rows is None else [rows]
    if settings.played_kinds:
        found.append(self_play(settings, policy, solver, held_out, phase))
    return found
