"""The record of an evaluated model that is kept in evaluation_results.json, and two of them compared."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from azr_mlx.evaluation.asking import Question
from azr_mlx.evaluation.benchmark import Published
from azr_mlx.evaluation.judge_pool import JudgedSamples
from azr_mlx.evaluation.plan import Plan
from azr_mlx.evaluation.problems import Problem
from azr_mlx.evaluation.samples import append_result
from azr_mlx.evaluation.statistics import compare_rates
from azr_mlx.evaluation.summary import solve_rates
from azr_mlx.executor import Executor

RESULTS = "evaluation_results.json"


@dataclass(frozen=True)
class Identity:
    """Which model wrote: its name, what tells its weights apart, their precision, and the adapter on it."""

    model: str
    model_revision: str = ""
    weights: str = ""  # "4 bit" and the like
    thinking: bool = False
    adapter: str = ""
    adapter_hash: str = ""


@dataclass
class Evaluation:
    """One evaluated model: the record that is kept, the verdicts it was made from, and what the model was asked."""

    record: dict[str, Any]
    judged: JudgedSamples
    ask: Callable[[Problem], Question] | None = None  # unknown of completions made elsewhere


def make_record(
    plan: Plan,
    who: Identity,
    found: Mapping[str, Any],
    path: Path,
    versions: Mapping[str, str],
    executor: Executor,
    seconds: float,
) -> dict[str, Any]:
    """What every kept result says; a result of given completions says no more."""
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "benchmark": plan.benchmark.name,
        "title": plan.benchmark.title,
        # Of other rows, such as an older release, the benchmark's own revision would be a false name.
        "revision": plan.benchmark.source.revision
        if plan.rows.content == (plan.benchmark.content or plan.rows.content)
        else "(other rows)",
        "origin": plan.rows.origin,
        "content": plan.rows.content,
        "split": plan.choice.split or plan.benchmark.split,
        "level": plan.choice.level,
        "limit": plan.choice.limit,
        **asdict(who),
        "prompt": "given completions",
        "answer": None,
        "stop": None,
        "harness": "",
        "sampling": None,
        "seed": None,
        **found,
        "seconds": seconds,
        "tokens_per_second": None,
        "reused_samples": 0,
        "published": None,
        "versions": dict(versions),
        "sandbox": list(executor.layers.active),
        "samples_file": str(path),
    }


def keep_record(folder: Path, record: Mapping[str, Any], console: Console) -> None:
    """Append a record to evaluation_results.json of `folder`. Raises AzrError."""
    moved = append_result(folder / RESULTS, record)
    if moved is not None:
        console.print(f"{folder / RESULTS} was damaged; it is now {moved}", markup=False, soft_wrap=True)


def compare_evaluations(first: Evaluation, second: Evaluation) -> dict[str, Any]:
    """Two runs on the same problems, as plain data: tasks won and lost, the exact p, the change with its interval."""
    result = compare_rates(solve_rates(first.judged), solve_rates(second.judged))
    return {**asdict(result), "first": label(first.record), "second": label(second.record)}


def label(record: Mapping[str, Any]) -> str:
    """How a table calls the evaluated model."""
    return f"{record['model']} + {record['adapter']}" if record["adapter"] else str(record["model"])


def published_scores(plan: Plan, model: str, prompt: str) -> dict[str, Any] | None:
    """The published score of a model, by the last part of its name without a quantization's suffix.

    `same` says that a run with this plan may be compared with it, else `unlike` says why not.
    """
    bare = bare_name(model)
    for one in plan.benchmark.published:
        if bare_name(one.model) == bare:
            unlike = _unlike(plan, one, prompt)
            return {
                "scores": dict(one.scores), "prompt": one.prompt, "source": one.source, "same": not unlike,
                "unlike": unlike,
            }  # fmt: skip
    return None


def _unlike(plan: Plan, published: Published, prompt: str) -> list[str]:
    """What is different between a run and a published score; nothing when the two may be compared."""
    choice, wording = plan.choice, plan.benchmark.prompts[prompt]
    reasons = [published.unlike] if published.unlike else []
    if published.prompt != prompt:
        reasons.append(f"with another prompt: {published.prompt}")
    if len(plan.problems) < plan.whole or (choice.split and choice.split != plan.benchmark.split):
        reasons.append("of other problems")
    if plan.benchmark.content and plan.rows.content != plan.benchmark.content:
        reasons.append("of other rows")
    if choice.temperature:
        reasons.append("greedy")
    if choice.tokens and choice.tokens != wording.tokens:
        reasons.append(f"with up to {wording.tokens} tokens")
    return reasons


def bare_name(model: str) -> str:
    """The last part of a model's name in small letters, without a quantization's suffix."""
    name = Path(model).name.lower()
    for suffix in ("-4bit", "-6bit", "-8bit", "-bf16", "-mlx"):
        name = name.removesuffix(suffix)
    return name
