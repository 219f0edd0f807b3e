"""The order of many conditions after equal steps: who learned most, and which differences are more than chance.

    python benchmarks/learning/run.py default solver-only rank-4 --seeds 0 1 --steps 100 --probe-every 50
    python benchmarks/learning/ranking.py logs/learning --at 100

Takes every run folder `<condition>-<seed>` that was probed at that step: longer runs too, and any number of seeds.
Minutes depend on what else the machine did; the thousands of solver rollouts beside them do not.

The interval of a difference pools the spread over seeds of all conditions, as a one-way analysis of variance does: a
condition of one seed borrows its spread from the others. It holds for one comparison; among twenty true equals, one is
outside.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

import figure  # noqa: E402
from conditions import CONDITIONS  # noqa: E402
from run import row, student  # noqa: E402

from azr_mlx.report import run_data  # noqa: E402

CURVES = (("probe/mean", "minutes"), ("probe_greedy/mean", "rollouts"))


def pooled(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """Standard deviation within groups and its degrees of freedom (0.0 and 0 without two of anything)."""
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum((value - fmean(group)) ** 2 for group in groups for value in group)
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)


def beside(mine: Sequence[float], first: Sequence[float], spread: float, freedom: int) -> str:
    """The difference of two means with half of its 95 % interval; * where the interval leaves zero out."""
    change = fmean(mine) - fmean(first)
    if not freedom:
        return f"{change:+.1f}"
    half = student(freedom) * spread * math.sqrt(1 / len(mine) + 1 / len(first))
    return f"{change:+.1f} ± {half:.1f}{' *' if abs(change) > half else ''}"


def reached(run: Path, at: int) -> tuple[float, ...] | None:
    """After `at` steps: held-out solve rates in percent (T=1, greedy), minutes, thousands of solver rollouts."""
    story = run_data.read(run)
    steps = [int(step) for step, _ in story.points("probe/mean")]
    if at not in steps:
        return None
    points = [figure.curve(story, *what)[steps.index(at)] for what in CURVES]
    return points[0][1], points[1][1], points[0][0], points[1][0]


def table(runs: Mapping[str, Sequence[tuple[float, ...]]], first: str, at: int) -> str:
    """Markdown: a line for each condition, the best at temperature 1 first."""
    spreads = [pooled([[one[i] for one in runs[name]] for name in runs]) for i in (0, 1)]
    rates = [f"T=1, {at} steps", f"beside {first}", "greedy", f"beside {first}"]
    head = ["condition", "seeds", *rates, "minutes", "rollouts"]
    lines = [row(head), row(["---"] * len(head))]
    for name in sorted(runs, key=lambda name: -fmean(one[0] for one in runs[name])):
        cells = [f"`{name}`: {CONDITIONS[name].meaning}", str(len(runs[name]))]
        for i in (0, 1):
            mine, others = [[one[i] for one in runs[key]] for key in (name, first)]
            cells += [f"{fmean(mine):.1f}", beside(mine, others, *spreads[i]) if name != first else ""]
        minutes, rollouts = (fmean(one[i] for one in runs[name]) for i in (2, 3))
        lines.append(row([*cells, f"{minutes:.1f}", f"{rollouts:.1f}k"]))
    (spread, freedom), (greedy, _) = spreads
    lines.append(f"\nDeviation over seeds: {spread:.2f}, greedy {greedy:.2f} ({freedom} degrees of freedom).")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="folders of run folders")
    parser.add_argument("--at", type=int, required=True, help="step whose probe is read")
    parser.add_argument("--beside", default="default", help="condition that the others are compared with")
    args = parser.parse_args()
    runs: dict[str, list[tuple[float, ...]]] = {}
    for folder in args.folders:
        for run in sorted(folder.glob("*-*/")):
            name = run.name.rpartition("-")[0]
            found = reached(run, args.at) if name in CONDITIONS and (run / "metrics.jsonl").is_file() else None
            if found is not None:
                runs.setdefault(name, []).append(found)
    if args.beside not in runs:
        parser.error(f"no run of {args.beside} was probed at step {args.at}")
    sys.stdout.write(table(runs, args.beside, args.at))


if __name__ == "__main__":
    main()
