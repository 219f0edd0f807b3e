"""Run the tests again and again while the machine is busy: a test that fails now and then is a fault.

    python benchmarks/fuzz/repeat_tests.py --times 20 --busy 2                    # everything that make test runs
    python benchmarks/fuzz/repeat_tests.py --times 20 --busy 2 -- tests/executor  # what follows -- goes to pytest

Prints a line a round and ends with 1 at the first failure, whose output it shows.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUSY = "while True: pass"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--busy", type=int, default=2, help="processes that compute beside the tests")
    parser.add_argument("words", nargs="*", help="what pytest is given")
    given = parser.parse_args()
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(given.busy)]
    try:
        for number in range(1, given.times + 1):
            began = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *given.words],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            last = (done.stdout.strip().splitlines() or ["no output"])[-1]
            print(f"{number:>3} of {given.times}: {last}  ({time.monotonic() - began:.0f} s)", flush=True)
            if done.returncode:
                print(done.stdout[-20_000:], done.stderr[-2_000:])
                return 1
    finally:
        for process in others:
            process.kill()
            process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
