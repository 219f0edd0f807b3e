"""Every number of a run: what it means, its unit, its good direction, its formula, and when it is cause for alarm.

One row a step. `metrics.jsonl` holds what is determined by the seed; seconds and bytes, which are not, go to
`timings.jsonl`, so that a resumed run can be compared with an uninterrupted one byte by byte.

The tables here are the only place that explains a metric: docs/metrics.md (`python -m azr_mlx.run.metrics`), the
report's tooltips and `azr metrics` are made from them.
"""

from __future__ import annotations

import ast
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import fmean
from typing import Any

from azr_mlx.executor import syntax
from azr_mlx.executor.rules import normalised_key
from azr_mlx.selfplay import parsing
from azr_mlx.selfplay.advantages import zero_signal_share
from azr_mlx.selfplay.kinds import KINDS
from azr_mlx.types import Kind, Role, Scored, ScoredRow, Step, Task

Row = Mapping[str, Any]  # one step: what metrics.jsonl and timings.jsonl say of it, or a part of that


@dataclass(frozen=True)
class Metric:
    """One metric. `name` may hold {kind}, {role}, {phase} or {band}; `better` is "up", "down" or "" when neither is."""

    name: str
    meaning: str
    formula: str
    unit: str = "share"
    better: str = ""

    def matches(self, name: str) -> bool:
        return re.fullmatch(_pattern(self.name), name) is not None


_CHOICES = {"kind": "|".join(Kind), "role": "|".join(Role), "phase": "[a-z]+", "band": "[1-9]", "function": "[^/]+"}


@cache
def _pattern(name: str) -> str:
    return "".join(
        f"(?:{_CHOICES[part[1:-1]]})" if part.startswith("{") else re.escape(part)
        for part in re.split(r"(\{[a-z]+\})", name)
    )


METRICS: tuple[Metric, ...] = (
    Metric("solve/{kind}", "right answers among the solver rollouts of this step", "mean of correct", better="up"),
    Metric("solve/mean", "solve rate over the kinds", "mean of solve/{kind}", better="up"),
    Metric(
        "probe/{kind}", "right answers to held-out tasks at temperature 1, before this step", "mean of correct",
        better="up",
    ),
    Metric("probe/mean", "the same over the kinds: the headline", "mean of probe/{kind}", better="up"),
    Metric("probe_greedy/{kind}", "right answers to held-out tasks, greedy", "mean of correct", better="up"),
    Metric("probe_greedy/mean", "the same over the kinds", "mean of probe_greedy/{kind}", better="up"),
    Metric(
        "heldout/band{band}/{kind}", "right answers to the held-out tasks of a band of difficulty, temperature 1",
        "mean of correct", better="up",
    ),
    Metric(
        "heldout/band{band}/mean", "the same over the kinds", "mean of heldout/band{band}/{kind}", better="up",
    ),
    Metric("reward/{role}/{kind}", "reward of the rollouts", "mean of the reward", "reward", "up"),
    Metric("valid/{kind}", "proposals that Python confirmed as new tasks", "valid / proposals", better="up"),
    Metric(
        "learnable/{kind}", "valid proposals that were solved sometimes, not always", "0 < r < 1 among valid",
        better="up",
    ),
    Metric("difficulty/{kind}", "how often fresh tasks were not solved", "1 - mean of r over fresh tasks"),
    Metric(
        "solve_rates/{kind}", "fresh tasks by solve rate r: never, seven equal parts of (0, 1), always",
        "histogram of r", "tasks",
    ),
    Metric(
        "novel/{kind}", "valid proposals whose program is not in the buffer yet", "new programs / valid proposals",
        better="up",
    ),
    Metric("repeated/{kind}", "proposals of a task that is in the buffer already", "duplicates / proposals",
           better="down"),
    Metric(
        "crowding/{kind}", "how full the archive is with programs like the valid ones", "mean of n / (n + m), n "
        "programs like it and m of each sort on average", better="down",
    ),
    Metric("cells/filled", "different sorts of programs in the archive", "count over the whole run", "cells", "up"),
    Metric("mutations/tasks", "new tasks that edits of programs made (batch.mutations)", "count", "tasks"),
    Metric(
        "mutations/learnable", "those of them that were solved sometimes, not always", "0 < r < 1 among them",
        better="up",
    ),
    Metric("refused/{kind}", "why proposals were refused", "count of each reason", "proposals"),
    Metric("program_log_chars/{kind}", "length of valid proposed programs", "mean of ln(characters)", "ln chars"),
    Metric("program_nodes/{kind}", "size of valid proposed programs", "mean number of AST nodes", "nodes"),
    Metric("program_depth/{kind}", "nesting of valid proposed programs", "mean depth of the AST", "levels"),
    Metric("buffer/{kind}", "tasks in memory", "count", "tasks"),
    Metric("rows/reward", "weighted reward of the answers to your rows", "mean of the sum", "reward", "up"),
    Metric("rows/reward/{function}", "what one reward function gave, where it applies", "mean", "reward", "up"),
    Metric("rows/reward_std", "spread of the rewards of a step", "deviation of the sample", "reward"),
    Metric("rows/flat", "rows whose answers all earned the same", "flat groups / groups", better="down"),
    Metric("rows/unscored", "answers without a reward: it does not apply, or it failed", "count", "answers", "down"),
    Metric("rows/length", "length of the answers to rows", "mean tokens", "tokens"),
    Metric("rows/truncated", "answers to rows that ran into the token limit", "cut / all", better="down"),
    Metric("rows/epoch", "passes through the rows so far", "rows asked / rows", "passes"),
    Metric("rows/logged/{function}", "what a reward function gave to log_metric", "mean", "as logged"),
    Metric("probe/rows", "reward of held-out rows at temperature 1, before this step", "mean reward", "reward", "up"),
    Metric("probe_greedy/rows", "reward of held-out rows, greedy", "mean reward", "reward", "up"),
    Metric("entropy", "spread of the next-token distribution in training", "-sum p ln p, mean over tokens", "nats"),
    Metric("loss", "policy-gradient loss; its level means little", "-mean(advantage * ratio)", "reward"),
    Metric("grad_norm", "length of the gradient before clipping", "root of the sum of squares", "norm"),
    Metric("learning_rate", "rate of the optimizer step", "schedule", "rate"),
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
    Metric(
        "malformed/{role}", "replies without the required form, those that were cut off included",
        "without tags, block or function / all", better="down",
    ),
    Metric("length/{role}/{kind}", "length of completions", "mean tokens", "tokens"),
    Metric("masked", "truncated solver rollouts left out of the loss", "count", "rollouts"),
    Metric("timeouts", "programs that ran into the time limit", "count", "programs", "down"),
    Metric("dropped", "rollouts that the harness failed to judge", "count", "rollouts", "down"),
)  # fmt: skip

