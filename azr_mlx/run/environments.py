"""The environments of a run, built from its configuration around the policy and the executor that it has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from azr_mlx.config import Config
from azr_mlx.executor import Executor
from azr_mlx.executor.rules import ALLOWED_MODULES
from azr_mlx.generation import PhaseTimer, fits, untimed
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
    return SelfPlay(
        settings,
        Proposer(solver.style, solver.executor, settings.tasks),
        solver,
        Buffer(settings.buffer.capacity, held_out, settings.buffer.per_program),
        fits(policy.encode, settings.sampling.prompt_tokens),
        archive=Archive(solver.executor) if settings.buffer.archive else None,
        phase=phase,
    )
