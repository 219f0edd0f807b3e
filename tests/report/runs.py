"""Run folders made up for tests and pictures: the files that a run leaves, without the hours.

    python -m tests.report.runs FOLDER [--steps 500] [--hostile]

The numbers follow a plausible story (the solver gets better, proposals get harder, reasons for rejection change); the
texts may be what an unfriendly model would write.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from azr_mlx import config
from azr_mlx.executor import rules
from azr_mlx.files import write_text
from azr_mlx.run import metrics
from azr_mlx.types import Case, Completion, Kind, Prompt, Role, Rollout, Scored, Step, Stop, Task, Update, Verdict

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "{{ 7 * 7 }} {% raw %} </textarea></style><!-- <script>",
    "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \r\b\x00",
    "\u202egnp.exe \u2066 \ud800 \U0001f9ff \N{ZERO WIDTH JOINER}",
    "javascript:alert(1) ' \" ` ${document.title='owned'} \\u003cscript\\u003e",
    "http://example.invalid/pixel.png https://example.invalid/x.js",
    "[bold red]markup[/bold red] [link=file:///etc/passwd]x[/link] [/]",
)

BODIES = (
    ("x[1:] + x[:1]", "[3, 1, 2]"), ("sorted(set(x))[::-1]", "[4, 4, 9, 1]"), ("sum(v * v for v in x)", "[1, 2, 5]"),
    ("[a + b for a, b in zip(x, x[1:])]", "[2, 7, 1, 8]"), ("{v: x.count(v) for v in x}", "[1, 1, 3]"),
    ("max(x) - min(x) + len(x)", "[10, 4, 7]"), ("[v for v in x if v % 3 == 0] or x[-1:]", "[3, 5, 9]"),
)  # fmt: skip
PLAYED = (Kind.DEDUCTION, Kind.ABDUCTION, Kind.INDUCTION)  # as in the nano configuration
REASONS = ("syntax error", "exception", "duplicate", "ignores its arguments", "bad input", "repeated inputs", "timeout")


def make_run(folder: Path, steps: int = 30, *, hostile: bool = False, seed: int = 0, **options: Any) -> Path:
    """A finished run of `steps` steps. `options` replace top-level fields of the nano configuration."""
    rng = random.Random(seed)
    settings = replace(config.load("nano"), name=folder.name, steps=steps, seed=seed, **options)
    (folder / "rollouts").mkdir(parents=True)
    (folder / "config.yaml").write_text(config.dump(settings))
    versions = {"azr_mlx": "0.1.0", "python": "3.11.7", "mlx": "0.32.4", "device": "Apple M4 Max"}
    (folder / "versions.json").write_text(json.dumps(versions))
    known: set[str] = set()
    sizes = dict.fromkeys(PLAYED, 160)
    rows, timings = [], []
    for number in range(steps):
        step = make_step(number, steps, rng, settings, hostile)
        fresh = [one.verdict.task for one in step.proposals if one.verdict.task is not None]
        row = metrics.row(step, known, dict(sizes))
        if settings.evaluation.every and number % settings.evaluation.every == 0:
            row |= probe_scores(number, steps)
        rows.append(row)
        known |= metrics.programs(fresh)
        for task in fresh:
            sizes[task.kind] += 1
        worth = {id(one): value for one, value in zip(step.trained, step.advantages, strict=True)}
        written = [
            metrics.rollout_row(one, worth.get(id(one)), number)
            for one in (*step.proposals, *step.attempts, *step.solutions)
        ]
        (folder / "rollouts" / f"step-{number:06d}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in written))
        timings.append(timing(number, rng))
    for name, table in (("metrics.jsonl", rows), ("timings.jsonl", timings)):
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in table))
    result = {"before": score(rng, 0.17), "after": score(rng, 0.34), "seconds": 4.0 * steps, "versions": versions}
    (folder / "probe.json").write_text(json.dumps(result))
    write_text(folder / "latest", f"step-{steps:06d}\n")
    return folder


def score(rng: random.Random, mean: float) -> dict[str, Any]:
    """A probe's state: 50 held-out tasks of each kind, 4 samples each."""
    shift = {Kind.DEDUCTION: 0.12, Kind.ABDUCTION: 0.0, Kind.INDUCTION: -0.08}
    return {
        "bands": {str(k): [1 + i % 4 for i in range(50)] for k in shift},
        "greedy": {str(k): [float(rng.random() < mean + s + 0.05) for _ in range(50)] for k, s in shift.items()},
        "sampled": {
            str(k): [sum(rng.random() < mean + s for _ in range(4)) / 4 for _ in range(50)] for k, s in shift.items()
        },
    }


def probe_scores(number: int, steps: int) -> dict[str, float]:
    value = 0.17 + 0.17 * (1 - math.exp(-3 * number / steps))
    row = {f"probe/{kind}": value + shift for kind, shift in zip(PLAYED, (0.1, 0.0, -0.08), strict=True)}
    row |= {name.replace("probe/", "probe_greedy/"): rate + 0.04 for name, rate in row.items()}
    for band in range(1, 5):
        kinds = {f"heldout/band{band}/{kind}": max(0.0, row[f"probe/{kind}"] + 0.1 * (2 - band)) for kind in PLAYED}
        row |= kinds | {f"heldout/band{band}/mean": sum(kinds.values()) / len(kinds)}
    return row | {"probe/mean": value, "probe_greedy/mean": value + 0.04}