TIMINGS: tuple[Metric, ...] = (
    Metric(
        "seconds/{phase}", "wall time of a phase: write, execute (last verdicts), update, probe", "end - begin", "s",
        "down",
    ),
    Metric(
        "seconds/step", "wall time of the step, without probes of held-out tasks", "sum of seconds/{phase} but probe",
        "s", "down",
    ),
    Metric("tokens_per_second", "sampled tokens over the time of sampling", "tokens / s", "tokens/s", "up"),
    Metric("rollouts", "rollouts that were sampled", "count", "rollouts"),
    Metric("tokens/prefill", "prompt tokens that were computed for sampling", "padding included", "tokens", "down"),
    Metric("tokens/prefill/asked", "what that would be if each rollout computed its own prompt", "sum of lengths",
           "tokens"),
    Metric("tokens/decode", "rows that were computed in decoding", "width of the batch, summed over its steps",
           "tokens", "down"),
    Metric("tokens/decode/kept", "tokens that were sampled", "sum of lengths", "tokens"),
    Metric("tokens/update", "tokens that pass the matrices in the update", "each token of the trees of packing.py",
           "tokens", "down"),
    Metric("tokens/update/slots", "the same as attention sees them", "levels padded to their longest", "tokens",
           "down"),
    Metric("tokens/update/rows", "tokens of the trained rollouts", "sum of prompts and completions", "tokens"),
    Metric("tokens/update/prompts", "tokens of their prompts", "each distinct prompt once", "tokens"),
    Metric("tokens/update/completions", "tokens of their completions", "sum of lengths", "tokens"),
    Metric("flops/prefill", "operations of the prompts", "counted from shapes (model/flops.py)", "operations", "down"),
    Metric("flops/decode", "operations of decoding", "counted from shapes", "operations", "down"),
    Metric("flops/update", "operations of the update", "counted from shapes, those computed again included",
           "operations", "down"),
    Metric("flops/update/again", "operations that the update computed a second time", "counted from shapes",
           "operations", "down"),
    Metric("flops/step", "operations of the step", "sum of prefill, decode and update", "operations", "down"),
    Metric("memory/active", "memory that MLX holds", "at the end of the step", "bytes"),
    Metric("memory/peak", "most memory that MLX held", "in the step", "bytes", "down"),
    Metric("memory/cache", "freed buffers that MLX keeps", "at the end of the step", "bytes"),
)  # fmt: skip


