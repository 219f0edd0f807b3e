"""Every number of a run: what it means, its unit, its good direction, its formula, and where it is computed.

One row a step. `metrics.jsonl` holds what is determined by the seed; seconds and bytes, which are not, go to
`timings.jsonl`, so that a resumed run can be compared with an uninterrupted one byte by byte.
"""

from __future__ import annotations

import ast
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from azr_mlx.advantages import zero_signal_share
from azr_mlx.executor.rules import normalised_key
from azr_mlx.types import Kind, Role, Scored, Step, Task


@dataclass(frozen=True)
class Metric:
    """One metric. `name` may hold {kind} or {role}; `better` is "up", "down" or "" when neither is."""

    name: str
    meaning: str
    formula: str
    unit: str = "share"
    better: str = ""


METRICS: tuple[Metric, ...] = (
    Metric("solve/{kind}", "right answers among the solver rollouts of this step", "mean of correct", better="up"),
    Metric("solve/mean", "solve rate over the kinds", "mean of solve/{kind}", better="up"),
    Metric("reward/{role}/{kind}", "reward of the rollouts", "mean of the reward", "reward", "up"),
    Metric("valid/{kind}", "proposals that Python confirmed as new tasks", "valid / proposals", better="up"),
    Metric(
        "learnable/{kind}",
        "valid proposals that were solved sometimes, not always",
        "0 < r < 1 among valid",
        better="up",
    ),
    Metric("difficulty/{kind}", "how often fresh tasks were not solved", "1 - mean of r over fresh tasks"),
    Metric("program_log_chars/{kind}", "length of valid proposed programs", "mean of ln(characters)", "ln chars"),
    Metric("program_nodes/{kind}", "size of valid proposed programs", "mean number of AST nodes", "nodes"),
    Metric("program_depth/{kind}", "nesting of valid proposed programs", "mean depth of the AST", "levels"),
    Metric(
        "novel/{kind}",
        "proposals whose program is not in the buffer yet",
        "new programs / parsed proposals",
        better="up",
    ),
    Metric("entropy", "spread of the next-token distribution in training", "-sum p ln p, mean over tokens", "nats"),
    Metric("loss", "policy-gradient loss; its level means little", "-mean(advantage * ratio)", "reward"),
    Metric("grad_norm", "length of the gradient before clipping", "root of the sum of squares", ""),
    Metric("learning_rate", "rate of the optimizer step", "schedule", ""),
    Metric("kl", "distance from the model without adapters", "k3 estimate, mean over tokens", "nats"),
    Metric(
        "delta_logp_mean", "gap between sampler and trainer", "mean |logp - logp'| of sampled tokens", "nats", "down"
    ),
    Metric("delta_logp_max", "largest such gap", "max |logp - logp'|", "nats", "down"),
    Metric("ratio_outside", "tokens on which sampler and trainer disagree", "ratio outside [0.8, 1.25]", better="down"),
    Metric("clipped", "tokens whose ratio was clipped", "clipped / trained tokens", better="down"),
    Metric("zero_signal", "groups of one task whose rewards are all equal", "flat groups / groups", better="down"),
    Metric("trained_rows", "rollouts that entered the backward pass", "advantage not 0", "rollouts"),
    Metric("trained_tokens", "their completion tokens", "sum of lengths", "tokens"),
    Metric("truncated/{role}", "completions that ran into the token limit", "cut / all", better="down"),
    Metric("length/{role}", "length of completions", "mean tokens", "tokens"),
    Metric("masked", "truncated solver rollouts left out of the loss", "count", "rollouts"),
    Metric("dropped", "rollouts that the harness failed to judge", "count", "rollouts", "down"),
    Metric("buffer/{kind}", "tasks in memory", "count", "tasks"),
)

TIMINGS: tuple[Metric, ...] = (
    Metric("seconds/{phase}", "wall time of a phase: propose, attempt, solve, execute, update", "end - begin", "s"),
    Metric("seconds/step", "wall time of the step", "end - begin", "s"),
    Metric("tokens_per_second", "sampled tokens over the time of sampling", "tokens / s", "tokens/s", "up"),
    Metric("memory/active", "memory that MLX holds", "at the end of the step", "bytes"),
    Metric("memory/peak", "most memory that MLX held", "in the step", "bytes", "down"),
    Metric("memory/cache", "freed buffers that MLX keeps", "at the end of the step", "bytes"),
)


