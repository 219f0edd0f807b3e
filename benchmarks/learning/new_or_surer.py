"""What is new and what is only surer: pass@k before and after a run, on held-out tasks beyond the pre-training.

    python benchmarks/learning/new_or_surer.py logs/learning/default-0 logs/learning/default-1
    python benchmarks/learning/new_or_surer.py logs/learning/default-0 --tasks 8 --samples 16      # a quick look

Each task is tried `--samples` times at temperature 1, by the model before training and with the adapters of every run's
last checkpoint. The bands are today's held-out tasks (`probe`) and three of `checkpoints/qwen3-nano/beyond.py`, whose
programs have more operations than any that pre-training showed. A task is

- *new* when it was never solved before and is solved after, *lost* when it is the other way round. Chance alone makes
  as many of one as of the other, so they stand side by side; the line `before, again` says how many chance makes:
  the untrained model, tried as often with other draws;
- *surer* when it was solved before as well and its rate is higher after.

The interval of a change is a paired 95 % normal interval over tasks, of the mean over the runs. What was counted is
kept in pass_at_k.json beside the figure (pass_at_k.png, with matplotlib), and an interrupted call goes on with the next
band. Tasks about a program that a run's buffer holds are left out, and their number is printed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "checkpoints" / "qwen3-nano")]

import beyond  # noqa: E402
from grammar import KINDS  # noqa: E402

from azr_mlx import config  # noqa: E402
from azr_mlx.evaluation.statistics import pass_at_k  # noqa: E402
from azr_mlx.files import write_text  # noqa: E402
from azr_mlx.run import held_out  # noqa: E402
from azr_mlx.run.folder import RunFolder  # noqa: E402
from azr_mlx.selfplay.task_buffer import program_key, read_tasks  # noqa: E402
from azr_mlx.types import Task  # noqa: E402

BEFORE, AGAIN = "before", "before, again"
PROBE = "probe"
Counts = dict[str, dict[str, list[int]]]  # who -> band -> right answers of each task


def right_answers(
    policy: Any, solver: Any, tasks: Sequence[Task], samples: int, seed: int, max_tokens: int
) -> list[int]:
    """How many of `samples` answers to each task are right."""
    prompts, right = [solver.ask(task) for task in tasks], [0] * len(tasks)
    pending = [
        (i, solver.judge(rollout))
        for i, _, rollout in policy.sample(prompts, samples, seed=(seed,), temperature=1.0, max_tokens=max_tokens)
    ]
    for i, verdict in pending:
        right[i] += verdict().correct
    solver.forget()
    return right


@dataclass(frozen=True)
class Growth:
    """A band before and after. Rates are shares, `changes` (mean, half of the interval) by k."""

    before: dict[int, float]
    after: dict[int, float]
    changes: dict[int, tuple[float, float]]
    new: float
    lost: float
    surer: float
    tasks: int


def growth(before: Sequence[int], after: Sequence[Sequence[int]], samples: int) -> Growth:
    """`before` and each of `after` (one list a run) are counts of right answers, task by task."""
    ks = [2**i for i in range(int(math.log2(samples)) + 1)]
    old = {k: [pass_at_k(samples, c, k) for c in before] for k in ks}
    # A task's rate after is the mean over the runs, so that tasks stay the units.
    new = {k: [fmean(pass_at_k(samples, c, k) for c in one) for one in zip(*after, strict=True)] for k in ks}
    changes = {}
    for k in ks:
        paired = [b - a for a, b in zip(old[k], new[k], strict=True)]
        half = 1.96 * stdev(paired) / math.sqrt(len(paired)) if len(paired) > 1 else math.inf
        changes[k] = (fmean(paired), half)
    pairs = [[(a, b) for a, b in zip(before, one, strict=True)] for one in after]

    def mean_count(kept: Any) -> float:
        return fmean(sum(kept(a, b) for a, b in run) for run in pairs)

    return Growth(
        {k: fmean(values) for k, values in old.items()},
        {k: fmean(values) for k, values in new.items()},
        changes,
        new=mean_count(lambda a, b: a == 0 < b),
        lost=mean_count(lambda a, b: b == 0 < a),
        surer=mean_count(lambda a, b: 0 < a < b),
        tasks=len(before),
    )


def table(counts: Counts, samples: int) -> str:
    """Markdown: for each band pass@1, 8 and the last k before and after, and what is new, lost and surer."""
    runs = [who for who in counts if who not in (BEFORE, AGAIN)]
    last = 2 ** int(math.log2(samples))
    shown = sorted({1, min(8, last), last})
    head = ["operations", "tasks", "who", *(f"pass@{k}" for k in shown), *(f"change @{k}" for k in shown)]
    head += ["new", "lost", "surer"]
    lines = [" | ".join(head), " | ".join("---" for _ in head)]
    for band in counts[BEFORE]:
        for who, after in (
            (AGAIN, [counts[AGAIN][band]]),
            (f"after, {len(runs)} runs", [counts[r][band] for r in runs]),
        ):
            if not after:
                continue
            found = growth(counts[BEFORE][band], after, samples)
            cells = [band, str(found.tasks), who]
            cells += [f"{100 * found.before[k]:.1f} → {100 * found.after[k]:.1f}" for k in shown]
            cells += [f"{100 * found.changes[k][0]:+.1f} ± {100 * found.changes[k][1]:.1f}" for k in shown]
            lines.append(" | ".join([*cells, f"{found.new:.1f}", f"{found.lost:.1f}", f"{found.surer:.1f}"]))
    return "".join(f"| {line} |\n" for line in lines)


def draw(counts: Counts, samples: int, target: Path) -> None:
    """Write `target`: pass@k against k, a panel for each band. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    bands, runs = list(counts[BEFORE]), [who for who in counts if who not in (BEFORE, AGAIN)]
    figure, grid = pyplot.subplots(1, len(bands), figsize=(3.6 * len(bands), 3.4), sharey=True, layout="constrained")
    panels: Any = [grid] if len(bands) == 1 else grid
    for panel, band in zip(panels, bands, strict=True):
        found = growth(counts[BEFORE][band], [counts[run][band] for run in runs], samples)
        for rates, label, colour in ((found.before, "before", "#737373"), (found.after, "after", "#0f766e")):
            panel.plot([*rates], [100 * rate for rate in rates.values()], "o-", color=colour, markersize=3, label=label)
        panel.set_xscale("log", base=2)
        panel.set_xticks([*found.before], [str(k) for k in found.before])
        panel.set_title(f"{band}: {found.new:.0f} new, {found.lost:.0f} lost of {found.tasks}", fontsize=9)
        panel.set_xlabel("k")
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("pass@k, %")
    panels[0].legend(frameon=False, fontsize=8)
    figure.savefig(target, dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--tasks", type=int, default=24, help="of each kind in each band")
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1, help="of the tasks beyond pre-training, and of the draws")
    parser.add_argument(
        "--out", type=Path, help="folder of pass_at_k.json and pass_at_k.png; the first run's, if not given"
    )
    args = parser.parse_args()
    out = args.out or args.runs[0]
    out.mkdir(parents=True, exist_ok=True)
    keep = out / "pass_at_k.json"
    asked = {"tasks": args.tasks, "samples": args.samples, "seed": args.seed}
    said = json.loads(keep.read_text()) if keep.exists() else {}
    counts: Counts = said.get("counts", {}) if said.get("asked") == asked else {}

    from azr_mlx.executor import Executor, rules
    from azr_mlx.selfplay.prompts import make_style
    from azr_mlx.selfplay.solver import Solver

    settings = config.load(args.runs[0])
    with Executor() as executor:
        from azr_mlx.model.policy import Policy  # MLX comes after the executor

        policy = Policy.load(settings.model, settings.lora, settings.optim, settings.sampling, settings.loss)
        style = make_style(
            settings.model.style, seconds=settings.executor.wall_seconds, modules=sorted(rules.ALLOWED_MODULES)
        )
        solver = Solver(style, executor)
        played = {
            program_key(task)
            for run in args.runs
            if (last := RunFolder(run).latest()) is not None
            for task in read_tasks(last / "buffer.jsonl")
        }
        probe = list(held_out.tasks_for(settings, policy.folder))
        bands = {PROBE: [task for kind in KINDS for task in [t for t in probe if t.kind is kind][: args.tasks]]}
        for band in beyond.BANDS:
            bands[band] = beyond.tasks(args.seed, band, args.tasks, settings.tasks.induction_pairs)
        bands = {band: [task for task in tasks if program_key(task) not in played] for band, tasks in bands.items()}
        left_out = len(bands) * len(KINDS) * args.tasks - sum(map(len, bands.values()))
        sys.stderr.write(f"{left_out} tasks are left out: a run has played their programs\n" if left_out else "")
        for who in (BEFORE, AGAIN, *map(str, args.runs)):
            if who in (BEFORE, AGAIN):
                adapter = None
            elif (adapter := RunFolder(who).latest()) is None:
                sys.exit(f"{who} has no checkpoint")
            else:
                policy.load_adapter(adapter)
            for band, tasks in bands.items():
                known = counts.setdefault(who, {}).get(band)
                if known is not None and len(known) == len(tasks):
                    continue
                draws = args.seed + (who == AGAIN)
                right = right_answers(policy, solver, tasks, args.samples, draws, settings.sampling.solve_tokens)
                counts[who][band] = right
                write_text(keep, json.dumps({"asked": asked, "counts": counts}))
                sys.stderr.write(f"{who}, {band}: {100 * fmean(right) / args.samples:.1f} %\n")
    sys.stdout.write(table(counts, args.samples))
    if importlib.util.find_spec("matplotlib"):
        draw(counts, args.samples, out / "pass_at_k.png")


if __name__ == "__main__":
    main()
