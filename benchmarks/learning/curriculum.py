"""The curriculum of finished runs: how what is proposed changes, in thirds of the run, with examples.

    python benchmarks/learning/curriculum.py logs/learning/default-0 logs/learning/default-1

Three tables in Markdown: metrics of what is proposed, the operations that its programs use, and for each operation how
much better held-out tasks with it are solved, to see whether the solver improves most on what is proposed. Metrics come
from metrics.jsonl (means over the runs), programs from the buffers of the last checkpoints: valid tasks that were new
when they were proposed. Examples are of the first run.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import math
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

from azr_mlx import config, paths  # noqa: E402
from azr_mlx.report import run_data  # noqa: E402
from azr_mlx.run import held_out  # noqa: E402
from azr_mlx.run.folder import RunFolder  # noqa: E402
from azr_mlx.selfplay.task_buffer import program_key, read_tasks  # noqa: E402
from azr_mlx.types import Kind, Task  # noqa: E402

THIRDS = ("first third", "middle third", "last third")
LINES = {
    "proposals that are valid": ("valid", 100, "%"),
    "attempts that solve them": ("difficulty", -100, "%"),
    "solved by some and not by all": ("learnable", 100, "%"),
    "duplicates": ("repeated", 100, "%"),
    "valid with a new program": ("novel", 100, "%"),
    "AST nodes": ("program_nodes", 1, ""),
    "nesting": ("program_depth", 1, ""),
}


def thirds(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    cut = [round(len(rows) * i / 3) for i in range(4)]
    return [rows[a:b] for a, b in itertools.pairwise(cut)]


def number(rows: list[dict[str, Any]], name: str, kind: Kind, factor: float) -> float | None:
    """The mean of a metric of a kind; a negative factor means its complement (1 - x)."""
    values = [row[f"{name}/{kind}"] for row in rows if f"{name}/{kind}" in row]
    if not values:
        return None
    return fmean(values) * factor if factor > 0 else (1 - fmean(values)) * -factor


def operators(tasks: list[Task]) -> Counter[str]:
    """How many programs use each operation, by its name in the syntax tree or that of the function called."""
    found: Counter[str] = Counter()
    for task in tasks:
        names: set[str] = set()
        for node in ast.walk(ast.parse(task.program)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                names.add(node.func.id)
            elif isinstance(node, ast.BinOp):
                names.add({"Add": "+", "Sub": "-", "Mult": "*"}.get(type(node.op).__name__, type(node.op).__name__))
            elif isinstance(node, ast.Subscript):
                names.add("[::-1] and other slices" if isinstance(node.slice, ast.Slice) else "index")
            elif isinstance(node, ast.If | ast.IfExp | ast.For | ast.ListComp):
                names.add(type(node).__name__)
        found.update(names)
    return found


def ignores(task: Task) -> bool:
    """Whether the program has an argument that it never reads."""
    tree = ast.parse(task.program)
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return any(argument.arg not in read for function in functions for argument in function.args.args)


def entropy(tasks: list[Task]) -> float:
    """Entropy of the outputs in bits: log2 of how many equally frequent outputs would be as varied."""
    counts = Counter(case.output for task in tasks for case in task.cases)
    total = sum(counts.values())
    return -sum(n / total * math.log2(n / total) for n in counts.values())


MEASURES: dict[str, Callable[[list[Task]], str]] = {
    "tasks": lambda tasks: str(len(tasks)),
    "programs, of 100 tasks": lambda tasks: f"{100 * len(set(map(program_key, tasks))) / len(tasks):.0f}",
    "characters of a program": lambda tasks: f"{fmean(len(task.program) for task in tasks):.0f}",
    "ignore an argument": lambda tasks: f"{100 * fmean(map(ignores, tasks)):.0f} %",
    "induction tasks with one output": lambda tasks: f"{100 * constant(tasks):.0f} %",
    "entropy of outputs, bits": lambda tasks: f"{entropy(tasks):.1f}",
}


def constant(tasks: list[Task]) -> float:
    """Share of the induction tasks whose outputs are all equal."""
    several = [task for task in tasks if task.kind is Kind.INDUCTION]
    return fmean(len({case.output for case in task.cases}) == 1 for task in several) if several else 0.0


def changes(runs: list[Path]) -> dict[str, list[tuple[float, float]]]:
    """(before, after) solve rates at temperature 1 of the held-out tasks that use each operation, over all runs."""
    found: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        settings = config.load(run)
        probe_tasks = held_out.tasks_for(settings, paths.resolve_existing(settings.model.id))
        said = json.loads((run / "probe.json").read_text())
        before, after = (held_out.HeldOutScore.from_state(said[when]).sampled for when in ("before", "after"))
        for kind in before:
            tasks = [task for task in probe_tasks if task.kind is kind]
            for task, *rates in zip(tasks, before[kind], after[kind], strict=True):
                for name in operators([task]):
                    found.setdefault(name, []).append((rates[0], rates[1]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--examples", type=int, default=10, help="programs of each third to show")
    args = parser.parse_args()
    told = [run_data.read(run) for run in args.runs]
    parts = [thirds(story.rows) for story in told]
    print(f"| kind | of what is proposed | {' | '.join(THIRDS)} |\n|---|---|---|---|---|")
    for kind in told[0].kinds:
        for label, (name, factor, unit) in LINES.items():
            cells = []
            for third in range(3):
                values = [number(part[third], name, kind, factor) for part in parts]
                known = [value for value in values if value is not None]
                cells.append(f"{fmean(known):.0f} {unit}".strip() if known else "")
            if any(cells):
                print(f"| {kind} | {label} | {' | '.join(cells)} |")
    kept = {run: last for run in args.runs if (last := RunFolder(run).latest()) is not None}
    by_third: list[list[Task]] = [[], [], []]
    for story, last in zip(told, kept.values(), strict=True):
        length = len(story.rows)
        for task in read_tasks(last / "buffer.jsonl"):
            if task.step >= 0:
                by_third[min(2, task.step * 3 // max(1, length))].append(task)
    print(f"\n| new tasks | {' | '.join(THIRDS)} |\n|---|---|---|---|")
    for label, measure in MEASURES.items():
        print(f"| {label} | {' | '.join(measure(tasks) if tasks else '' for tasks in by_third)} |")
    print(f"\n| operation | {' | '.join(THIRDS)} | held-out tasks with it | before | after | change |")
    print("|---|---|---|---|---|---|---|---|")
    used = [operators(tasks) for tasks in by_third]
    held_out = changes(list(kept))
    tasks_in_all = sum(map(len, by_third))
    for name, number_of in sum(used, Counter[str]()).most_common():
        if number_of < tasks_in_all / 200:  # names that nobody defined, for example
            break
        shares = [f"{100 * part[name] / max(1, len(tasks)):.0f} %" for part, tasks in zip(used, by_third, strict=True)]
        rates = held_out.get(name, [])
        cells = ["0", "", "", ""]
        if rates:
            before, after = fmean(before for before, _ in rates), fmean(after for _, after in rates)
            cells = [
                f"{len(rates) // len(kept)}",
                f"{100 * before:.0f} %",
                f"{100 * after:.0f} %",
                f"{100 * (after - before):+.0f}",
            ]
        print(f"| `{name}` | {' | '.join([*shares, *cells])} |")
    rng = random.Random(0)
    first = [task for task in read_tasks(kept[args.runs[0]] / "buffer.jsonl") if task.step >= 0]
    count = len(told[0].rows)
    by_third = [[task for task in first if min(2, task.step * 3 // max(1, count)) == third] for third in range(3)]
    for label, tasks in zip(THIRDS, by_third, strict=True):
        print(f"\nExamples of the {label}:\n")
        for task in rng.sample(tasks, min(args.examples, len(tasks))):
            case = task.cases[0]
            body = "\n".join(f"    {line}" for line in task.program.splitlines())
            print(f"{body}\n    # {task.kind}, step {task.step}: f({case.input}) = {case.output}\n")


if __name__ == "__main__":
    main()