def find(name: str) -> Metric | None:
    """The metric that a name in a row belongs to."""
    # seconds/step would also match seconds/{phase}: an exact name goes first.
    known = METRICS + TIMINGS
    return next((one for one in known if one.name == name), None) or next((m for m in known if m.matches(name)), None)


# Alarms -------------------------------------------------------------------------------------------------------------

FEW = 5  # steps that an alarm about the form of replies looks at
CUT_OFF = 0.3  # share of replies that ran into the token limit beyond which that is said
MALFORMED = 0.5  # share of replies without the required form beyond which that is said


@dataclass(frozen=True)
class Alarm:
    """A state of the run that a person should know of: `when` in words, `check` on the rows, and what to do.

    `share` names the metric whose mean over the last steps is said with the alarm.
    """

    name: str
    when: str
    todo: str
    check: Callable[[Sequence[Row]], bool]
    share: str = ""

    def line(self, rows: Sequence[Row]) -> str:
        """What is wrong, and what to do."""
        said = f"{100 * _mean(rows[-FEW:], self.share):.0f} % of them; " if self.share else ""
        return f"{self.name}: {said}{self.todo}"


def _values(rows: Sequence[Row], *names: str) -> list[float]:
    """The numbers of these names in rows; a name that ends in / stands for all that begin with it."""
    return [
        float(value)
        for row in rows
        for key, value in row.items()
        if any(key == name or (name.endswith("/") and key.startswith(name)) for name in names)
        and isinstance(value, int | float)
    ]


def _mean(rows: Sequence[Row], *names: str) -> float:
    values = _values(rows, *names)
    return fmean(values) if values else math.nan  # nan compares false: what was not measured raises no alarm


def _entropy_collapses(rows: Sequence[Row]) -> bool:
    return len(rows) >= 15 and _mean(rows[-5:], "entropy") < 0.4 * _mean(rows[:5], "entropy")


def _memory_rises(rows: Sequence[Row]) -> bool:
    # The first steps are left out: caches of kernels and of the optimizer fill up there.
    if len(rows) < 20:
        return False
    old, new = _mean(rows[5:10], "memory/active"), _mean(rows[-5:], "memory/active")
    return new > 1.3 * old and new - old > 2e8


def _repeats(rows: Sequence[Row]) -> bool:
    last = rows[-10:]
    return len(last) >= 5 and (_mean(last, "repeated/") > 0.3 or _mean(last, "novel/") < 0.3)


def _not_finite(rows: Sequence[Row]) -> bool:
    # `row` leaves out what is not a finite number, and a step that trained always has both.
    return any(row.get("trained_rows") and not {"loss", "grad_norm"} <= row.keys() for row in rows[-5:])


# What to do about the form of replies; said of held-out tasks, of seeds and of steps alike.
SOLUTIONS_CUT_OFF = (
    "raise sampling.solve_tokens, and see that model.thinking is off; a cut answer cannot be right and teaches nothing"
)
PROPOSALS_CUT_OFF = "raise sampling.propose_tokens; a proposal that does not end is no task"
WRONG_STYLE = (
    "see that model.style suits the model: chat for an instruct model, r1 for a base model; rollouts/ has the replies"
)


