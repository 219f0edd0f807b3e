"""Run the tests again and again while the machine is busy: a test that fails now and then is a fault.

    python benchmarks/fuzz/repeat_tests.py --times 20 --busy 2                    # as make test runs them
    python benchmarks/fuzz/repeat_tests.py --times 20 --busy 2 -- tests/executor  # what follows -- goes to pytest
    python benchmarks/fuzz/repeat_tests.py --times 20 --log passes.jsonl          # goes on where it was ended

Prints a line a round and ends with 1 at the first failure, whose output it shows. With `--log` every round is a line of
that file, and rounds in a row that passed before, of the same commit and with the same words, count: twenty passes may
be collected in several sittings. A failure starts the count again.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BUSY = "while True: pass"


def words_of_make() -> list[str]:
    """What `make test` gives to pytest."""
    found = re.search(r"^TESTS := \$\(BIN\)/python -m pytest (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    if found is None:
        raise SystemExit("the Makefile has no line TESTS := $(BIN)/python -m pytest ...")
    return shlex.split(found.group(1))


def commit() -> str:
    """The commit that is tested. Raises SystemExit when files differ from it, since passes would be of nothing."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()

    if git("status", "--porcelain", "--untracked-files=no"):
        raise SystemExit("--log counts passes of one commit, and files differ from it: commit them first")
    return git("rev-parse", "HEAD")


def passes(log: Path | None, what: dict[str, Any]) -> int:
    """Rounds of `what` that passed since one failed."""
    count = 0
    for line in log.read_text(encoding="utf-8").splitlines() if log is not None and log.exists() else ():
        row = json.loads(line)
        if row.items() >= what.items():
            count = count + 1 if row["passed"] else 0
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--busy", type=int, default=2, help="processes that compute beside the tests")
    parser.add_argument("--log", type=Path, help="a file that keeps the rounds")
    parser.add_argument("words", nargs="*", help="what pytest is given besides the words of make test")
    given = parser.parse_args()
    words = [*words_of_make(), *given.words]
    what = {"commit": commit() if given.log else "", "words": words}
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(given.busy)]
    try:
        for number in range(passes(given.log, what) + 1, given.times + 1):
            began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *words],
                cwd=ROOT, capture_output=True, text=True, check=False,
            )  # fmt: skip
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            seconds = time.monotonic() - began
            processor = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
            last = (done.stdout.strip().splitlines() or ["no output"])[-1].strip("= ")
            print(
                f"{number:>3} of {given.times}: {last}  ({seconds:.0f} s, {processor:.0f} s of processors)", flush=True
            )
            if given.log is not None:
                row = what | {
                    "passed": done.returncode == 0, "said": last, "seconds": round(seconds),
                    "processor_seconds": round(processor), "busy": given.busy, "load": round(os.getloadavg()[1], 1),
                }  # fmt: skip
                with given.log.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
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
