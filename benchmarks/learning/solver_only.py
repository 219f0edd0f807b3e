"""Does a small language model learn from fixed tasks? The solver's half of the game, beside a control.

    python benchmarks/learning/solver_only.py real shuffled --model FOLDER --steps 15 --set optim.lr=4e-4   # the rate
    python benchmarks/learning/solver_only.py real shuffled --model FOLDER --steps 30 --seeds 0 1 2

The tasks are those of level0-played.jsonl, 8 of each kind a step, each solved 8 times; nothing is proposed. `shuffled`
gives the same rewards to other rollouts of the same prompt: what changes there is damage or noise, and the largest rate
that leaves it flat is the one to take. Held out are level0-held-out.jsonl: band 1 has the functions that are played,
with other values, band 2 functions that never are. No task of either file is solved by a copy (level0.py).

Finished runs are not repeated, interrupted ones go on: the same command again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

from conditions import shuffle_rewards  # noqa: E402
from level0 import PLAYED  # noqa: E402
from run import row, with_interval  # noqa: E402

from azr_mlx.run.held_out import HeldOutScore  # noqa: E402

CONDITIONS: dict[str, Callable[[], None] | None] = {"real": None, "shuffled": shuffle_rewards}
SETS = (
    "batch.proposals=0", "batch.solves=8", "batch.solve_group=8", "batch.draw=uniform", "stop.worse=false",
    "evaluation.every=0", "tracking.rollouts=false", "tracking.report=false",
)  # fmt: skip


def play_fixed_tasks() -> None:
    """The buffer begins with the played tasks, and no seeds are collected."""
    from azr_mlx.selfplay.environment import SelfPlay
    from azr_mlx.selfplay.task_buffer import read_tasks

    def prepare(self: Any, writer: Any, say: Callable[[str], None]) -> dict[str, int]:
        # The functions of band 1 are held out with other values, and four tasks are about each.
        self.buffer.forbidden, self.buffer.per_program = frozenset(), 0
        added = [self.buffer.add(task) for task in read_tasks(PLAYED)]
        say(f"{sum(added)} fixed tasks")
        return {}

    SelfPlay.prepare = prepare  # type: ignore[method-assign]


def play(name: str, seed: int, folder: Path, words: list[str]) -> None:
    """One run in this process."""
    from azr_mlx import config
    from azr_mlx.run import session
    from azr_mlx.run.folder import RunFolder

    prepare = CONDITIONS[name]
    if prepare is not None:
        prepare()
    play_fixed_tasks()
    settings = config.load(HERE / "smollm2.yaml", [*SETS, f"seed={seed}", *words])
    if RunFolder(folder).latest() is not None:
        sys.exit(session.train(settings, resume=str(folder)))
    sys.exit(session.train(settings, run_dir=folder))


def start(name: str, seed: int, folder: Path, words: list[str]) -> None:
    """One run in a process of its own, unless it is done; its console goes to a log beside it."""
    if (folder / "probe.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(Path(__file__)), name, "--seeds", str(seed), "--one", str(folder)]
    with folder.with_suffix(".log").open("a") as log:
        subprocess.run(
            [*command, *(f"--set={word}" for word in words)], stdout=log, stderr=subprocess.STDOUT, check=True
        )


Lines = dict[str, tuple[float, float]]  # by name: before and after, in percent


def results(folder: Path) -> Lines:
    """Every kind by band at temperature 1, and all of a kind greedily."""
    found = json.loads((folder / "probe.json").read_text())
    before, after = (HeldOutScore.from_state(found[when]) for when in ("before", "after"))
    lines: Lines = {}
    for kind in before.sampled:
        for band in before.band_numbers():
            pair = (before.in_band(band).sampled[kind], after.in_band(band).sampled[kind])
            words = "played" if band == 1 else "never played"
            lines[f"{kind}, functions {words}, T=1"] = (100 * fmean(pair[0]), 100 * fmean(pair[1]))
        lines[f"{kind}, all, T=1"] = (100 * fmean(before.sampled[kind]), 100 * fmean(after.sampled[kind]))
        lines[f"{kind}, all, greedy"] = (100 * fmean(before.greedy[kind]), 100 * fmean(after.greedy[kind]))
    return lines


def table(runs: dict[str, dict[int, Path]]) -> str:
    """Markdown: each line of each condition, with intervals over seeds, and how far the first condition is from it."""
    found = {name: {seed: results(folder) for seed, folder in seeds.items()} for name, seeds in runs.items()}
    first = next(iter(found))
    lines = [row(["held out", "condition", "seeds", "before", "after", "change", f"{first} minus this"])]
    lines.append(row(["---"] * 7))
    by_line: dict[str, list[str]] = defaultdict(list)
    for name, seeds in found.items():
        for line in next(iter(seeds.values())):
            pairs = {seed: one[line] for seed, one in seeds.items()}
            apart = [
                (found[first][seed][line][1] - found[first][seed][line][0]) - (after - before)
                for seed, (before, after) in pairs.items()
                if seed in found[first] and name != first
            ]
            means = [f"{fmean(column):.1f}" for column in zip(*pairs.values(), strict=True)]
            change = with_interval([after - before for before, after in pairs.values()])
            cells = [line, name, str(len(pairs)), *means, change, with_interval(apart) if apart else ""]
            by_line[line].append(row(cells))
    return "\n".join([*lines, *(one for rows in by_line.values() for one in rows)]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("conditions", nargs="+", choices=sorted(CONDITIONS), metavar="CONDITION")
    parser.add_argument("--model", help="the folder of SmolLM2-135M-Instruct; without it, the hub's")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "solver-only")
    parser.add_argument("--set", action="append", default=[], help="one more option for every run")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    words = list(args.set)
    if args.one:
        play(args.conditions[0], args.seeds[0], args.one, words)
    words += [f"steps={args.steps}", *([f"model.id={args.model}"] if args.model else [])]
    runs: dict[str, dict[int, Path]] = {name: {} for name in dict.fromkeys(args.conditions)}
    for seed in args.seeds:
        for name in runs:
            runs[name][seed] = args.out / f"{name}-{seed}"
            start(name, seed, runs[name][seed], words)
    text = table(runs)
    (args.out / "table.md").write_text(text)
    sys.stdout.write(text)


if __name__ == "__main__":
    main()