ALARMS: tuple[Alarm, ...] = (
    Alarm(
        "the update is not a finite number",
        "a step of the last 5 trained, and its loss or gradient is nan or infinite",
        "stop, lower optim.lr, and go on from the checkpoint before it with --resume",
        _not_finite,
    ),
    Alarm(
        "entropy is collapsing",
        "mean entropy of the last 5 steps is under 40 % of that of the first 5",
        "the policy says the same thing again and again; lower optim.lr, or set loss.entropy=0.001",
        _entropy_collapses,
    ),
    Alarm(
        "nearly all groups are flat",
        "zero_signal is over 0.9 in the last 5 steps",
        "all attempts at a task get one reward, so there is nothing to learn from; raise batch.attempts, "
        "or take a model for which the tasks are neither trivial nor hopeless",
        lambda rows: len(rows) >= 5 and _mean(rows[-5:], "zero_signal") > 0.9,
    ),
    Alarm(
        "proposals repeat themselves",
        "in the last 10 steps over 30 % of proposals were duplicates, or under 30 % of valid ones had a new program",
        "raise buffer.seed_size or tasks.references, and see that sampling.temperature is 1",
        _repeats,
    ),
    Alarm(
        "hardly any proposal is valid",
        "under 10 % of proposals were valid in the last 10 steps",
        "read the reasons for rejection; if it was better before, lower optim.lr and resume from an older checkpoint",
        lambda rows: len(rows) >= 5 and _mean(rows[-10:], "valid/") < 0.1,
    ),
    Alarm(
        "sampler and trainer disagree",
        "in the last 5 steps mean |delta logp| is over 0.05 nats, or over 2 % of tokens have a ratio outside "
        "[0.8, 1.25]",
        "set loss.recompute_old_logprobs=true; if sampling.temperature or top_p is not 1, put it back",
        lambda rows: _mean(rows[-5:], "delta_logp_mean") > 0.05 or _mean(rows[-5:], "ratio_outside") > 0.02,
    ),
    Alarm(
        "completions are cut off",
        "over 30 % of solver completions ran into the token limit in the last 5 steps",
        SOLUTIONS_CUT_OFF,
        lambda rows: _mean(rows[-FEW:], "truncated/solve") > CUT_OFF,
        "truncated/solve",
    ),
    Alarm(
        "proposals are cut off",
        "over 30 % of proposals ran into the token limit in the last 5 steps",
        PROPOSALS_CUT_OFF,
        lambda rows: _mean(rows[-FEW:], "truncated/propose") > CUT_OFF,
        "truncated/propose",
    ),
    Alarm(
        "answers lack their form",
        "over 50 % of solver completions had no answer that could be read in the last 5 steps, not because they were "
        "cut off",
        WRONG_STYLE,
        lambda rows: _mean(rows[-FEW:], "malformed/solve") - _mean(rows[-FEW:], "truncated/solve") > MALFORMED,
        "malformed/solve",
    ),
    Alarm(
        "proposals lack their form",
        "over 50 % of proposals had no program or no input that could be read in the last 5 steps, not because they "
        "were cut off",
        WRONG_STYLE,
        lambda rows: _mean(rows[-FEW:], "malformed/propose") - _mean(rows[-FEW:], "truncated/propose") > MALFORMED,
        "malformed/propose",
    ),
    Alarm(
        "the reward is constant",
        "all answers of a step to your rows earned the same, in each of the last 5 steps",
        "there is nothing to learn from: look at the answers in rollouts/, and at what the reward function returns",
        lambda rows: len(rows) >= FEW and _values(rows[-FEW:], "rows/reward_std") == [0.0] * FEW,
    ),
    Alarm(
        "memory is rising",
        "MLX holds over 30 % and 0.2 GB more than after the first steps",
        "checkpoint, stop and resume to free it; lower sampling.max_rows or optim.micro_batch_tokens; and tell us",
        _memory_rises,
    ),
    Alarm(
        "the executor fails",
        "the harness could not judge at least 3 rollouts of the last 5 steps",
        "run azr doctor; programs may be short of memory, processes or disk",
        lambda rows: sum(_values(rows[-5:], "dropped")) >= 3,
    ),
    Alarm(
        "programs run out of time",
        "on average over 20 programs a step ran into the time limit in the last 5 steps",
        "the machine may be busy; raise executor.wall_seconds, or lower executor.workers",
        lambda rows: _mean(rows[-5:], "timeouts") > 20,
    ),
)


def alarms(rows: Sequence[Row]) -> list[str]:
    """What is wrong with a run, in words, and what to do; `rows` are its steps so far, timings included."""
    return [alarm.line(rows) for alarm in ALARMS if rows and alarm.check(rows)]


