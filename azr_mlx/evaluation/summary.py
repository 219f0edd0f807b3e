"""What the verdicts of an evaluation say: scores with intervals, by level, and what to know before quoting them."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from azr_mlx.evaluation.judge_pool import JudgedSamples
from azr_mlx.evaluation.judging import Score
from azr_mlx.evaluation.plan import DEMONSTRATION, Plan
from azr_mlx.evaluation.problems import Problem
from azr_mlx.evaluation.statistics import estimate, pass_at_k
from azr_mlx.executor.two_process import IN_PROCESS
from azr_mlx.types import Stop


def summarize(plan: Plan, judged: JudgedSamples) -> dict[str, Any]:
    """All that verdicts say, as plain data: scores with their intervals, by level, tests, truncations, faults."""
    groups: dict[str, list[Score]] = defaultdict(list)
    problems: dict[str, Problem] = {}
    for problem, _, score in judged.rows:
        groups[problem.id].append(score)
        problems[problem.id] = problem
    least = min(map(len, groups.values()))
    ks = [k for k in plan.k if k <= least]
    parts = list(judged.rows[0][2].parts) if judged.rows else []
    for _, _, score in judged.rows:
        parts += [part for part in score.parts if part not in parts]
    scores: dict[str, dict[str, float]] = {}
    for k in ks:
        scores[f"pass@{k}"] = _estimate(_rates(groups, k))
        for part in parts:
            if part not in ("plus", "official"):  # those are the headline
                scores[f"{part} pass@{k}"] = _estimate(_rates(groups, k, part))
    found: dict[str, Any] = {"tasks": len(groups), "scores": scores}
    levels = [level for level in plan.benchmark.levels if any(p.level == level for p in problems.values())]
    levels += sorted({problem.level for problem in problems.values()} - {"", *levels})
    if levels:
        found["levels"] = {
            level: {
                "tasks": sum(problem.level == level for problem in problems.values()),
                **{
                    f"pass@{k}": _estimate(_rates({i: g for i, g in groups.items() if problems[i].level == level}, k))
                    for k in ks
                },
            }
            for level in levels
        }
    if plan.benchmark.scorer == "tests":
        shares = [score.tests.count("+") / len(score.tests) for _, _, score in judged.rows if score.tests]
        found["test_cases_right"] = math.fsum(shares) / len(shares) if shares else 0.0
    rows = [row for _, row, _ in judged.rows]
    verdicts = [score for _, _, score in judged.rows]
    found |= {
        "samples": len(rows),
        "tokens": sum(row.get("tokens", 0) for row in rows) if any("tokens" in row for row in rows) else None,
        "truncated": sum(row.get("stop") == str(Stop.LENGTH) for row in rows)
        if any("stop" in r for r in rows)
        else None,
        "thinking_unfinished": sum(row.get("thinking") == "unfinished" for row in rows),
        "timed_out": sum(score.result.startswith("timed out") for score in verdicts),
        "not_judged": sum(score.harness for score in verdicts),
        "judged_in_process": sorted({p.id for p, _, score in judged.rows if score.mode == IN_PROCESS}),
        "missing_modules": dict(Counter(score.missing_module for score in verdicts if score.missing_module)),
    }
    return found


def _rates(groups: Mapping[str, Sequence[Score]], k: int, part: str = "") -> list[float]:
    """pass@k of each problem, by the headline or by one of its parts (a sample without the part failed earlier)."""

    def right(score: Score) -> bool:
        return score.parts.get(part, False) if part else score.passed

    return [pass_at_k(len(group), sum(map(right, group)), k) for group in groups.values()]


def _estimate(values: Sequence[float]) -> dict[str, float]:
    return asdict(estimate(values))


def solve_rates(judged: JudgedSamples) -> dict[str, float]:
    """The share of right samples of each problem, for a comparison task by task."""
    counts: dict[str, list[bool]] = defaultdict(list)
    for problem, _, score in judged.rows:
        counts[problem.id].append(score.passed)
    return {task: sum(passed) / len(passed) for task, passed in counts.items()}


def notes(plan: Plan, found: Mapping[str, Any], model: str, missing: int = 0) -> list[str]:
    """What a reader has to know before quoting the score."""
    lines = list(plan.rows.notes)
    if plan.benchmark.note:
        lines.append(plan.benchmark.note)
    if len(plan.problems) < plan.whole:
        lines.append(f"{len(plan.problems)} of {plan.whole} problems: not the score of {plan.benchmark.title}")
    if missing:
        lines.append(f"{missing} problems have no completion and are not counted")
    if Path(model).name == DEMONSTRATION and plan.benchmark.scorer != "self-play":
        lines.append(f"{DEMONSTRATION} is a demonstration of self-play, far too small for this: expect about zero")
    if found["truncated"]:
        share = 100 * found["truncated"] / found["samples"]
        lines.append(f"{found['truncated']} completions ({share:.0f} %) ended at the token limit; --tokens raises it")
    if found["thinking_unfinished"]:
        many = found["thinking_unfinished"]
        lines.append(
            f"{many} replies ended while the model was still thinking, counted as wrong; --tokens raises the limit"
        )
    if found["missing_modules"]:
        named = ", ".join(f"{name} {count}" for name, count in sorted(found["missing_modules"].items()))
        lines.append(f"programs that import what the sandbox does not have, counted as wrong: {named}")
    if found["judged_in_process"]:
        named = ", ".join(found["judged_in_process"][:10])
        lines.append(
            f"judged in one process with their test, which needs objects of the program: {named}; there a program that "
            "means to can pass unearned"
        )
    if found["not_judged"]:
        lines.append(f"the sandbox failed on {found['not_judged']} samples, counted as wrong: run it again")
    return lines