def row(step: Step, known_programs: set[str], buffer_sizes: dict[Kind, int]) -> dict[str, Any]:
    """The metrics of a step. `known_programs`: normalised programs that were in the buffer before it."""
    update = step.update
    solved = step.attempts + step.solutions
    result: dict[str, Any] = {"step": step.number}
    rates = []
    for kind in buffer_sizes:
        mine = [one for one in step.proposals if one.kind is kind]
        tasks = [one.verdict.task for one in mine if one.verdict.task is not None]
        solver = [one for one in solved if one.kind is kind]
        fresh = [one.solve_rate for one in mine if one.solve_rate is not None]
        _put(result, f"solve/{kind}", (float(one.verdict.correct) for one in solver))
        _put(result, f"reward/{Role.PROPOSE}/{kind}", (one.reward for one in mine))
        _put(result, f"reward/{Role.SOLVE}/{kind}", (one.reward for one in solver))
        _put(result, f"valid/{kind}", (float(one.verdict.valid) for one in mine))
        _put(result, f"learnable/{kind}", (float(0 < rate < 1) for rate in fresh))
        _put(result, f"difficulty/{kind}", (1 - rate for rate in fresh))
        _put(result, f"program_log_chars/{kind}", (math.log(len(task.program)) for task in tasks))
        shapes = [shape(task.program) for task in tasks]
        _put(result, f"program_nodes/{kind}", (float(nodes) for nodes, _ in shapes))
        _put(result, f"program_depth/{kind}", (float(depth) for _, depth in shapes))
        if kind is not Kind.INDUCTION:
            _put(result, f"novel/{kind}", (float(normalised_key(task.program) not in known_programs) for task in tasks))
        result[f"solve_rates/{kind}"] = histogram(fresh)
        result[f"refused/{kind}"] = dict(
            sorted(Counter(one.verdict.why for one in mine if not one.verdict.valid).items())
        )
        result[f"buffer/{kind}"] = buffer_sizes[kind]
        if f"solve/{kind}" in result:
            rates.append(result[f"solve/{kind}"])
    _put(result, "solve/mean", rates)
    for role, rollouts in ((Role.PROPOSE, step.proposals), (Role.SOLVE, solved)):
        _put(result, f"truncated/{role}", (float(one.rollout.completion.truncated) for one in rollouts))
        _put(result, f"length/{role}", (float(len(one.rollout.completion.tokens)) for one in rollouts))
    result |= {
        "entropy": update.entropy, "loss": update.loss, "grad_norm": update.grad_norm,
        "learning_rate": update.learning_rate, "kl": update.kl, "delta_logp_mean": update.delta_logp_mean,
        "delta_logp_max": update.delta_logp_max, "ratio_outside": update.ratio_outside, "clipped": update.clipped,
        "zero_signal": zero_signal_share(solved), "trained_rows": update.rows, "trained_tokens": update.tokens,
        "masked": step.masked, "dropped": step.dropped,
    }  # fmt: skip
    # JSON has no nan: what was not measured is not in the row.
    return {
        name: value for name, value in result.items() if not (isinstance(value, float) and not math.isfinite(value))
    }


def _put(result: dict[str, Any], name: str, values: Iterable[float]) -> None:
    """The mean of the values, if there are any."""
    counted = list(values)
    if counted:
        result[name] = fmean(counted)


def shape(program: str) -> tuple[int, int]:
    """AST nodes and depth of nesting of a program that parses (a valid task's does)."""

    def depth(node: ast.AST) -> int:
        return 1 + max((depth(child) for child in ast.iter_child_nodes(node)), default=0)

    tree = ast.parse(program)
    return sum(1 for _ in ast.walk(tree)), depth(tree)


def histogram(rates: Sequence[float], bins: int = 8) -> list[int]:
    """How many fresh tasks had a solve rate of 0, then in each of `bins` - 1 equal parts of (0, 1), then of 1."""
    counts = [0] * (bins + 1)
    for rate in rates:
        counts[0 if rate == 0 else bins if rate == 1 else 1 + min(bins - 2, int(rate * (bins - 1)))] += 1
    return counts


def programs(tasks: Iterable[Task]) -> set[str]:
    return {normalised_key(task.program) for task in tasks}


def rollout_row(one: Scored, advantage: float | None, step: int) -> dict[str, Any]:
    """A rollout as plain data: everything that a reader of the run may ask about it."""
    prompt, completion, verdict = one.rollout.prompt, one.rollout.completion, one.verdict
    task = verdict.task or prompt.task
    return {
        "step": step, "role": prompt.role, "kind": prompt.kind, "attempt": one.attempt, "prompt": prompt.text,
        "reply": one.rollout.reply, "tokens": len(completion.tokens), "stop": completion.stop,
        "logprob": round(sum(completion.logprobs), 4), "valid": verdict.valid, "correct": verdict.correct,
        "why": verdict.why, "detail": verdict.detail[:400], "reward": one.reward, "advantage": advantage,
        "solve_rate": one.solve_rate,
        "task": None if task is None else {
            "program": task.program, "message": task.message, "step": task.step,
            "cases": [[case.input, case.output] for case in task.cases],
        },
    }  # fmt: skip