# A step in numbers --------------------------------------------------------------------------------------------------


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
        for role, rollouts in ((Role.PROPOSE, mine), (Role.SOLVE, solver)):
            _put(result, f"reward/{role}/{kind}", (one.reward for one in rollouts))
            _put(result, f"length/{role}/{kind}", (float(len(one.rollout.completion.tokens)) for one in rollouts))
        _put(result, f"valid/{kind}", (float(one.verdict.valid) for one in mine))
        _put(result, f"learnable/{kind}", (float(0 < rate < 1) for rate in fresh))
        _put(result, f"difficulty/{kind}", (1 - rate for rate in fresh))
        _put(result, f"program_log_chars/{kind}", (math.log(len(task.program)) for task in tasks))
        shapes = [shape(task.program) for task in tasks]
        _put(result, f"program_nodes/{kind}", (float(nodes) for nodes, _ in shapes))
        _put(result, f"program_depth/{kind}", (float(depth) for _, depth in shapes))
        if KINDS[kind].chooses_program:
            _put(result, f"novel/{kind}", (float(normalised_key(task.program) not in known_programs) for task in tasks))
        _put(result, f"crowding/{kind}", (one.crowding for one in mine if one.crowding is not None))
        _put(result, f"repeated/{kind}", (float(one.verdict.why == "duplicate") for one in mine))
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
        _put(result, f"malformed/{role}", (float(one.verdict.why in parsing.FORM_REASONS) for one in rollouts))
    result |= {
        "entropy": update.entropy, "loss": update.loss, "grad_norm": update.grad_norm,
        "learning_rate": update.learning_rate, "kl": update.kl, "delta_logp_mean": update.delta_logp_mean,
        "delta_logp_max": update.delta_logp_max, "ratio_outside": update.ratio_outside, "clipped": update.clipped,
        "zero_signal": zero_signal_share(solved) if solved else math.nan,
        "trained_rows": update.rows, "trained_tokens": update.tokens,
        "masked": step.masked, "dropped": step.dropped,
        "timeouts": sum(one.verdict.why == "timeout" for one in (*step.proposals, *solved)),
    }  # fmt: skip
    result |= step.metrics
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
    nodes, depth = 0, 0
    # Level by level: `x+x+x+...` is nested as deep as it is long, and a model may write that.
    level: list[ast.AST] = [syntax.parse(program, "<azr program>")]
    while level:
        nodes, depth = nodes + len(level), depth + 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return nodes, depth


def histogram(rates: Sequence[float], bins: int = 8) -> list[int]:
    """How many fresh tasks had a solve rate of 0, then in each of `bins` - 1 equal parts of (0, 1), then of 1."""
    counts = [0] * (bins + 1)
    for rate in rates:
        counts[0 if rate == 0 else bins if rate == 1 else 1 + min(bins - 2, int(rate * (bins - 1)))] += 1
    return counts


def programs(tasks: Iterable[Task]) -> set[str]:
    return {normalised_key(task.program) for task in tasks}


def answer_row(one: ScoredRow, advantage: float | None, step: int) -> dict[str, Any]:
    """An answer to a row of the user's as plain data."""
    prompt, completion = one.rollout.prompt, one.rollout.completion
    return {
        "step": step, "role": prompt.role, "kind": None, "row": one.row, "prompt": prompt.text,
        "reply": one.rollout.reply, "tokens": len(completion.tokens), "stop": completion.stop,
        "logprob": round(sum(completion.logprobs), 4), "correct": None, "why": one.why, "rewards": dict(one.rewards),
        "solve_rate": None,
        "reward": None if math.isnan(one.reward) else one.reward, "advantage": advantage,
    }  # fmt: skip


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


# The page -----------------------------------------------------------------------------------------------------------


def listing() -> list[tuple[str, list[tuple[str, str, str, str, str]]]]:
    """Sections of (name, unit, good direction, meaning, formula): what `azr metrics` and the report show."""
    arrow = {"up": "↑", "down": "↓", "": ""}
    return [
        (title, [(one.name, one.unit, arrow[one.better], one.meaning, one.formula) for one in table])
        for title, table in (("metrics.jsonl", METRICS), ("timings.jsonl", TIMINGS))
    ]


def document() -> str:
    """docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "<!-- Written by `python -m azr_mlx.run.metrics`; edit the tables in azr_mlx/run/metrics.py instead. -->",
        "",
        "A run writes one row a step into two files. `metrics.jsonl` holds what the seed determines, `timings.jsonl`",
        "the seconds and bytes that it does not; join the two files on `step`. Dashboards that `tracking.sinks` names",
        "get both under the same names (docs/tracking.md). ↑ and ↓ say in which direction a number is good; where",
        "there is no arrow, neither is. What was not measured in a step is not in its row.",
        "",
        "The **loss is no measure of progress**: its level follows from the advantages, centred at each step.",
        "Look at `probe/mean` (the same held-out tasks every time); `solve/{kind}` falls when proposals get harder.",
    ]
    for title, rows in listing():
        lines += ["", f"## {title}", "", "| name | unit | good | meaning | formula |", "|---|---|---|---|---|"]
        for name, unit, arrow, meaning, formula in rows:
            lines.append(f"| `{name}` | {unit} | {arrow} | {meaning} | {formula.replace('|', chr(92) + '|')} |")
    places = f"`{{kind}}` is one of the [task kinds](kinds.md); `{{role}}` is one of {', '.join(Role)}; "
    places += "`{band}` is 1 to 4."
    lines += ["", places, "", "## Alarms", ""]
    lines += ["The console and the report raise these, in words:", "", "| alarm | when | what to do |", "|---|---|---|"]
    lines += [f"| {one.name} | {one.when.replace('|', chr(92) + '|')} | {one.todo} |" for one in ALARMS]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
