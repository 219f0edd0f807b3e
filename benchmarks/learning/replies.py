"""What became of every reply of a run, early, middle and late: right, well-formed and wrong, or without the form.

    python benchmarks/learning/replies.py checkpoints/smollm2

Reads rollouts/step-*.jsonl (`tracking.rollouts`). A model that is new to the prompts learns their form first, which the
solve rate does not show.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE)]

from run import row  # noqa: E402

from azr_mlx.types import Kind, Role  # noqa: E402

THIRDS = ("first third", "middle third", "last third")


def counts(run: Path) -> dict[tuple[str, str], list[Counter[str]]]:
    """(role, kind) -> what was said of the replies in each third of the run."""
    files = sorted((run / "rollouts").glob("step-*.jsonl"))
    found: dict[tuple[str, str], list[Counter[str]]] = defaultdict(lambda: [Counter() for _ in THIRDS])
    for number, file in enumerate(files):
        for line in file.read_text(encoding="utf-8").splitlines():
            said = json.loads(line)
            why = "valid" if said["role"] == Role.PROPOSE and said["valid"] else said["why"]
            if said["role"] == Role.SOLVE and said["valid"]:
                why = "right" if said["correct"] else "wrong"
            found[said["role"], said["kind"]][number * len(THIRDS) // len(files)][why] += 1
    return found


def lines(run: Path, least: float = 0.05) -> Iterator[str]:
    """Markdown: a line for each outcome that some third has at least that share of."""
    yield row(["role", "kind", "reply", *THIRDS])
    yield row(["---"] * (3 + len(THIRDS)))
    found = counts(run)
    for role in Role:
        for kind in Kind:
            thirds = found.get((role, kind), [])
            for why, _ in sum(thirds, Counter()).most_common():
                shares = [third[why] / max(1, third.total()) for third in thirds]
                if max(shares) >= least:
                    yield row([role, kind, why, *(f"{100 * share:.0f} %" for share in shares)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    args = parser.parse_args()
    if not any((args.run / "rollouts").glob("step-*.jsonl")):
        parser.error(f"{args.run} has no rollouts: run with tracking.rollouts=true")
    sys.stdout.writelines(f"{line}\n" for line in lines(args.run))


if __name__ == "__main__":
    main()
