"""Does training on own rows teach, and does it teach by their rewards? One-digit arithmetic on the embedded model.

    python benchmarks/learning/rows.py --seeds 0 1 2 --steps 40

Two conditions: the rewards of examples/own_tasks as they are, and the same shuffled within each group of answers (the
same rewards, the same sizes of step, no information). Held-out rows before and after; one run at a time. Finished runs
are not repeated (delete their folder to measure again), interrupted ones go on.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import run  # noqa: E402

EXAMPLE = ROOT / "examples" / "own_tasks" / "arithmetic.yaml"
CONDITIONS = {"rewards": "the rewards as they are", "shuffled": "rewards shuffled within groups"}


def shuffle_rewards() -> None:
    """Permute the rewards within each group of answers to a row."""
    from azr_mlx.rows import environment

    real = environment.advantages  # type: ignore[attr-defined]
    state = {"step": 0}

    def shuffled(groups: Sequence[Sequence[float]], algorithm: str) -> list[list[float]]:
        state["step"] += 1
        rng = random.Random(f"shuffle/{state['step']}")
        return real([rng.sample(list(group), len(group)) for group in groups], algorithm)

    environment.advantages = shuffled  # type: ignore[attr-defined]


def play(name: str, seed: int, folder: Path, words: list[str]) -> None:
    """One run in this process."""
    from azr_mlx import config
    from azr_mlx.run import session
    from azr_mlx.run.folder import RunFolder

    if name == "shuffled":
        shuffle_rewards()
    sets = [f"seed={seed}", "tracking.rollouts=false", "tracking.report=false", "stop.worse=false", *words]
    settings = config.load(EXAMPLE, sets)
    if RunFolder(folder).latest() is not None:
        sys.exit(session.train(settings, resume=str(folder), keep_awake=False))
    sys.exit(session.train(settings, run_dir=folder, keep_awake=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "learning-rows")
    parser.add_argument("--one", nargs=3, metavar=("CONDITION", "SEED", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    os.chdir(ROOT)
    words = [f"steps={args.steps}", "evaluation.every=0"]
    if args.one:
        play(args.one[0], int(args.one[1]), Path(args.one[2]), words)
    found: dict[str, list[run.Result]] = {name: [] for name in CONDITIONS}
    seconds = []
    for seed in args.seeds:
        for name in CONDITIONS:
            folder = args.out / f"{name}-{seed}"
            if not (folder / "probe.json").exists():
                folder.mkdir(parents=True, exist_ok=True)
                command = [sys.executable, __file__, f"--steps={args.steps}", "--one", name, str(seed), str(folder)]
                with folder.with_suffix(".log").open("a") as log:
                    subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, check=True)
            found[name].append(run.results(folder)["mean T=1"])
            seconds.append(json.loads((folder / "probe.json").read_text())["seconds"])
            sys.stderr.write(f"{name} {seed}: {found[name][-1]}\n")
    lines = [run.row(["condition", "seeds", "T=1, before", "after", "change", "each seed"]), run.row(["---"] * 6)]
    for name, meaning in CONDITIONS.items():
        mine = found[name]
        cells = [meaning, str(len(mine)), f"{fmean(one.before for one in mine):.1f}"]
        cells += [f"{fmean(one.after for one in mine):.1f}", run.with_interval([one.change for one in mine])]
        lines.append(run.row([*cells, ", ".join(f"{one.change:+.1f}" for one in mine)]))
    text = "\n".join(lines) + f"\n\n{args.steps} steps, {fmean(seconds):.0f} s of training a run.\n"
    (args.out / "table.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
