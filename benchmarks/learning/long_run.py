"""The long run: a thousand steps with and without the archive's reward, and the shuffled control, seed after seed.

    setsid nohup nice -n 19 python benchmarks/learning/long_run.py > logs/long.log 2>&1 &
    python benchmarks/learning/long_run.py                       # again after an interruption: goes on
    python benchmarks/learning/long_run.py --table               # what is there so far, also while it runs

Hours for each run on one core. The order is seed by seed, so that whatever is finished can be compared. Ctrl-C, or
`kill -INT -- -$(cat logs/long/pid)` from elsewhere, ends it with the steps of the run at hand saved; a kill loses at
most the steps since the last checkpoint. Each run lies in logs/long/NAME-SEED as any other: `azr report` shows it,
new_or_surer.py measures it.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT), str(HERE)]

import proposer  # noqa: E402
from conditions import CONDITIONS  # noqa: E402

PLAYED = ("curriculum", "curriculum-counted", "counted", "shuffled")


def finished(command: list[str]) -> bool:
    """Whether a run came to its end. Interrupted, it is waited for: it saves its steps first."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        with suppress(KeyboardInterrupt):
            return process.wait() == 0
        process.wait()
    return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--conditions", nargs="+", choices=sorted(CONDITIONS), default=list(PLAYED), metavar="CONDITION"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--probe-every", type=int, default=100)
    parser.add_argument("--out", type=Path, default=ROOT / "logs" / "long")
    parser.add_argument("--table", action="store_true", help="print the table and start nothing")
    args = parser.parse_args()
    runs = [args.out / f"{name}-{seed}" for seed in args.seeds for name in args.conditions]
    if not args.table:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "pid").write_text(f"{os.getpgrp()}\n")
        for seed in args.seeds:
            for name in args.conditions:
                command = [sys.executable, str(HERE / "run.py"), name, "--seeds", str(seed), "--steps", str(args.steps)]
                command += ["--probe-every", str(args.probe_every), "--out", str(args.out)]
                if finished(command):
                    print(f"{name}, seed {seed}: done", flush=True)
                else:
                    sys.exit(f"{name}, seed {seed}: stopped; see {args.out / f'{name}-{seed}.log'}")
    sys.stdout.write(proposer.table([run for run in runs if run.is_dir()], None, 3))


if __name__ == "__main__":
    main()
