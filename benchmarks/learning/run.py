"""Does self-play teach? Runs conditions over seeds and writes held-out solve rates before and after.

    python benchmarks/learning/run.py default shuffled --seeds 0 1 2 3 4 --minutes 10 --parallel 2
    python benchmarks/learning/run.py default shuffled --steps 100        # equal rollouts instead of equal time

Two tables: the means over kinds, each condition beside the first one (paired by seed), and every kind. Finished runs
are not repeated (delete their folder to measure again), interrupted ones go on. A run that has the machine to itself
takes more steps in its minutes than one of two side by side.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import figure  # noqa: E402
from conditions import CONDITIONS  # noqa: E402

from azr_mlx.run.held_out import HeldOutScore, compare  # noqa: E402

# Two-sided 95 % quantiles of Student's t for 1 to 9 degrees of freedom, and of the normal distribution.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
NORMAL = 1.96


def play(name: str, seed: int, folder: Path, words: list[str]) -> None:
    """One run in this process."""
    from azr_mlx import config
    from azr_mlx.run import session
    from azr_mlx.run.folder import RunFolder

    condition = CONDITIONS[name]
    if condition.prepare is not None:
        condition.prepare()
    # Controls are run to their end, whatever becomes of them.
    sets = [
        f"seed={seed}",
        "stop.worse=false",
        "tracking.rollouts=false",
        "tracking.report=false",
        *condition.sets,
        *words,
    ]
    settings = config.load("nano", sets)
    if RunFolder(folder).latest() is not None:
        sys.exit(session.train(settings, resume=str(folder)))
    sys.exit(session.train(settings, run_dir=folder))


def start(name: str, seed: int, folder: Path, words: list[str]) -> Path:
    """One run in a process of its own, unless it is done; its console goes to a log beside it."""
    if (folder / "probe.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(Path(__file__)), name, "--seeds", str(seed), "--one", str(folder)]
    with folder.with_suffix(".log").open("a") as log:
        subprocess.run(
            [*command, *(f"--set={word}" for word in words)], stdout=log, stderr=subprocess.STDOUT, check=True
        )
    return folder


@dataclass(frozen=True)
class Result:
    """One line of a finished run, in percent: before, after, and whether it fell out of its own interval."""

    before: float
    after: float
    fell: bool

    @property
    def change(self) -> float:
        return self.after - self.before


def results(folder: Path) -> dict[str, Result]:
    """The lines of a run's before/after comparison by name."""
    said = json.loads((folder / "probe.json").read_text())
    lines = compare(HeldOutScore.from_state(said["before"]), HeldOutScore.from_state(said["after"]))
    return {line.name: Result(100 * line.before, 100 * line.after, line.change < -line.half_width) for line in lines}


def student(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t, at worst 0.3 % off beyond the table (Fisher's expansion)."""
    if freedom <= len(STUDENT):
        return STUDENT[freedom - 1]
    z = NORMAL
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def with_interval(values: Sequence[float]) -> str:
    """Mean and half of its 95 % interval over seeds (Student's t); one value has no interval."""
    if len(values) < 2:
        return f"{fmean(values):+.1f}"
    return f"{fmean(values):+.1f} ± {student(len(values) - 1) * stdev(values) / math.sqrt(len(values)):.1f}"


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def tables(runs: dict[str, dict[int, Path]]) -> str:
    """Markdown: the means of every condition beside the first one, then every line of every condition."""
    found = {name: {seed: results(folder) for seed, folder in seeds.items()} for name, seeds in runs.items()}
    first = next(iter(found))
    steps = {
        name: fmean(len((folder / "metrics.jsonl").read_text().splitlines()) for folder in seeds.values())
        for name, seeds in runs.items()
    }
    head = ["condition", "seeds", "steps", "T=1, before", "after", "change", f"beside {first}", "greedy, change"]
    lines = [row(head), row(["---"] * len(head))]
    for name, seeds in found.items():
        means = [one["mean T=1"] for one in seeds.values()]
        greedy = [one["mean greedy"].change for one in seeds.values()]
        both = [seed for seed in seeds if seed in found[first]]
        paired = [seeds[seed]["mean T=1"].change - found[first][seed]["mean T=1"].change for seed in both]
        before, after = fmean(one.before for one in means), fmean(one.after for one in means)
        cells = [CONDITIONS[name].meaning, str(len(seeds)), f"{steps[name]:.0f}", f"{before:.1f}", f"{after:.1f}"]
        cells.append(with_interval([one.change for one in means]))
        cells.append(with_interval(paired) if name != first and both else "")
        lines.append(row([*cells, with_interval(greedy)]))
    lines += ["", row(["condition", "held-out tasks", "before", "after", "change", "fell out of its interval"])]
    lines.append(row(["---"] * 6))
    for name, seeds in found.items():
        for line in next(iter(seeds.values())):
            mine = [one[line] for one in seeds.values()]
            fell = sum(one.fell for one in mine)
            before, after = fmean(one.before for one in mine), fmean(one.after for one in mine)
            cells = [CONDITIONS[name].meaning, line, f"{before:.1f}", f"{after:.1f}"]
            cells.append(with_interval([one.change for one in mine]))
            lines.append(row([*cells, f"{fell} of {len(mine)}" if fell else ""]))
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conditions", nargs="+", choices=sorted(CONDITIONS), metavar="CONDITION")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="wall time of each run (the preset's, if not given)")
    parser.add_argument("--steps", type=int, help="steps of each run, with no limit of time")
    parser.add_argument("--probe-every", type=int, default=0, help="steps between probes, for the figure; 0 is none")
    parser.add_argument("--parallel", type=int, default=1, help="runs at once")
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "learning")
    parser.add_argument("--set", action="append", default=[], help="one more option for every run")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    words = list(args.set)
    if args.one:
        play(args.conditions[0], args.seeds[0], args.one, words)
    if args.minutes is not None:
        words.append(f"minutes={args.minutes}")
    if args.steps is not None:
        words += [f"steps={args.steps}", "minutes=0"]
    if args.probe_every:
        words.append(f"evaluation.every={args.probe_every}")
    names = list(dict.fromkeys(args.conditions))
    jobs = [(name, seed, args.out / f"{name}-{seed}", words) for name in names for seed in args.seeds]
    with ThreadPoolExecutor(args.parallel) as pool:
        folders = list(pool.map(lambda job: start(*job), jobs))
    runs = {name: {seed: f for (n, seed, *_), f in zip(jobs, folders, strict=True) if n == name} for name in names}
    text = tables(runs)
    (args.out / f"table-{'-'.join(names)}.md").write_text(text)
    sys.stdout.write(text)
    if args.probe_every and importlib.util.find_spec("matplotlib"):
        figure.draw({name: [*seeds.values()] for name, seeds in runs.items()}, args.out / "learning")


if __name__ == "__main__":
    main()