def timing(number: int, rng: random.Random) -> dict[str, Any]:
    seconds = {"write": 3.4, "execute": 0.1, "update": 1.6}
    row: dict[str, Any] = {"step": number}
    row |= {f"seconds/{name}": round(value * rng.uniform(0.8, 1.3), 4) for name, value in seconds.items()}
    row["seconds/step"] = round(sum(v for k, v in row.items() if k != "step"), 4)
    row["tokens_per_second"] = round(rng.uniform(2600, 3100), 1)
    counts = {
        "prefill": 900, "prefill/asked": 6000, "decode": 6000, "decode/kept": 5200, "update": 4500,
        "update/slots": 5000, "update/rows": 9000, "update/prompts": 900, "update/completions": 3600,
    }  # fmt: skip
    row |= {f"tokens/{name}": round(tokens * rng.uniform(0.8, 1.2)) for name, tokens in counts.items()}
    row |= {f"flops/{name}": row[f"tokens/{name}"] * 4.2e6 for name in ("prefill", "decode", "update")}
    row |= {"flops/update/again": 0.0, "flops/step": sum(v for k, v in row.items() if k.startswith("flops/"))}
    row["rollouts"] = 360
    return row | {"memory/active": 21_000_000, "memory/peak": int(6e8 * rng.uniform(0.9, 1.1)), "memory/cache": 9_000}


def make_step(number: int, steps: int, rng: random.Random, settings: config.Config, hostile: bool = False) -> Step:
    """One step: for each kind some proposals, some of them valid, each tried n times, and some solutions."""
    progress = number / max(1, steps - 1)
    kinds = [Kind(name) for name in settings.tasks.kinds]
    n = settings.batch.attempts
    proposals: list[Scored] = []
    attempts: list[Scored] = []
    solutions: list[Scored] = []

    def dirt() -> str:
        return rng.choice(HOSTILE) if hostile else ""

    for kind in kinds:
        for _ in range(settings.batch.proposals):
            task = make_task(kind, number, rng, dirt())
            rollout = spoken(Role.PROPOSE, kind, f"```python\n{task.program}\n```\n{dirt()}", rng, None)
            if rng.random() > 0.45 + 0.4 * progress:
                why = rng.choice(REASONS[:2] if rng.random() < 0.6 - 0.5 * progress else REASONS)
                proposals.append(Scored(rollout, Verdict(False, False, why, detail=f"line 2: {dirt()}"), -1.0))
                continue
            rate = min(n, max(0, round(n * rng.gauss(0.35 + 0.25 * progress, 0.35)))) / n
            reward = 1 - rate if 0 < rate < 1 else -0.5
            proposals.append(Scored(rollout, Verdict(True, True, "ok", task), reward, rate))
            attempts += [answered(task, j < round(rate * n), rng, dirt(), attempt=True) for j in range(n)]
        for _ in range(settings.batch.solves):
            task = make_task(kind, number - 1, rng, "")
            solutions += [
                answered(task, rng.random() < 0.2 + 0.4 * progress, rng, dirt())
                for _ in range(settings.batch.solve_group)
            ]
    trained = [*proposals, *attempts, *solutions]
    update = Update(
        rng.gauss(0, 0.01), abs(rng.gauss(0.05, 0.01)), 4e-4, 0.52 - 0.2 * progress + rng.gauss(0, 0.01), math.nan,
        abs(rng.gauss(3e-7, 1e-7)), abs(rng.gauss(5e-6, 1e-6)), 0.0, 0.0, len(trained), 8 * len(trained),
        peak_memory=600_000_000,
    )  # fmt: skip
    return Step(number, proposals, attempts, solutions, trained, [rng.gauss(0, 1) for _ in trained], update, 0, 0)


def make_task(kind: Kind, step: int, rng: random.Random, dirt: str) -> Task:
    body, argument = rng.choice(BODIES)
    name = rng.choice("abcdefgh") + str(rng.randrange(100))
    program = f"def f(x):\n    {name} = {body}\n    return [{name}, {rng.randrange(1000)}][x[0] % 2]"
    if dirt:
        program += f"  # {dirt}"
        if rules.check_program(program) is not None:  # what no parser takes cannot be a valid task's program
            program = f"def f(x):\n    return {dirt!a}"
    cases = tuple(Case(argument, f"{i}{dirt}") for i in range(6 if kind is Kind.INDUCTION else 1))
    return Task(kind, program, cases, f"what comes next? {dirt}" if kind is Kind.INDUCTION else "", step)


def spoken(role: Role, kind: Kind, text: str, rng: random.Random, task: Task | None) -> Rollout:
    tokens = tuple(range(rng.randint(6, 40)))
    completion = Completion(tokens, tuple(-0.1 for _ in tokens), text, Stop.EOS)
    return Rollout(Prompt(role, kind, f"{role} {kind}\n", task=task), (1, 2, 3), completion)


def answered(task: Task, right: bool, rng: random.Random, dirt: str, attempt: bool = False) -> Scored:
    text = f"```output\n{task.cases[0].output if right else rng.randint(0, 9)}{dirt}\n```"
    verdict = Verdict(True, right, "ok" if right else "wrong")
    return Scored(spoken(Role.SOLVE, task.kind, text, rng, task), verdict, 1.0 if right else -0.5, attempt=attempt)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--every", type=int, default=0)
    given = parser.parse_args()
    evaluation = config.EvaluationConfig(every=given.every)
    print(make_run(given.folder, given.steps, hostile=given.hostile, evaluation=evaluation))
