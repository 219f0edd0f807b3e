"""Where the time of a whole self-play step goes: the nano preset, executor, buffer, metrics and rollout files included.

    python benchmarks/speed/step.py [--steps 5] [--json FILE]

Four parts that add up to the step. *model*: inside the sampler and the update. *waiting*: the loop asks for verdicts
that are not there yet. *judging*: replies are read and jobs handed to the executor while rows are written. *elsewhere*:
all the rest, from detokenizing to the rollout files. The executor is busy while at least one job is under way, and what
of that time the loop does not wait for is hidden behind decoding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from azr_mlx import config  # noqa: E402
from azr_mlx.executor import Executor, Limits  # noqa: E402

clock = time.perf_counter


class Watch:
    """Seconds by part. A part inside another one counts for itself alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[list[float]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        self._open.append([0.0])
        start = clock()
        try:
            yield
        finally:
            took = clock() - start
            self.seconds[name] += took - self._open.pop()[0]
            if self._open:
                self._open[-1][0] += took

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def inside(*args: Any, **words: Any) -> Any:
            with self.part(name):
                return function(*args, **words)

        return inside


class Jobs:
    """When the executor had work: intervals from submission to the outcome."""

    def __init__(self, executor: Executor) -> None:
        self.intervals: list[tuple[float, float]] = []
        submit = executor._submit

        def watched(*args: Any) -> Any:
            start = clock()
            work = submit(*args)
            work.future.add_done_callback(lambda _: self.intervals.append((start, clock())))
            return work

        executor._submit = watched  # type: ignore[method-assign, assignment]

    def busy(self) -> float:
        """Seconds in which at least one job was under way."""
        total, end = 0.0, 0.0
        for first, last in sorted(self.intervals):
            total += max(0.0, last - max(first, end))
            end = max(end, last)
        return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", default="nano")
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--steps", type=int, default=5, help="measured steps, after one that warms up")
    parser.add_argument("--seeds", type=int, default=24, help="tasks of each kind in the buffer at the start")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args()
    settings = config.load(args.config, [f"buffer.seed_size={args.seeds}", *args.sets])
    options = settings.executor
    limits = Limits(options.wall_seconds, options.cpu_seconds, options.memory_mb)
    with Executor(options.level, limits, workers=options.workers) as executor, tempfile.TemporaryDirectory() as folder:
        rows = measure(settings, executor, args.steps, Path(folder))
    parts = ("model", "waiting", "judging", "elsewhere")
    print(f"{args.config}, {args.steps} steps; seconds")
    print(f"{'step':>5} {'all':>7} " + " ".join(f"{name:>9}" for name in parts) + f" {'busy':>7} {'hidden':>7}")
    for number, row in enumerate(rows, 1):
        cells = " ".join(f"{row[name]:9.3f}" for name in parts)
        print(f"{number:>5} {row['all']:7.2f} {cells} {row['busy']:7.2f} {row['hidden']:7.0%}")
    middle = {name: statistics.median(row[name] / row["all"] for row in rows) for name in parts}
    hidden = statistics.median(row["hidden"] for row in rows)
    print(f"{'share':>13} " + " ".join(f"{middle[name]:9.1%}" for name in parts) + f" {'':7} {hidden:7.0%}")
    print(f"outside model compute and executor waits: {middle['judging'] + middle['elsewhere']:.1%} (medians)")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "share": middle, "hidden": hidden}, indent=1))


def measure(settings: config.Config, executor: Executor, steps: int, folder: Path) -> list[dict[str, float]]:
    from azr_mlx import trainer
    from azr_mlx.model import device, sampler
    from azr_mlx.model.policy import Policy
    from azr_mlx.run import environments, metrics
    from azr_mlx.run.folder import RunFolder
    from azr_mlx.run.tracker import Tracker

    watch, jobs = Watch(), Jobs(executor)
    policy = Policy.load(settings.model, settings.lora, settings.optim, settings.sampling, settings.loss)
    tracker = Tracker(RunFolder(folder), settings, quiet=True)
    playing = environments.self_play(settings, policy, environments.solver(settings, policy, executor))
    made = trainer.Trainer(settings, policy, [playing], tracker.phase)
    made.prepare()
    decode = sampler.Decoder.step
    sampler.Decoder.step = watch.timed("model", decode)  # type: ignore[method-assign]
    policy.update = watch.timed("model", policy.update)  # type: ignore[method-assign]

    def judging(judge: Callable[..., Any]) -> Callable[..., Any]:
        judge = watch.timed("judging", judge)
        return lambda *args: watch.timed("waiting", judge(*args))

    for side in (playing.proposer, playing.solver):
        object.__setattr__(side, "judge", judging(side.judge))
    found = []
    for step in range(steps + 1):
        watch.seconds.clear()
        jobs.intervals.clear()
        start = clock()
        with watch.part("elsewhere"):
            known = metrics.programs(task for tasks in made.tasks().values() for task in tasks)
            happened = made.train_step(step)
            row = metrics.row(happened, known, {kind: len(tasks) for kind, tasks in made.tasks().items()})
            tracker.log_step(happened, row, {"active": 0, "peak": 0, "cache": device.memory().cache})
        everything = clock() - start
        busy = jobs.busy()
        if step:
            hidden = 1 - min(busy, watch.seconds["waiting"]) / busy if busy else 1.0
            found.append({"all": everything, "busy": busy, "hidden": hidden, **watch.seconds})
    sampler.Decoder.step = decode  # type: ignore[method-assign]
    tracker.close()
    return found


if __name__ == "__main__":
    main()
