"""Does the proposer keep up? What it earns and what it proposes, in thirds of runs, finished or not.

    python benchmarks/learning/proposer.py logs/learning/default-0 logs/learning/sharp-0
    python benchmarks/learning/proposer.py logs/learning/* --steps 85 --parts 4

A row for each condition (the run's name without its seed) and part, means over its runs. Rewards are those of the run's
own ladder: compare them with the parts before, and between runs of one ladder only. Shares of fresh tasks are pooled
over the steps of a part. `held out` is the last probe within the part, at temperature 1 and greedily.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parents[2])]

from azr_mlx.run.folder import RunFolder  # noqa: E402
from azr_mlx.types import Kind  # noqa: E402

Row = dict[str, Any]
COLUMNS = (
    "reward", "valid", "learnable", "never solved", "always solved", "known or repeated", "no signal", "AST nodes",
    "new cells a step", "held out", "greedy",
)  # fmt: skip


def condition(run: Path) -> str:
    """The name of a run without its seed."""
    name, _, seed = run.name.rpartition("-")
    return name if seed.isdigit() and name else run.name


def of_kinds(rows: Sequence[Row], name: str, kinds: Sequence[str] = tuple(Kind)) -> float | None:
    """The mean over steps and kinds of a metric; None where it was never measured."""
    found = [row[key] for row in rows for kind in kinds if (key := f"{name}/{kind}") in row]
    return fmean(found) if found else None


def part(rows: Sequence[Row], cells_before: int) -> dict[str, float]:
    """The figures of some steps of a run, by column; `cells_before` are the filled cells of the step before them."""
    bins = [row[key] for row in rows for kind in Kind if (key := f"solve_rates/{kind}") in row]
    fresh = sum(map(sum, bins)) or 1
    never, always = sum(one[0] for one in bins) / fresh, sum(one[-1] for one in bins) / fresh
    refused = [row[key] for row in rows for kind in Kind if (key := f"refused/{kind}") in row]
    known = sum(one.get("program known", 0) + one.get("duplicate", 0) for one in refused)
    figures: dict[str, float | None] = {
        "reward": of_kinds(rows, "reward/propose"),
        "valid": 100 * (of_kinds(rows, "valid") or 0.0),
        "learnable": 100 * (1 - never - always),
        "never solved": 100 * never,
        "always solved": 100 * always,
        "known or repeated": 100 * known / (fresh + sum(sum(one.values()) for one in refused)),
        "no signal": 100 * fmean(row["zero_signal"] for row in rows),
        "AST nodes": of_kinds(rows, "program_nodes"),
    }
    if "cells/filled" in rows[-1]:
        figures["new cells a step"] = (rows[-1]["cells/filled"] - cells_before) / len(rows)
    for column, metric in (("held out", "probe/mean"), ("greedy", "probe_greedy/mean")):
        figures[column] = next((100 * row[metric] for row in reversed(rows) if metric in row), None)
    return {name: value for name, value in figures.items() if value is not None}


def parts(rows: Sequence[Row], count: int) -> list[dict[str, float]]:
    """The figures of `count` equal parts of a run's steps. Fewer steps than parts have no figures."""
    if len(rows) < count:
        return []
    cuts = [round(len(rows) * i / count) for i in range(count + 1)]
    # The seeds fill cells before the first step, which has no row: the first part counts from its own first step.
    before = [rows[max(0, cut - 1)].get("cells/filled", 0) for cut in cuts]
    return [part(rows[a:b], cells) for (a, b), cells in zip(itertools.pairwise(cuts), before, strict=False)]


def table(runs: Sequence[Path], steps: int | None, count: int) -> str:
    """Markdown: a row for each condition and part."""
    found: dict[str, list[list[dict[str, float]]]] = {}
    lengths: dict[str, list[int]] = {}
    for run in runs:
        rows = RunFolder(run).rows()[:steps]
        if figures := parts(rows, count):
            found.setdefault(condition(run), []).append(figures)
            lengths.setdefault(condition(run), []).append(len(rows))
    lines = [
        f"| {' | '.join(('condition', 'seeds', 'steps', 'part', *COLUMNS))} |",
        "| --- " * (4 + len(COLUMNS)) + "|",
    ]
    for name, figures_of_runs in found.items():
        for number in range(count):
            cells = [f"`{name}`", str(len(figures_of_runs)), f"{fmean(lengths[name]):.0f}", f"{number + 1} of {count}"]
            for column in COLUMNS:
                values = [one[number][column] for one in figures_of_runs if column in one[number]]
                digits = 2 if column == "reward" else 1 if column in ("AST nodes", "new cells a step") else 0
                digits = 1 if column in ("held out", "greedy") else digits
                cells.append(f"{fmean(values):.{digits}f}" if values else "")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, help="look at the first steps only, to compare runs at equal steps")
    parser.add_argument("--parts", type=int, default=3)
    args = parser.parse_args()
    sys.stdout.write(table([run for run in args.runs if run.is_dir()], args.steps, args.parts))


if __name__ == "__main__":
    main()
