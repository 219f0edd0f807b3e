"""How finished runs answer held-out deductions: at once, or worked out line by line first, and which is right.

    python benchmarks/learning/response_style.py logs/learning/default-0 logs/learning/default-1

One table in Markdown, means over the runs: the model before training, and with the adapters of the last checkpoints.
Tasks are the probe's, eight answers to each at temperature 1. An answer that begins with its fence was given at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

sys.path[:0] = [str(Path(__file__).parents[2])]

from azr_mlx import config  # noqa: E402
from azr_mlx.executor import Executor  # noqa: E402
from azr_mlx.model.policy import Policy  # noqa: E402
from azr_mlx.run import held_out  # noqa: E402
from azr_mlx.run.folder import RunFolder  # noqa: E402
from azr_mlx.selfplay.prompts import Compact  # noqa: E402
from azr_mlx.selfplay.solver import Solver  # noqa: E402
from azr_mlx.types import Kind, Task  # noqa: E402

SAMPLES = 8


@dataclass(frozen=True)
class Habit:
    """Of all answers: the share that was worked out, how many of each sort are right, and tokens of each sort."""

    worked: float
    right_worked: float
    right_direct: float
    tokens_worked: float
    tokens_direct: float


def habit(policy: Policy, solver: Solver, tasks: Sequence[Task], max_tokens: int) -> Habit:
    right: dict[bool, list[bool]] = {True: [], False: []}
    tokens: dict[bool, list[int]] = {True: [], False: []}
    prompts = [solver.ask(task) for task in tasks]
    for _, _, rollout in policy.sample(prompts, SAMPLES, seed=(0,), max_tokens=max_tokens):
        worked = not rollout.reply.startswith("```")
        right[worked].append(solver.judge(rollout)().correct)
        tokens[worked].append(len(rollout.completion.tokens))
    share = len(right[True]) / (SAMPLES * len(tasks))
    rates = [fmean(right[worked] or [False]) for worked in (True, False)]
    return Habit(share, *rates, *(fmean(tokens[worked] or [0]) for worked in (True, False)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    args = parser.parse_args()
    found: dict[str, list[Habit]] = {"before": [], "after": []}
    with Executor() as executor:
        solver = Solver(Compact(), executor)
        for run in args.runs:
            settings = config.load(str(run / "config.yaml"))
            policy = Policy.load(settings.model, settings.lora, settings.optim, settings.sampling, settings.loss)
            tasks = [task for task in held_out.tasks_for(settings, policy.folder) if task.kind is Kind.DEDUCTION]
            last = RunFolder(run).latest()
            if last is None:
                sys.exit(f"{run} has no checkpoint")
            if not found["before"]:
                found["before"].append(habit(policy, solver, tasks, settings.sampling.solve_tokens))
            policy.load_adapter(last)
            found["after"].append(habit(policy, solver, tasks, settings.sampling.solve_tokens))
    print("| held-out deductions | worked out | right, worked out | right, at once | tokens, worked out | at once |")
    print("|---|---|---|---|---|---|")
    for when, habits in found.items():
        shares = [fmean(getattr(one, name) for one in habits) for name in ("worked", "right_worked", "right_direct")]
        lengths = [fmean(getattr(one, name) for one in habits) for name in ("tokens_worked", "tokens_direct")]
        print(
            f"| {when} | {' | '.join(f'{100 * share:.0f} %' for share in shares)} | "
            f"{' | '.join(f'{length:.0f}' for length in lengths)} |"
        )


if __name__ == "__main__":
    main()
