"""The figure of a comparison: held-out solve rate of each kind against minutes and against rollouts, seeds as a band.

    python benchmarks/learning/figure.py logs/learning default shuffled grammar

Reads the run folders that run.py left (`<condition>-<seed>`) and writes learning.png and learning.svg beside them. A
point is a probe of a run (`evaluation.every`), the first and the last ones included; a line is the mean over seeds, the
band the range of the seeds.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2])]

from azr_mlx.report import run_data  # noqa: E402
from azr_mlx.report.page import PHASES  # noqa: E402

PANELS = ("probe/mean", "probe/deduction", "probe/abduction", "probe/induction")
COLOURS = ("#0f766e", "#b45309", "#6d28d9", "#be123c", "#1d4ed8", "#4d7c0f", "#737373")


def curve(story: run_data.RunData, name: str, against: str) -> list[tuple[float, float]]:
    """(minutes or thousands of solver rollouts, solve rate in percent) at every probe of a run."""
    assert story.settings is not None
    minutes, rollouts = [0.0], [0.0]
    for row in story.rows:
        minutes.append(minutes[-1] + sum(row.get(f"seconds/{phase}", 0.0) for phase in PHASES) / 60)  # no probes
        tried = sum(sum(row.get(f"solve_rates/{kind}", ())) for kind in story.kinds) * story.settings.batch.attempts
        drawn = story.settings.batch.solves * story.settings.batch.solve_group * len(story.kinds)
        rollouts.append(rollouts[-1] + (tried + drawn) / 1000)
    x = minutes if against == "minutes" else rollouts
    first = story.rows[0]["step"]
    return [(x[int(step) - first], 100 * value) for step, value in story.points(name)]


def mean_curve(curves: list[list[tuple[float, float]]]) -> tuple[list[float], list[float], list[float], list[float]]:
    """x, mean, lowest and highest over runs, probe by probe for as long as every run has one."""
    count = min(map(len, curves))
    ends = [[*one[: count - 1], one[-1]] for one in curves]
    columns = list(zip(*ends, strict=True))
    return (
        [fmean(x for x, _ in column) for column in columns],
        [fmean(y for _, y in column) for column in columns],
        [min(y for _, y in column) for column in columns],
        [max(y for _, y in column) for column in columns],
    )


def draw(conditions: dict[str, list[Path]], target: Path) -> None:
    """Write `target`.png and `target`.svg. Needs matplotlib (`pip install matplotlib`)."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "azr"  # the same input, the same file
    from matplotlib import pyplot

    read = {condition: [run_data.read(run) for run in runs] for condition, runs in conditions.items()}
    figure, grid = pyplot.subplots(2, len(PANELS), figsize=(14, 6.4), sharey="col", layout="constrained")
    rows: Any = grid
    for axes, against in zip(rows, ("minutes", "rollouts"), strict=True):
        for panel, name in zip(axes, PANELS, strict=True):
            for colour, (condition, told) in zip(COLOURS, read.items(), strict=False):
                x, mean, low, high = mean_curve([curve(story, name, against) for story in told])
                panel.plot(x, mean, color=colour, marker="o", markersize=3, label=f"{condition} ({len(told)})")
                panel.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            panel.set_title(name.removeprefix("probe/"), fontsize=10)
            panel.set_xlabel("minutes" if against == "minutes" else "solver rollouts (thousands)")
            panel.grid(alpha=0.25)
            panel.spines[["top", "right"]].set_visible(False)
        axes[0].set_ylabel("held-out solve rate, T = 1 (%)")
    rows[0][0].legend(frameon=False, fontsize=8, title="condition (seeds)", title_fontsize=8)
    for kind in ("png", "svg"):
        figure.savefig(target.with_suffix(f".{kind}"), dpi=110, metadata={"Date": None} if kind == "svg" else None)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("conditions", nargs="+")
    args = parser.parse_args()
    found = {
        name: sorted(p for p in args.folder.glob(f"{name}-[0-9]*") if (p / "probe.json").exists())
        for name in args.conditions
    }
    for name, runs in found.items():
        if not runs:
            sys.exit(f"{args.folder}: no finished run of {name}")
    draw(found, args.folder / "learning")


if __name__ == "__main__":
    main()
