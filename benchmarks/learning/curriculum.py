"""The curriculum of finished runs: how what is proposed changes, in thirds of the run, with examples.

    python benchmarks/learning/curriculum.py logs/learning/default-0 logs/learning/default-1

Numbers come from metrics.jsonl (means over the runs given), programs from the buffer of the first run's last
checkpoint: valid tasks that were new when they were proposed. Prints Markdown.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import random
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

from azr_mlx import checkpoint  # noqa: E402
from azr_mlx.buffer import read_tasks  # noqa: E402
from azr_mlx.report import story as stories  # noqa: E402
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--examples", type=int, default=4, help="programs of each third to show")
    args = parser.parse_args()
    told = [stories.read(run) for run in args.runs]
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
    last = checkpoint.latest(args.runs[0])
    if last is None:
        return
    count, rng = len(told[0].rows), random.Random(0)
    new = [task for task in read_tasks(last / "buffer.jsonl") if task.step >= 0]
    print(f"\n| operation | {' | '.join(THIRDS)} |\n|---|---|---|---|")
    by_third = [[task for task in new if min(2, task.step * 3 // max(1, count)) == third] for third in range(3)]
    used = [operators(tasks) for tasks in by_third]
    for name, _ in sum(used, Counter[str]()).most_common(14):
        shares = [f"{100 * part[name] / max(1, len(tasks)):.0f} %" for part, tasks in zip(used, by_third, strict=True)]
        print(f"| `{name}` | {' | '.join(shares)} |")
    for label, tasks in zip(THIRDS, by_third, strict=True):
        print(f"\nExamples of the {label}:\n")
        for task in rng.sample(tasks, min(args.examples, len(tasks))):
            case = task.cases[0]
            body = "\n".join(f"    {line}" for line in task.program.splitlines())
            print(f"{body}\n    # {task.kind}, step {task.step}: f({case.input}) = {case.output}\n")


if __name__ == "__main__":
    main()
