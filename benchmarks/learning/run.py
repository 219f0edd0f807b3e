"""Does self-play teach? Runs conditions over seeds and writes a table of held-out solve rates before and after.

    python benchmarks/learning/run.py default shuffled --seeds 0 1 2 --minutes 10
    python benchmarks/learning/run.py default --steps 60 --parallel 2     # equal rollouts instead of equal time

Runs that are finished are not repeated: delete their folder to measure again. The figures that count are those of runs
that had the machine to themselves (--parallel 1).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean, stdev

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import figure  # noqa: E402
from conditions import CONDITIONS  # noqa: E402

from azr_mlx.probe import Score, compare  # noqa: E402

# Two-sided 95 % quantiles of Student's t for 1 to 9 degrees of freedom.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)


def play(name: str, seed: int, folder: Path, words: list[str]) -> None:
    """One run in this process."""
    from azr_mlx import config, launch

    condition = CONDITIONS[name]
    if condition.prepare is not None:
        condition.prepare()
    sets = [f"seed={seed}", "tracking.rollouts=false", "tracking.report=false", *condition.sets, *words]
    settings = config.load("nano", sets)
    sys.exit(launch.train(settings, run_dir=folder, quiet=False))


def start(name: str, seed: int, folder: Path, words: list[str]) -> Path:
    """One run in a process of its own, unless it is done; its console goes to a log beside it."""
    if (folder / "probe.json").exists():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(Path(__file__)), name, "--seeds", str(seed), "--one", str(folder)]
    with folder.with_suffix(".log").open("w") as log:
        subprocess.run(
            [*command, *(f"--set={word}" for word in words)], stdout=log, stderr=subprocess.STDOUT, check=True
        )
    return folder


def summary(folders: list[Path]) -> list[tuple[str, float, float, float, float, bool]]:
    """(line, before, after, change, 95 % half width over seeds, one kind outside its own interval) in points."""
    lines: dict[str, list[tuple[float, float]]] = {}
    falls: dict[str, bool] = {}
    for folder in folders:
        result = json.loads((folder / "probe.json").read_text())
        for line in compare(Score.from_state(result["before"]), Score.from_state(result["after"])):
            lines.setdefault(line.name, []).append((100 * line.before, 100 * line.after))
            falls[line.name] = falls.get(line.name, False) or line.change < -line.half_width
    rows = []
    for name, pairs in lines.items():
        changes = [after - before for before, after in pairs]
        width = (
            STUDENT[min(len(changes), 10) - 2] * stdev(changes) / math.sqrt(len(changes))
            if len(changes) > 1
            else math.nan
        )
        rows.append((name, fmean(b for b, _ in pairs), fmean(a for _, a in pairs), fmean(changes), width, falls[name]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conditions", nargs="+", choices=sorted(CONDITIONS), metavar="CONDITION")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, help="wall time of each run (the preset's, if not given)")
    parser.add_argument("--steps", type=int, help="steps of each run, with no limit of time")
    parser.add_argument("--probe-every", type=int, default=0, help="steps between probes, for the figure; 0 is none")
    parser.add_argument("--parallel", type=int, default=1, help="runs at once")
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "learning")
    parser.add_argument("--set", action="append", default=[], help="one more dial for every run")
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
    jobs = [(name, seed, args.out / f"{name}-{seed}", words) for name in args.conditions for seed in args.seeds]
    with ThreadPoolExecutor(args.parallel) as pool:
        folders = list(pool.map(lambda job: start(*job), jobs))
    table = [
        "| condition | held-out tasks | before | after | change (points) | 95 % over seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name in args.conditions:
        mine = [folder for (job, *_), folder in zip(jobs, folders, strict=True) if job == name]
        steps = fmean(len((folder / "metrics.jsonl").read_text().splitlines()) for folder in mine)
        for line, before, after, change, width, falls in summary(mine):
            note = " (falls)" if falls else ""
            name_of = f"{name} ({len(mine)} seeds, {steps:.0f} steps)"
            table.append(f"| {name_of} | {line} | {before:.1f} | {after:.1f} | {change:+.1f}{note} | ±{width:.1f} |")
    text = "\n".join(table) + "\n"
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / f"table-{'-'.join(args.conditions)}.md").write_text(text)
    sys.stdout.write(text)
    if args.probe_every and importlib.util.find_spec("matplotlib"):
        figure.draw(
            {name: [f for (n, *_), f in zip(jobs, folders, strict=True) if n == name] for name in args.conditions},
            args.out / "learning",
        )


if __name__ == "__main__":
    main()
