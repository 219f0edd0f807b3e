"""A made-up run on the real console, for looking at it:

python -m tests.run.demo FOLDER [--steps 6] [--hostile]"""

from __future__ import annotations

import argparse
import random
import time
from dataclasses import replace
from pathlib import Path

from azr_mlx import config
from azr_mlx.run import metrics
from azr_mlx.run.folder import RunFolder
from azr_mlx.run.tracker import Tracker
from tests.report.runs import PLAYED, make_step

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("folder", type=Path)
parser.add_argument("--steps", type=int, default=6)
parser.add_argument("--pause", type=float, default=0.05)
parser.add_argument("--hostile", action="store_true")
parser.add_argument("--quiet", action="store_true")
given = parser.parse_args()
settings = replace(config.load("nano"), steps=given.steps)
tracker = Tracker(RunFolder(given.folder), settings, quiet=given.quiet)
tracker.rewind(0)
tracker.print("run demo   model none   cpu")
rng, known = random.Random(0), set[str]()
for number in range(given.steps):
    for name in ("write", "execute", "update"):
        with tracker.phase(name, 20) as progress:
            for done in range(1, 21):
                time.sleep(given.pause)
                progress(done, 20, 30 * done)
    step = make_step(number, given.steps, rng, settings, given.hostile)
    row = metrics.row(step, known, dict.fromkeys(PLAYED, 160 + number))
    known |= metrics.programs(one.verdict.task for one in step.proposals if one.verdict.task is not None)
    if number == given.steps - 1:
        row |= {"delta_logp_mean": 2.0}
    tracker.log_step(step, row, {"active": 21_000_000, "peak": 598_000_000, "cache": 0})
tracker.close()
tracker.print_curves()
tracker.print("the end")
